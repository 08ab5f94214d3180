"""Two VPCs far apart, each with a router, one tier and a VM: what a tunnel joins."""

import contextlib
import json
import os
from collections.abc import Iterator
from typing import Any, NamedTuple

import pytest

from holdfast.lab.guest import Guest
from holdfast.lab.lab import Lab
from holdfast.lab.network import Segment
from holdfast.lab.process import Result
from holdfast.lab.router import Router
from holdfast.lab.sentence import NotSo, eventually
from holdfast.lab.world import World

Message = dict[str, Any]

ESP_IN_USER_SPACE = """\
charon-systemd {
    # Who is silent is given up within seconds; the usual three minutes are charon's own.
    retransmit_timeout = 1.0
    retransmit_base = 1.0
    retransmit_tries = 3
    load = random nonce openssl aes sha1 sha2 hmac kdf gmp kernel-libipsec kernel-netlink socket-default vici
    plugins {
        kernel-netlink { fwmark = !0x42 }
        socket-default { fwmark = 0x42 }
        kernel-libipsec {
            load = yes
            allow_peer_ts = yes
        }
    }
}
"""
"""The kernel under the lab has no ESP: charon packs by itself, through the device ipsec0."""


class Place(NamedTuple):
    """A VPC: `number` makes its networks."""

    name: str
    number: int

    @property
    def cidr(self) -> str:
        return f"10.{self.number}.0.0/16"

    @property
    def gateway(self) -> str:
        return f"10.{self.number}.1.1"

    @property
    def vm(self) -> str:
        return f"10.{self.number}.1.10"

    @property
    def public(self) -> str:
        return f"203.0.{self.number}.20"

    @property
    def outside(self) -> str:
        return f"203.0.{self.number}.1"


EAST, WEST, NORTH = Place("east", 81), Place("west", 82), Place("north", 83)


class Side:
    """One VPC's router with its VM, configured by messages alone."""

    def __init__(self, lab: Lab, place: Place, public: Segment, world: World) -> None:
        self.place, self.lab, self.public, self.world = place, lab, public, world
        number = f"{place.number:02x}"
        self.macs = [f"{kind}:1a:{number}:00:00:0{at}" for at, kind in enumerate(("0e", "1e", "02"))]
        tier = lab.segment(f"tier{place.number}")
        self.remote = lab.segment(f"remote{place.number}")
        self.user: Guest = lab.guest(f"{place.name}user", self.remote, f"02:1a:{number}:00:00:20")
        self.vm: Guest = lab.guest(f"{place.name}vm", tier, f"02:1a:{number}:00:00:10")
        nics = [(lab.segment(f"control{place.number}"), self.macs[0]), (public, self.macs[1]), (tier, self.macs[2])]
        self.router: Router = lab.router(place.name, nics)
        self._files = 0

    def begin(self) -> None:
        """Boot it, and give it its public address and a tier that is open both ways."""
        place, number = self.place, self.place.number
        line = {
            "vpccidr": place.cidr, "domain": "vpc.example", "template": "domP", "name": f"r-{number}-VM",
            "eth0ip": f"169.254.{number}.3", "eth0mask": "255.255.0.0", "has_public_network": "true",
            "type": "vpcrouter", "disable_rp_filter": "true", "dns1": "192.0.2.53", "source_nat_ip": place.public,
        }  # fmt: skip
        self.router.write("/var/cache/cloud/cmdline", " ".join(f"{key}={value}" for key, value in line.items()))
        self.router.write("/etc/strongswan.d/zz-lab.conf", ESP_IN_USER_SPACE)
        self.router.boot()
        address = {
            "public_ip": place.public, "source_nat": True, "add": True, "one_to_one_nat": False, "first_i_p": True,
            "gateway": place.outside, "netmask": "255.255.255.0", "vif_mac_address": self.macs[1], "nic_dev_id": 1,
            "new_nic": False, "nw_type": "Public", "is_private_gateway": False, "mtu": 1500,
        }  # fmt: skip
        self.tell("ip_associations", {"ip_address": [address], "type": "ips"})
        self.tell("guest_network", {
            "add": True, "mac_address": self.macs[2], "device": "eth2", "router_guest_ip": place.gateway,
            "router_guest_netmask": "255.255.255.0", "router_guest_gateway": place.gateway, "cidr": "24",
            "dns": "192.0.2.53", "domain_name": "vpc.example", "is_vr_guest_gateway": True, "network_id": number,
            "mtu": 1500, "type": "guestnetwork",
        })  # fmt: skip
        self.acl(allowed=True)
        self.vm.address("eth0", f"{place.vm}/24")
        self.vm.route("default", place.gateway)

    def tell(self, name: str, message: Message) -> Result:
        """Send one message, which must be taken in and leave nothing to do."""
        self._files += 1
        done = self.router.command(f"{name}.json.{self._files:08x}", message | {"delete_from_processed_cache": False})
        assert done.code == 0, f"{message}\n{done.text}{done.errors}"
        assert self.changes() == []
        return done

    def plan(self) -> str:
        return self.router.shell(["/usr/sbin/holdfast", "plan"]).text

    def changes(self) -> list[str]:
        """What there is to do; what waits for something is not."""
        return [line for line in self.plan().splitlines() if line.startswith(("+", "-", "~"))]

    def acl(self, *, allowed: bool) -> None:
        """What may come to the tier."""
        rule = {"type": "all", "cidr": "0.0.0.0/0", "allowed": allowed}
        self.tell("network_acl", {
            "device": "eth2", "mac_address": self.macs[2], "private_gateway_acl": False, "nic_ip": self.place.gateway,
            "nic_netmask": "24", "ingress_rules": [rule], "egress_rules": [], "type": "networkacl",
        })  # fmt: skip

    def tunnel(self, to: Place, **changed: Any) -> Result:
        """Join this VPC with another."""
        return self.tell("site_2_site_vpn", self.message(to, **changed))

    def message(self, to: Place, **changed: Any) -> Message:
        """What the management server says to join this VPC with another."""
        return {
            "local_public_ip": self.place.public, "local_guest_cidr": self.place.cidr,
            "local_public_gateway": self.place.outside, "peer_gateway_ip": to.public, "peer_guest_cidr_list": to.cidr,
            "ike_policy": "aes128-sha1;modp2048", "esp_policy": "aes128-sha1;modp2048", "ipsec_psk": "a key of ours",
            "ike_lifetime": 86400, "esp_lifetime": 3600, "create": True, "dpd": True, "passive": False, "encap": True,
            "ike_version": "ikev2", "split_connections": False, "type": "site2sitevpn", **changed,
        }  # fmt: skip

    def vici(self, request: str, **message: str) -> str:
        """Ask charon itself."""
        told = self.router.shell(["python3", "-c", _ASK, request, json.dumps(message)])
        assert told.code == 0, told.errors
        return told.text

    def sas(self) -> dict[str, str]:
        """What is up, by the name of the tunnel: state, both marks of the IKE_SA, both of each network's SA."""
        told = self.router.shell(["python3", "-c", _SAS])
        assert told.code == 0, told.errors
        found: dict[str, str] = json.loads(told.text)
        return found

    def spis(self, to: Place) -> list[str]:
        """Marks of the exchange of keys with another, and of all its networks."""
        return self.sas()[f"vpn-{self.place.public}-{to.public}".replace(".", "_")].split()

    def check(self, to: Place) -> str:
        done = self.router.run("checkbatchs2svpn.sh", f"{to.public} ")
        assert (done.code, done.errors) == (0, "")
        return done.text

    def is_joined(self, to: Place) -> None:
        up = f"{to.public}:0:IPsec SA found;Site-to-site VPN have connected&"
        try:
            eventually(lambda: self.check(to) == up, f"{self.place.name} is joined with {to.name}", 15)
        except NotSo as error:
            journal = self.router.shell(["journalctl", "-q", "-o", "cat", "-n", "60", "-u", "strongswan.service"]).text
            raise NotSo(f"{error}\n{self.check(to)}\n{journal}") from error


_ASK = """
import json, sys
sys.path.insert(0, "/opt/holdfast/lib")
from holdfast.vici import Vici
with Vici() as vici:
    print(vici.ask(sys.argv[1], json.loads(sys.argv[2])))
"""
_SAS = """
import json, sys
sys.path.insert(0, "/opt/holdfast/lib")
from holdfast.vici import Vici
found = {}
try:
    with Vici() as vici:
        for event in vici.stream("list-sas", "list-sa"):
            for name, sa in event.items():
                kids = " ".join(f"{k['state']} {k['spi-in']} {k['spi-out']}" for k in sa["child-sas"].values())
                found[name] = f"{sa['state']} {sa['initiator-spi']} {sa['responder-spi']} {kids}"
except FileNotFoundError:
    pass
print(json.dumps(found))
"""


@contextlib.contextmanager
def sides(name: str, *places: Place, inside: tuple[str, ...] = ()) -> Iterator[list[Side]]:
    """Make routers that serve, and one world that all their public networks are in; it has these addresses as well."""
    if os.geteuid() != 0:
        pytest.skip("the lab needs root: it makes network namespaces and containers")
    with Lab(name) as lab:
        segments = [lab.segment(f"public{place.number}") for place in places]
        world = lab.world(segments[0], f"{places[0].outside}/24", ("192.0.2.10", *inside))
        for place, segment in zip(places[1:], segments[1:], strict=True):
            world.attach(segment, f"{place.outside}/24")
        made = [Side(lab, place, segment, world) for place, segment in zip(places, segments, strict=True)]
        for side in made:
            side.begin()
        yield made
