"""A VPC for packets: a router that was configured by messages alone, three tiers, the outside and a private gateway."""

import contextlib
import json
import os
from collections.abc import Iterator, Sequence
from typing import Any, NamedTuple

import pytest
from isolated import mac_of
from watching import must

from holdfast.lab.guest import Guest
from holdfast.lab.host import Host
from holdfast.lab.lab import Lab
from holdfast.lab.network import Segment
from holdfast.lab.process import Result

Message = dict[str, Any]

CIDR = "10.61.0.0/16"
CONTROL, MANAGEMENT = "169.254.61.3", "169.254.0.1"
GATEWAY, GATEWAY2 = "203.0.113.1", "198.51.100.1"
SOURCE_NAT = "203.0.113.61"
NEAR, FAR, RESOLVER = "192.0.2.10", "192.0.2.20", "192.0.2.53"
PRIVATE, PEER, BEHIND = "172.16.61.10", "172.16.61.1", "192.168.61.10"
"""The private gateway's address, the router's across it, and a host behind that one."""
BEHIND_NET, PRIVATE_NET = "192.168.61.0/24", "172.16.61.0/24"
CONTROL_MAC, PUBLIC_MAC, PUBLIC2_MAC, PRIVATE_MAC = (
    "0e:1a:61:00:00:02",
    "1e:1a:61:00:00:03",
    "06:1a:61:00:00:04",
    "1e:1a:61:00:00:05",
)
BOOT = {
    "vpccidr": CIDR, "domain": "vpc.example", "publicMtu": "1500", "dns1": RESOLVER, "template": "domP",
    "name": "r-61-VM", "eth0ip": CONTROL, "eth0mask": "255.255.0.0", "has_public_network": "true",
    "type": "vpcrouter", "disable_rp_filter": "true", "logrotatefrequency": "*:00:00", "source_nat_ip": SOURCE_NAT,
}  # fmt: skip


class Tier(NamedTuple):
    """A tier's facts: `number` makes its network, MAC and database id."""

    name: str
    number: int

    @property
    def net(self) -> str:
        return f"10.61.{self.number}.0/24"

    @property
    def gateway(self) -> str:
        return f"10.61.{self.number}.1"

    @property
    def mac(self) -> str:
        return f"02:00:61:0{self.number}:00:01"

    @property
    def id(self) -> int:
        return 600 + self.number

    @property
    def domain(self) -> str:
        return "db.example" if self.name == "db" else "vpc.example"

    @property
    def mtu(self) -> int:
        return 1450 - self.number


WEB, APP, DB = TIERS = (Tier("web", 1), Tier("app", 2), Tier("db", 3))
WEB1, WEB2, APP1, APP2, DB1 = "10.61.1.10", "10.61.1.11", "10.61.2.10", "10.61.2.11", "10.61.3.10"


def rule(
    kind: str,
    cidr: str = "0.0.0.0/0",
    ports: Sequence[int] = (0, 0),
    *,
    allowed: bool = True,
    icmp: Sequence[int] = (-1, -1),
) -> Message:
    """A rule of an ACL; `kind`: tcp, udp, icmp, all or the number of a protocol.  Ports 0 to 0 are all."""
    fields: Message = {"type": "protocol", "protocol": int(kind)} if kind.isdigit() else {"type": kind}
    if kind in ("tcp", "udp"):
        fields |= {"first_port": ports[0], "last_port": ports[1]}
    if kind == "icmp":
        fields |= {"icmp_type": icmp[0], "icmp_code": icmp[1]}
    return fields | {"cidr": cidr, "allowed": allowed}


def deny(kind: str, cidr: str = "0.0.0.0/0", ports: Sequence[int] = (0, 0)) -> Message:
    """A rule that denies."""
    return rule(kind, cidr, ports, allowed=False)


def route(network: str, gateway: str, *, own: str = "", revoke: bool = False) -> Message:
    """A static route; `own`: the private gateway's address, absent for a plain next hop."""
    return {"revoke": revoke} | ({"ip_address": own} if own else {}) | {"gateway": gateway, "network": network}


class Vpc:
    """The VPC: `router`, `world` behind both public gateways, `mgmt`, guests by tier, and `peer`, the router across the
    private gateway with a host behind it.  `nics` are the names that the router's nics have, by MAC.

    `seconds` are the durations of all commands, in the order in which they were given.
    """

    def __init__(self, lab: Lab) -> None:
        self.lab = lab
        control, self.public, self.public2, self.private = (
            lab.segment(name) for name in ("control", "public", "public2", "private")
        )
        self.segments: dict[Tier, Segment] = {tier: lab.segment(tier.name) for tier in TIERS}
        self.world = lab.world(self.public, f"{GATEWAY}/24", (NEAR, FAR, RESOLVER))
        self.nic = next(iter(self.world.ports))
        self.nic2 = self.world.attach(self.public2, f"{GATEWAY2}/26")
        self.peer = lab.world(self.private, f"{PEER}/24", BEHIND, "peer")
        self.peer.route(CIDR, PRIVATE)
        self.mgmt = lab.mgmt(control, f"{MANAGEMENT}/16")
        places = (("web1", WEB), ("web2", WEB), ("app1", APP), ("app2", APP), ("db1", DB))
        self.guests: list[tuple[Guest, Tier, str]] = []
        for name, tier in places:
            guest = lab.guest(name, self.segments[tier], f"02:1a:61:0{tier.number}:01:0{name[-1]}")
            self.guests.append((guest, tier, f"10.61.{tier.number}.{9 + int(name[-1])}"))
        self.web1, self.web2, self.app1, self.app2, self.db1 = (guest for guest, _, _ in self.guests)
        self.router = lab.router("r1", [(control, CONTROL_MAC)])
        self.nics: dict[str, str] = {CONTROL_MAC: "eth0"}
        self.line = dict(BOOT)
        self.seconds: list[float] = []
        self._files = 0

    def boot(self) -> None:
        """Switch the router on with its boot line, which knows of the control nic alone."""
        self.router.write("/var/cache/cloud/cmdline", " ".join(f"{key}={value}" for key, value in self.line.items()))
        self.router.boot()
        self.converged()

    def power_cut(self) -> None:
        """Take its power away and switch it on again; nothing is sent to it and nothing is started by hand."""
        self.router.power_cut()
        self.router.boot()
        self.converged()

    def converged(self) -> None:
        """Nothing is left to do, and nothing waits."""
        plan = self.router.shell(["/usr/sbin/holdfast", "plan"])
        assert (plan.code, plan.text) == (0, "nothing to do\n"), plan.text + plan.errors

    def command(self, name: str, message: Message, *, check: bool = True) -> Result:
        """Send one message as the management server does; exit status 0, and with `check` an empty plan behind it."""
        self._files += 1
        payload = json.dumps(message | {"delete_from_processed_cache": False}).encode()
        file = f"{name}.json.{self._files:08x}-61ab-4c00-9d00-000000000061"
        self.router.send(payload, file)
        done = self.router.run("update_config.py", file)
        self.seconds.append(done.seconds)
        assert done.code == 0, f"{message}\n{done.text}{done.errors}"
        if check:
            self.converged()
        return done

    def plug(self, segment: Segment, mac: str) -> str:
        """Plug a nic in, as the hypervisor does just before the message that needs it; again is no error."""
        if mac not in self.nics:
            self.nics[mac] = self.router.plug(segment, mac)
        return self.nics[mac]

    def associate(self, *addresses: str, add: bool = True, check: bool = True) -> Result:
        """Give addresses to a public nic, or take them away; the network is known by the address, the nic plugged."""
        second = addresses[0].startswith("198.51.100.")
        segment, mac = (self.public2, PUBLIC2_MAC) if second else (self.public, PUBLIC_MAC)
        gateway, netmask = (GATEWAY2, "255.255.255.192") if second else (GATEWAY, "255.255.255.0")
        items = [
            self._address(address, segment, mac, gateway, source_nat=address == SOURCE_NAT, add=add)
            | {"netmask": netmask, "first_i_p": at == 0, "mtu": 1500}
            for at, address in enumerate(addresses)
        ]
        return self.command("ip_associations", {"ip_address": items, "type": "ips"}, check=check)

    def private_gateway(self, *, source_nat: bool = False, add: bool = True, check: bool = True) -> Result:
        """Give the router its private gateway, or take it away."""
        item = self._address(PRIVATE, self.private, PRIVATE_MAC, PEER, source_nat=source_nat, add=add)
        item["is_private_gateway"] = True
        return self.command("ip_associations", {"ip_address": [item], "type": "ips"}, check=check)

    def _address(  # noqa: PLR0913 the fields of the message
        self, address: str, segment: Segment, mac: str, gateway: str, *, source_nat: bool, add: bool
    ) -> Message:
        return {
            "public_ip": address,
            "source_nat": source_nat,
            "add": add,
            "one_to_one_nat": False,
            "first_i_p": False,
            "gateway": gateway,
            "netmask": "255.255.255.0",
            "vif_mac_address": mac,
            "nic_dev_id": int(self.plug(segment, mac).removeprefix("eth")),
            "new_nic": False,
            "nw_type": "Public",
            "is_private_gateway": False,
        }

    def tier(self, tier: Tier, *, gateway: str = "", own: bool = True, add: bool = True, check: bool = True) -> Result:
        """Put a tier up, or tear it down; `own`: this router is the tier's gateway."""
        message = {
            "add": add,
            "mac_address": tier.mac,
            "device": self.plug(self.segments[tier], tier.mac),
            "router_guest_ip": tier.gateway,
            "router_guest_netmask": "255.255.255.0",
            "router_guest_gateway": gateway or tier.gateway,
            "cidr": "24",
            "dns": RESOLVER,
            "domain_name": tier.domain,
            "is_vr_guest_gateway": own,
            "network_id": tier.id,
            "mtu": tier.mtu,
            "type": "guestnetwork",
        }
        return self.command("guest_network", message, check=check)

    def acl(
        self, tier: Tier, ingress: Sequence[Message] = (), egress: Sequence[Message] = (), *, check: bool = True
    ) -> Result:
        """Send the ACL of a tier."""
        return self._acl(tier.mac, tier.gateway, ingress, egress, check=check)

    def private_acl(
        self, ingress: Sequence[Message] = (), egress: Sequence[Message] = (), *, check: bool = True
    ) -> Result:
        """Send the ACL of the private gateway."""
        return self._acl(PRIVATE_MAC, PRIVATE, ingress, egress, check=check)

    def _acl(
        self, mac: str, address: str, ingress: Sequence[Message], egress: Sequence[Message], *, check: bool
    ) -> Result:
        message = {
            "device": self.nics[mac],
            "mac_address": mac,
            "private_gateway_acl": mac == PRIVATE_MAC,
            "nic_ip": address,
            "nic_netmask": "24",
            "ingress_rules": [*ingress],
            "egress_rules": [*egress],
            "type": "networkacl",
        }
        return self.command("network_acl", message, check=check)

    def forward(self, *rules: Message, check: bool = True) -> Result:
        """Send port forwards."""
        return self.command("forwarding_rules", {"rules": [*rules], "type": "forwardrules"}, check=check)

    def static_nat(self, *rules: Message, check: bool = True) -> Result:
        """Send static NATs."""
        return self.command("staticnat_rules", {"rules": [*rules], "type": "staticnatrules"}, check=check)

    def routes(self, *routes: Message, check: bool = True) -> Result:
        """Send all static routes."""
        return self.command("static_routes", {"routes": [*routes], "type": "staticroutes"}, check=check)

    def dhcp(self, guest: Guest, tier: Tier, address: str, *, check: bool = True) -> Result:
        """Make a VM's nic known."""
        entry = {
            "host_name": guest.name,
            "mac_address": mac_of(guest),
            "ipv4_address": address,
            "ipv6_duid": f"00:03:00:01:{mac_of(guest)}",
            "default_gateway": tier.gateway,
            "default_entry": True,
            "remove": False,
            "type": "dhcpentry",
        }
        return self.command("vm_dhcp_entry", entry, check=check)

    def leases(self) -> None:
        """Make all guests known, and let them ask."""
        for guest, tier, address in self.guests:
            self.dhcp(guest, tier, address, check=False)
            guest.gets_lease()
        self.converged()


@contextlib.contextmanager
def vpc(name: str) -> Iterator[Vpc]:
    """A lab with this VPC: public address, private gateway and tiers are there, guests have leases, no ACL was sent."""
    if os.geteuid() != 0:
        pytest.skip("the lab needs root: it makes network namespaces and containers")
    with Lab(name) as lab:
        net = Vpc(lab)
        net.boot()
        net.associate(SOURCE_NAT)
        net.private_gateway()
        for tier in TIERS:
            net.tier(tier)
        net.leases()
        yield net


@contextlib.contextmanager
def also(host: Host, address: str) -> Iterator[None]:
    """A host has another address, that nobody gave it."""
    must(host, "ip", "address", "add", f"{address}/32", "dev", "lo")
    try:
        yield
    finally:
        must(host, "ip", "address", "delete", f"{address}/32", "dev", "lo")
