"""An isolated network as tests want it: a router that was configured by messages alone, its guests and the outside."""

import contextlib
import json
import os
from collections.abc import Iterator, Sequence
from typing import Any

import pytest

from holdfast.lab.guest import Guest
from holdfast.lab.lab import Lab
from holdfast.lab.process import Result

Message = dict[str, Any]

GUEST_NET, GUEST_GATEWAY = "10.31.5.0/24", "10.31.5.1"
CONTROL = "169.254.77.3"
MANAGEMENT = "169.254.0.1"
GATEWAY, GATEWAY2 = "203.0.113.1", "198.51.100.1"
SOURCE_NAT = "203.0.113.21"
NEAR, FAR, RESOLVER = "192.0.2.10", "192.0.2.20", "192.0.2.53"
GUEST_MAC, CONTROL_MAC, PUBLIC_MAC, PUBLIC2_MAC = (
    "02:1a:33:00:00:01",
    "0e:1a:33:00:00:02",
    "1e:1a:33:00:00:03",
    "06:1a:33:00:00:04",
)
BOOT = {
    "template": "domP", "name": "r-31-VM", "eth0ip": GUEST_GATEWAY, "eth0mask": "255.255.255.0", "privateMtu": "1450",
    "domain": "ring.example", "cidrsize": "24", "dhcprange": GUEST_GATEWAY, "eth1ip": CONTROL,
    "eth1mask": "255.255.0.0", "eth2ip": SOURCE_NAT, "eth2mask": "255.255.255.0", "gateway": GATEWAY,
    "publicMtu": "1500", "type": "router", "disable_rp_filter": "true", "dns1": RESOLVER,
    "logrotatefrequency": "*:00:00",
}  # fmt: skip


def ingress(  # noqa: PLR0913 the fields of the message
    number: int,
    public: str,
    proto: str,
    ports: Sequence[int] = (),
    sources: Sequence[str] = ("0.0.0.0/0",),
    *,
    icmp: tuple[int, int] | None = None,
    revoked: bool = False,
) -> Message:
    """A firewall rule of a public address; `ports` as [first, last]."""
    rule = _rule(number, public, proto, ports, sources, revoked=revoked)
    return rule | _icmp(proto, icmp) | {"dest_cidr_list": [], "traffic_type": "Ingress", "default_egress_policy": False}


def egress(  # noqa: PLR0913 the fields of the message
    number: int,
    proto: str,
    ports: Sequence[int] = (),
    sources: Sequence[str] = (GUEST_NET,),
    targets: Sequence[str] = ("0.0.0.0/0",),
    *,
    icmp: tuple[int, int] | None = None,
    revoked: bool = False,
    default: bool = False,
) -> Message:
    """An egress rule; `default`: what the network does by default, true is to allow, and then this rule denies."""
    rule = _rule(number, "", proto, ports, sources, revoked=revoked) | _icmp(proto, icmp)
    return rule | {"dest_cidr_list": [*targets], "traffic_type": "Egress", "default_egress_policy": default}


def default_egress(*, allow: bool, revoked: bool = False) -> Message:
    """The built-in egress rule."""
    rule = _rule(0, "", "all", (), (), revoked=revoked)
    return rule | {"traffic_type": "Egress", "default_egress_policy": allow}


def _rule(  # noqa: PLR0913 the fields of the message
    number: int, public: str, proto: str, ports: Sequence[int], sources: Sequence[str], *, revoked: bool
) -> Message:
    rule = {"id": number, "src_ip": public, "protocol": proto, "revoked": revoked, "already_added": False}
    return (
        rule | ({"src_port_range": [*ports]} if ports else {}) | {"source_cidr_list": [*sources], "purpose": "Firewall"}
    )


def _icmp(proto: str, icmp: tuple[int, int] | None) -> Message:
    kind, code = icmp or (-1, -1)
    return {"icmp_type": kind, "icmp_code": code} if proto == "icmp" else {}


def forward(  # noqa: PLR0913, PLR0917 the fields of the message
    public: str, proto: str, ports: str, vm: str, vm_ports: str, sources: str = "", *, revoke: bool = False
) -> Message:
    """A port forward; ranges as `first:last`."""
    return {
        "revoke": revoke,
        "protocol": proto,
        "source_ip_address": public,
        "source_port_range": ports,
        "destination_ip_address": vm,
        "destination_port_range": vm_ports,
        "source_cidr_list": sources,
    }


def static(public: str, vm: str, *, revoke: bool = False) -> Message:
    """A static NAT of a whole address."""
    return {
        "revoke": revoke,
        "source_ip_address": public,
        "source_port_range": "0:0",
        "destination_ip_address": vm,
    }


class Isolated:
    """The network: `router` with guest, control and public nics, `world` behind both public gateways, `mgmt`, guests.

    `seconds` are the durations of all commands, in the order in which they were given.
    """

    def __init__(self, lab: Lab) -> None:
        self.lab = lab
        self.guest_segment, control, self.public, self.public2 = (
            lab.segment(name) for name in ("guest", "control", "public", "public2")
        )
        self.world = lab.world(self.public, f"{GATEWAY}/24", (NEAR, FAR, RESOLVER))
        self.nic = next(iter(self.world.ports))
        self.nic2 = self.world.attach(self.public2, f"{GATEWAY2}/26")
        self.mgmt = lab.mgmt(control, f"{MANAGEMENT}/16")
        self.web, self.app, self.db = (
            lab.guest(name, self.guest_segment, f"02:1a:33:00:01:0{number}")
            for number, name in enumerate(("web1", "app1", "db1"), 1)
        )
        nics = [(self.guest_segment, GUEST_MAC), (control, CONTROL_MAC), (self.public, PUBLIC_MAC)]
        self.router = lab.router("r1", nics)
        self.line = dict(BOOT)
        self.seconds: list[float] = []
        self._files = 0

    def boot(self) -> None:
        """Switch the router on with its boot line; it is configured when it is up."""
        self.router.write("/var/cache/cloud/cmdline", " ".join(f"{key}={value}" for key, value in self.line.items()))
        self.router.boot()
        self.converged()

    def power_cut(self) -> None:
        """Take its power away and switch it on again; nothing is sent to it and nothing is started by hand."""
        self.router.power_cut()
        self.router.boot()
        self.converged()

    def converged(self) -> None:
        """Nothing is left to do."""
        plan = self.router.shell(["/usr/sbin/holdfast", "plan"])
        left = [line for line in plan.text.splitlines() if line != "nothing to do" and not line.startswith("pending")]
        assert (plan.code, left) == (0, []), plan.text + plan.errors

    def command(self, name: str, message: Message, *, check: bool = True) -> Result:
        """Send one message as the management server does; exit status 0, and with `check` an empty plan behind it."""
        self._files += 1
        payload = json.dumps(message | {"delete_from_processed_cache": False}).encode()
        file = f"{name}.json.{self._files:08x}-31ab-4c00-9d00-000000000031"
        self.router.send(payload, file)
        done = self.router.run("update_config.py", file)
        self.seconds.append(done.seconds)
        assert done.code == 0, f"{message}\n{done.text}{done.errors}"
        if check:
            self.converged()
        return done

    def firewall(self, *rules: Message, check: bool = True) -> Result:
        """Send `ingress` and `egress` rules."""
        return self.command("firewall_rules", {"rules": [*rules], "type": "firewallrules"}, check=check)

    def forward(self, *rules: Message, check: bool = True) -> Result:
        """Send port forwards."""
        return self.command("forwarding_rules", {"rules": [*rules], "type": "forwardrules"}, check=check)

    def static_nat(self, *rules: Message, check: bool = True) -> Result:
        """Send static NATs."""
        return self.command("staticnat_rules", {"rules": [*rules], "type": "staticnatrules"}, check=check)

    def associate(
        self,
        *addresses: str,
        mac: str = PUBLIC_MAC,
        nic: int = 2,
        add: bool = True,
        mtu: int = 1500,
        check: bool = True,
    ) -> Result:
        """Give addresses to a public nic, or take them away; the second public network is known by the address."""
        second = addresses[0].startswith("198.51.100.")
        items = [
            {
                "public_ip": address,
                "source_nat": at == 0,
                "add": add,
                "one_to_one_nat": False,
                "first_i_p": at == 0,
                "gateway": GATEWAY2 if second else GATEWAY,
                "netmask": "255.255.255.192" if second else "255.255.255.0",
                "vif_mac_address": mac,
                "nic_dev_id": nic,
                "new_nic": False,
                "nw_type": "Public",
                "is_private_gateway": False,
                "mtu": mtu,
            }
            for at, address in enumerate(addresses)
        ]
        return self.command("ip_associations", {"ip_address": items, "type": "ips"}, check=check)

    def plug2(self) -> str:
        """Give the router a nic in the second public network; return its name."""
        return self.router.plug(self.public2, PUBLIC2_MAC)

    def dhcp(self, name: str, mac: str, address: str, *, remove: bool = False, check: bool = True) -> Result:
        """Make a VM's nic known."""
        entry = {
            "host_name": name,
            "mac_address": mac,
            "ipv4_address": address,
            "ipv6_duid": f"00:03:00:01:{mac}",
            "dns_addresses": GUEST_GATEWAY,
            "default_gateway": GUEST_GATEWAY,
            "default_entry": True,
            "remove": remove,
            "type": "dhcpentry",
        }
        return self.command("vm_dhcp_entry", entry, check=check)

    def leases(self) -> None:
        """Make all guests known, and let them ask."""
        for number, guest in enumerate((self.web, self.app, self.db), 10):
            self.dhcp(guest.name, mac_of(guest), f"10.31.5.{number}")
            guest.gets_lease()


@contextlib.contextmanager
def isolated(name: str) -> Iterator[Isolated]:
    """A lab with this network, the router up and its guests with leases."""
    if os.geteuid() != 0:
        pytest.skip("the lab needs root: it makes network namespaces and containers")
    with Lab(name) as lab:
        net = Isolated(lab)
        net.boot()
        net.leases()
        yield net


def mac_of(guest: Guest) -> str:
    """The MAC of a guest's first nic."""
    return guest.ports["eth0"].mac
