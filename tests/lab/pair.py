"""A redundant pair of routers in the lab, of an isolated network or of a VPC: told by messages, asked for its state."""

import contextlib
import itertools
import json
import os
import re
import time
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any, NamedTuple

import pytest
from isolated import mac_of
from served import bundle
from streams import Streams

from holdfast.lab.guest import Guest
from holdfast.lab.lab import Lab
from holdfast.lab.network import Segment
from holdfast.lab.router import Router

Message = dict[str, Any]

RESOLVER, NEAR, FAR = "192.0.2.53", "192.0.2.10", "192.0.2.20"
GATEWAY, MANAGEMENT = "203.0.113.1", "169.254.0.1"
ADVERT_S = 1
IDLE_S = 10.0
FORWARDED = (5000, 5999)
_ENTERED = re.compile(r"^(?P<at>[0-9.]+) .*Entering (?P<word>MASTER|BACKUP|FAULT) STATE", re.MULTILINE)
_PORT = re.compile(r" sport=(\d+)")
_STATUS = re.compile(r"Status: (\w+)\n?")


class Entry(NamedTuple):
    """When keepalived entered a state, by the machine's clock, and which."""

    at: float
    word: str


class Pair(ABC):
    """What both kinds have in common: two routers that hear the same, and the questions about them.

    `segment` is what they elect over, `gateway` the address that its guests know, `public` their outer MAC: both have
    the same, and the one that serves has its link up.  `seconds` are the durations of all commands.
    """

    public_mac: str
    gateway: str

    def __init__(self, lab: Lab) -> None:
        self.lab = lab
        self.world_segment = lab.segment("public")
        self.world = lab.world(self.world_segment, f"{GATEWAY}/24", (NEAR, FAR, RESOLVER))
        self.routers = (self._router(0), self._router(1))
        self.seconds: list[float] = []
        self._files = itertools.count(1)

    @abstractmethod
    def _router(self, number: int) -> Router:
        """One of the two, off."""

    @abstractmethod
    def line(self, number: int) -> Mapping[str, str]:
        """A router's boot line."""

    def boot(self, *routers: Router) -> None:
        """Switch both on at the same moment, or these; each is configured as far as its disk goes when it is up."""
        chosen = routers or self.routers
        for router in chosen:
            line = self.line(self.routers.index(router))
            router.write("/var/cache/cloud/cmdline", " ".join(f"{key}={value}" for key, value in line.items()))
        with ThreadPoolExecutor(len(chosen)) as at_once:
            list(at_once.map(Router.boot, chosen))

    def command(self, name: str, message: Message | Callable[[int], Message], *, at_once: bool = False) -> None:
        """Send both a message, one after the other or `at_once`; `message` may depend on the router's number."""
        with ThreadPoolExecutor(2 if at_once else 1) as senders:
            list(senders.map(lambda number: self.command_one(number, name, message), range(2)))

    def command_one(self, number: int, name: str, message: Message | Callable[[int], Message]) -> None:
        """Send one of them a message; it has to be taken in."""
        file = f"{name}.json.{next(self._files):08x}-70ab-4c00-9d00-000000000070"
        told = message(number) if callable(message) else message
        router = self.routers[number]
        router.send(json.dumps(told | {"delete_from_processed_cache": False}).encode(), file)
        done = router.run("update_config.py", file)
        self.seconds.append(done.seconds)
        assert done.code == 0, f"{router.name}: {told}\n{done.text}{done.errors}"

    def bundle(self, messages: Sequence[tuple[str, Callable[[int], Message]]]) -> None:
        """Send both a bundle of messages, at the same moment; each has to be taken in."""

        def tell(number: int) -> None:
            told = bundle((name, message(number)) for name, message in messages)
            router = self.routers[number]
            router.send(told, "VR-c1d2e3f4.cfg")
            done = router.run("vr_cfg.sh", "-c", "/var/cache/cloud/VR-c1d2e3f4.cfg")
            self.seconds.append(done.seconds)
            assert done.code == 0, f"{router.name}: {done.text}{done.errors}"

        with ThreadPoolExecutor(2) as senders:
            list(senders.map(tell, range(2)))

    def associate(self, *addresses: str) -> None:
        """Give both the same public addresses."""
        items = [self.association(address, first=at == 0) for at, address in enumerate(addresses)]

        def told(number: int) -> Message:
            device = int(self.nic(self.routers[number], self.public_mac).removeprefix("eth"))
            return {"ip_address": [item | {"nic_dev_id": device} for item in items], "type": "ips"}

        self.command("ip_associations", told)

    def association(self, address: str, *, first: bool) -> Message:
        """What a message says of one public address, but for the nic's number."""
        return {
            "public_ip": address, "source_nat": first, "add": True, "one_to_one_nat": False, "first_i_p": first,
            "gateway": GATEWAY, "netmask": "255.255.255.0", "vif_mac_address": self.public_mac, "new_nic": False,
            "nw_type": "Public", "is_private_gateway": False, "mtu": 1500,
        }  # fmt: skip

    def dhcp(self, guest: Guest, address: str, gateway: str) -> None:
        """Make a VM's nic known."""
        entry = {
            "host_name": guest.name,
            "mac_address": mac_of(guest),
            "ipv4_address": address,
            "ipv6_duid": f"00:03:00:01:{mac_of(guest)}",
            "default_gateway": gateway,
            "default_entry": True,
            "remove": False,
            "type": "dhcpentry",
        }
        self.command("vm_dhcp_entry", entry)

    @staticmethod
    def nic(router: Router, mac: str) -> str:
        """What the nic of this MAC is called; empty if it is not plugged."""
        return next((name for name, port in router.ports.items() if port.mac == mac), "")

    def holds(self, router: Router, address: str) -> bool:
        """Whether a router has an address now."""
        return router.running and f" {address}/" in router.shell(["ip", "-4", "-oneline", "address"]).text

    def outside(self, router: Router) -> bool:
        """Whether a router's public link is up."""
        nic = self.nic(router, self.public_mac)
        return router.running and "state UP" in router.shell(["ip", "-oneline", "link", "show", "dev", nic]).text

    def entered(self, router: Router) -> list[Entry]:
        """Which states keepalived entered since this boot."""
        argv = ["journalctl", "--no-pager", "--quiet", "--boot=0", "--output=short-unix", "--unit=keepalived"]
        return [Entry(float(found["at"]), found["word"]) for found in _ENTERED.finditer(router.shell(argv).text)]

    def yielded(self, router: Router, since: float) -> float | None:
        """When a router that served gave it up, by keepalived's word: entering another state, or at its own end.

        systemd's clock goes on while a router stands still.  Where its watchdog is quicker than the peer's advert, the
        process that holds the addresses ends with its parent and takes them away; systemd says when both have ended.
        """
        argv = ["journalctl", "--no-pager", "--quiet", "--boot=0", "--output=short-unix", "--unit=keepalived"]
        lines = router.shell(argv).text.splitlines()
        ended = [float(line.split()[0]) for line in lines if "Failed with result 'watchdog'" in line]
        words = [entry.at for entry in self.entered(router) if entry.word == "BACKUP"]
        return min((at for at in (*words, *ended) if at >= since), default=None)

    def elections(self) -> int:
        """How many states were entered by both since their boots."""
        return sum(len(self.entered(router)) for router in self.routers if router.running)

    def says(self, router: Router) -> str:
        """What the management server is told: `checkrouter.sh`'s word."""
        done = router.run("checkrouter.sh")
        found = _STATUS.fullmatch(done.text)
        assert done.code == 0, done.errors
        assert found, done.text
        return found[1]

    def serving(self) -> list[Router]:
        """Those that have the gateway's address."""
        return [router for router in self.routers if self.holds(router, self.gateway)]

    @property
    def master(self) -> Router:
        """The one that serves; waited for."""
        self.settles()
        return self.serving()[0]

    @property
    def backup(self) -> Router:
        """The other one."""
        return self.other(self.master)

    def other(self, router: Router) -> Router:
        """The peer of a router."""
        return self.routers[1 - self.routers.index(router)]

    def settles(self, timeout_s: float = 15) -> None:
        """Wait until, of the routers that are on, one serves, links and addresses are where they belong."""
        running = [router for router in self.routers if router.running]

        def one() -> bool:
            serving = self.serving()
            return len(serving) == 1 and all(self.outside(router) == (router in serving) for router in running)

        running[0].eventually(one, "one of the pair serves, with its public link up, the other's down", timeout_s)

    def told_of(self, *streams: Streams, timeout_s: float = 10) -> None:
        """Wait until the backup has heard of all these connections."""
        ports = {port for some in streams for port in some.ports()}
        backup = self.backup

        def heard() -> bool:
            return ports <= self.connections(backup)

        backup.eventually(heard, f"has heard of {len(ports)} connections", timeout_s)

    @staticmethod
    def connections(router: Router) -> set[int]:
        """Source ports of the connections that a router knows: its own, and those that its peer told it of."""
        told = router.shell(["conntrack", "-L"]).text
        return {int(found) for found in _PORT.findall(told)}

    def hand_over(self) -> None:
        """Let the other one serve, as a planned stop of the election does."""
        master, backup = self.master, self.backup
        done = master.shell(["systemctl", "restart", "keepalived.service"])
        assert done.code == 0, done.errors
        backup.eventually(lambda: self.serving() == [backup], "serves", 15)

    def ready(self) -> None:
        """Both are on, one serves, neither has anything left to do."""
        off = [router for router in self.routers if not router.running]
        if off:
            self.boot(*off)
        self.settles()
        for router in self.routers:
            self.idle(router)

    def idle(self, router: Router) -> None:
        """Wait until a router has nothing left to do."""
        end = time.monotonic() + IDLE_S
        while (planned := self.planned(router)) != "nothing to do\n":
            assert time.monotonic() < end, f"{router.name} has something left to do after {IDLE_S:g} s:\n{planned}"

    @staticmethod
    def planned(router: Router) -> str:
        """What a run would change now."""
        done = router.shell(["/usr/sbin/holdfast", "plan"])
        return done.text + done.errors


class IsolatedPair(Pair):
    """An isolated network's pair: nics guest, control, public; guests web1 and app1 behind 10.70.1.1."""

    public_mac = "1e:00:70:00:00:80"
    gateway = "10.70.1.1"
    net = "10.70.1.0/24"
    source_nat, forwards = "203.0.113.70", "203.0.113.71"
    web, app = "10.70.1.10", "10.70.1.11"

    def __init__(self, lab: Lab) -> None:
        self.guests = lab.segment("guest")
        super().__init__(lab)
        self.web1, self.app1 = (
            lab.guest(name, self.guests, f"02:1a:70:00:01:0{at}") for at, name in enumerate(("web1", "app1"), 1)
        )

    def _router(self, number: int) -> Router:
        control = self.lab.segment(f"control{number}")
        nics = [
            (self.guests, f"02:1a:70:00:00:0{number + 1}"),
            (control, f"0e:1a:70:00:00:0{number + 1}"),
            (self.world_segment, self.public_mac),
        ]
        return self.lab.router(f"r{number + 1}", nics)

    def mac(self, router: Router) -> str:
        """The MAC of a router's nic in the guest network."""
        return next(port.mac for port in router.ports.values() if port.segment == self.guests)

    @staticmethod
    def address(number: int) -> str:
        """A router's own address in the guest network."""
        return ("10.70.1.14", "10.70.1.187")[number]

    def line(self, number: int) -> Mapping[str, str]:
        """As the management server writes it: the control part says PRIMARY to both, and goes last."""
        return {
            "template": "domP", "name": f"r-{70 + number}-VM", "eth0ip": self.address(number),
            "eth0mask": "255.255.255.0", "privateMtu": "1500", "redundant_router": "1", "advert_int": str(ADVERT_S),
            "redundant_state": "PRIMARY", "guestgw": self.gateway, "guestbrd": "10.70.1.255", "guestcidrsize": "24",
            "domain": "pair.example", "cidrsize": "24", "dhcprange": self.gateway,
            "eth1ip": f"169.254.70.{number + 1}", "eth1mask": "255.255.0.0", "eth2ip": self.source_nat,
            "eth2mask": "255.255.255.0", "gateway": GATEWAY, "publicMtu": "1500", "type": "router",
            "disable_rp_filter": "true", "dns1": RESOLVER, "logrotatefrequency": "*:00:00",
        }  # fmt: skip

    def furnish(self) -> None:
        """Tell both what a network in use has: addresses, a way out, port forwards, guests with metadata."""
        self.associate(self.source_nat, self.forwards)
        egress = {
            "id": 0, "src_ip": "", "protocol": "all", "revoked": False, "already_added": False,
            "source_cidr_list": [], "dest_cidr_list": [], "purpose": "Firewall", "traffic_type": "Egress",
            "default_egress_policy": True,
        }  # fmt: skip
        rules = [egress, *(self.opened(number, proto) for number, proto in enumerate(("tcp", "udp"), 1))]
        self.command("firewall_rules", {"rules": rules, "type": "firewallrules"})
        forwards = [self.forward(proto) for proto in ("tcp", "udp")]
        self.command("forwarding_rules", {"rules": forwards, "type": "forwardrules"})
        for guest, address in ((self.web1, self.web), (self.app1, self.app)):
            self.dhcp(guest, address, self.gateway)
            told = [["metadata", "instance-id", f"i-{guest.name}"], ["metadata", "public-keys", None]]
            self.command("vm_metadata", {"vm_ip_address": address, "vm_metadata": told, "type": "vmdata"})

    def opened(self, number: int, proto: str, *ports: int) -> Message:
        """A rule that lets everybody come in for ports, those of the forward unless others are named."""
        first, last = (ports[0], ports[-1]) if ports else FORWARDED
        return {
            "id": number, "src_ip": self.forwards, "protocol": proto, "src_port_range": [first, last],
            "revoked": False, "already_added": False, "source_cidr_list": ["0.0.0.0/0"], "dest_cidr_list": [],
            "purpose": "Firewall", "traffic_type": "Ingress", "default_egress_policy": True,
        }  # fmt: skip

    def forward(self, proto: str, *ports: int) -> Message:
        """Ports that lead to web1, one to one, those that are always forwarded unless others are named."""
        first, last = (ports[0], ports[-1]) if ports else FORWARDED
        return {
            "revoke": False, "protocol": proto, "source_ip_address": self.forwards,
            "source_port_range": f"{first}:{last}", "destination_ip_address": self.web,
            "destination_port_range": f"{first}:{last}", "source_cidr_list": "",
        }  # fmt: skip


class VpcPair(Pair):
    """A VPC's pair: control and public nics, and tiers 10.71.<n>.0/24, whose nics may have other numbers on each."""

    public_mac = "1e:00:71:00:00:80"
    gateway = "10.71.1.1"
    source_nat = "203.0.113.72"

    def __init__(self, lab: Lab) -> None:
        super().__init__(lab)
        self.vms: dict[int, Guest] = {}
        self.networks: dict[int, int] = {}

    def _router(self, number: int) -> Router:
        control = self.lab.segment(f"control{number}")
        return self.lab.router(f"r{number + 1}", [(control, f"0e:1a:71:00:00:0{number + 1}")])

    def line(self, number: int) -> Mapping[str, str]:
        """It knows of the control nic alone."""
        return {
            "vpccidr": "10.71.0.0/16", "domain": "pair.example", "publicMtu": "1500", "dns1": RESOLVER,
            "template": "domP", "name": f"r-{72 + number}-VM", "eth0ip": f"169.254.71.{number + 1}",
            "eth0mask": "255.255.0.0", "redundant_router": "1", "advert_int": str(ADVERT_S), "router_id": "271",
            "router_password": "11999009137784961378955551108300861522960158648223824003246900935635604564914387",
            "redundant_state": ("PRIMARY", "BACKUP")[number], "has_public_network": "true", "type": "vpcrouter",
            "disable_rp_filter": "true", "logrotatefrequency": "*:00:00", "source_nat_ip": self.source_nat,
        }  # fmt: skip

    def segment(self, tier: int) -> Segment:
        """A tier's segment."""
        return self.lab.segment(f"tier{tier}")

    @staticmethod
    def mac(tier: int, number: int) -> str:
        """The MAC of a router's nic in a tier."""
        return f"02:00:71:00:{tier:02x}:0{number + 1}"

    def plug(self, tier: int) -> None:
        """Plug both routers' nics of a tier; again is no error."""
        for number, router in enumerate(self.routers):
            if not self.nic(router, self.mac(tier, number)):
                router.plug(self.segment(tier), self.mac(tier, number))

    def plug_public(self) -> None:
        """Plug both public nics, and on the second router only after a nic that is out of use again: numbers differ."""
        spare = self.routers[1].plug(self.segment(99), "02:00:71:00:63:02")
        for router in self.routers:
            router.plug(self.world_segment, self.public_mac)
        self.routers[1].unplug(spare)

    def tier(self, tier: int, *, add: bool = True, at_once: bool = False) -> None:
        """Put a tier up on both, or tear it down."""
        if add:
            self.plug(tier)
        self.command("guest_network", lambda number: self.network(tier, number, add=add), at_once=at_once)

    def network(self, tier: int, number: int, *, add: bool = True) -> Message:
        """What one router is told of a tier.  Networks are numbered as they come; `networks` says otherwise."""
        return {
            "add": add, "mac_address": self.mac(tier, number),
            "device": self.nic(self.routers[number], self.mac(tier, number)),
            "router_guest_ip": self._own(tier, number), "router_guest_netmask": "255.255.255.0",
            "router_guest_gateway": f"10.71.{tier}.1", "cidr": "24", "dns": RESOLVER,
            "domain_name": "pair.example", "is_vr_guest_gateway": True,
            "network_id": self.networks.get(tier, 700 + tier), "mtu": 1500, "type": "guestnetwork",
        }  # fmt: skip

    def unplug(self, tier: int) -> None:
        """Take both routers' nics of a tier away."""
        for number, router in enumerate(self.routers):
            router.unplug(self.nic(router, self.mac(tier, number)))

    @staticmethod
    def _own(tier: int, number: int) -> str:
        return f"10.71.{tier}.{(120, 77)[number]}"

    def open(self, tier: int) -> None:
        """Let everything in and out of a tier."""

        def told(number: int) -> Message:
            rule = {"type": "all", "cidr": "0.0.0.0/0", "allowed": True}
            mac = self.mac(tier, number)
            return {
                "device": self.nic(self.routers[number], mac), "mac_address": mac, "private_gateway_acl": False,
                "nic_ip": self._own(tier, number), "nic_netmask": "24", "ingress_rules": [rule],
                "egress_rules": [rule], "type": "networkacl",
            }  # fmt: skip

        self.command("network_acl", told)

    def vm(self, tier: int) -> Guest:
        """A VM in a tier, with its lease."""
        guest = self.lab.guest(f"vm{tier}", self.segment(tier), f"02:1a:71:00:{tier:02x}:0a")
        self.dhcp(guest, f"10.71.{tier}.10", f"10.71.{tier}.1")
        guest.gets_lease()
        return guest

    def first(self, tier: int) -> Guest:
        """Put up the first tier, over which they elect; its VM."""
        self.gateway = f"10.71.{tier}.1"
        self.tier(tier)
        self.open(tier)
        self.settles()
        return self.vm(tier)

    def furnish(self, tiers: Sequence[int]) -> None:
        """Give both their public network and tiers with a VM each; the last one's gateway tells who serves."""
        self.plug_public()
        if tiers:
            self.gateway = f"10.71.{tiers[-1]}.1"
        self.associate(self.source_nat)
        for tier in tiers:
            self.tier(tier)
            self.open(tier)
        if tiers:
            self.settles()
        self.vms = {tier: self.vm(tier) for tier in tiers}


@contextlib.contextmanager
def isolated_pair(name: str) -> Iterator[IsolatedPair]:
    """A lab with an isolated network's pair: both on, told everything, one serves, guests have leases."""
    with lab_of(name) as lab:
        pair = IsolatedPair(lab)
        pair.boot()
        pair.furnish()
        pair.settles()
        pair.web1.gets_lease()
        pair.app1.gets_lease()
        yield pair


@contextlib.contextmanager
def vpc_pair(name: str, tiers: Sequence[int] = (1, 2)) -> Iterator[VpcPair]:
    """A lab with a VPC's pair: both on, with these tiers, one serves, a VM with a lease in each."""
    with lab_of(name) as lab:
        pair = VpcPair(lab)
        pair.boot()
        pair.furnish(tiers)
        yield pair


@contextlib.contextmanager
def lab_of(name: str) -> Iterator[Lab]:
    """A lab; the test is skipped where there can be none."""
    if os.geteuid() != 0:
        pytest.skip("the lab needs root: it makes network namespaces and containers")
    with Lab(name) as lab:
        yield lab
