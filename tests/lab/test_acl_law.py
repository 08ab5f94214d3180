"""ACLs in the kernel: what the list says happens to real packets, in both directions, first and last of a flow."""

import contextlib
import ctypes
import os
import random
import socket
import struct
import subprocess
import threading
import time
from collections import defaultdict
from collections.abc import Iterator
from ipaddress import IPv4Address, IPv4Network
from pathlib import Path
from typing import NamedTuple

import pytest
from slack import SLACK

from holdfast.drivers.ruleset import Rulesets
from holdfast.features.acl import Acl, AclRule, compiled
from holdfast.interface import Interface
from holdfast.marks import Marks
from holdfast.program import assemble
from holdfast.state import diff

pytestmark = [pytest.mark.lab, pytest.mark.skipif(os.geteuid() != 0, reason="needs root")]

SOAK = bool(os.environ.get("HOLDFAST_SOAK"))
PAIRS, CHANGES = (5_000, 100) if SOAK else (500, 10)
A, B = Interface("", "eth1", "tier", ()), Interface("", "eth2", "tier", ())
HOSTS = {"a": "eth1", "b": "eth2", "p": "eth3"}
NETWORKS = {"a": "10.0.0.0/9", "b": "10.128.0.0/9", "p": "198.51.100.0/24"}  # behind eth1, eth2, eth3
MACS = {"a": b"\x02\0\0\0\x01\x02", "b": b"\x02\0\0\0\x02\x02", "p": b"\x02\0\0\0\x03\x02"}
ROUTER_MACS = {"a": b"\x02\0\0\0\x01\x01", "b": b"\x02\0\0\0\x02\x01", "p": b"\x02\0\0\0\x03\x01"}
ICMP, TCP, UDP, GRE, AH = 1, 6, 17, 47, 51
OUTGOING = 4  # PACKET_OUTGOING: what the host itself sends
Sets = dict[str, dict[str, str]]
ACCEPT = AclRule(allowed=True, cidrs=("0.0.0.0/0",))


class Packet(NamedTuple):
    """From `a` to `b`.  `icmp`: type and code, of the types that can begin something."""

    source: str
    target: str
    protocol: int
    sport: int = 0
    dport: int = 0
    icmp: tuple[int, int] = (8, 0)

    @property
    def reply(self) -> "Packet":
        return Packet(self.target, self.source, self.protocol, self.dport, self.sport, (0, 0))


def checksum(data: bytes) -> int:
    total: int = sum(struct.unpack(f"!{(len(data) + 1) // 2}H", data + b"\0" * (len(data) % 2)))
    total = (total & 0xFFFF) + (total >> 16)
    return ~(total + (total >> 16)) & 0xFFFF


def frame(host: str, packet: Packet, number: int, *, flags: int = 0x02) -> bytes:
    """A frame as `host` sends it to the router; `number` is the IP header's identification."""
    ends = socket.inet_aton(packet.source) + socket.inet_aton(packet.target)
    if packet.protocol == ICMP:
        body = struct.pack("!BBHHH", *packet.icmp, 0, 1, number)
        body = body[:2] + struct.pack("!H", checksum(body)) + body[4:]
    elif packet.protocol == TCP:
        acked = 2 if flags & 0x10 else 0
        body = struct.pack("!HHIIBBHHH", packet.sport, packet.dport, 1, acked, 0x50, flags, 8192, 0, 0)
        pseudo = ends + struct.pack("!BBH", 0, TCP, len(body))
        body = body[:16] + struct.pack("!H", checksum(pseudo + body)) + body[18:]
    elif packet.protocol == UDP:
        body = struct.pack("!HHHH", packet.sport, packet.dport, 12, 0) + b"acl!"
    else:
        body = struct.pack("!II", 0, 0)
    header = struct.pack("!BBHHHBBH", 0x45, 0, 20 + len(body), number, 0, 64, packet.protocol, 0)
    header = header[:10] + struct.pack("!H", checksum(header + ends)) + ends
    return ROUTER_MACS[host] + MACS[host] + b"\x08\x00" + header + body


class Wire:
    """Two hosts that are nothing but a raw socket each, and a router between them."""

    def __init__(self, marks: Path) -> None:
        self.prefix = f"hfacl-{os.getpid()}-"
        self.home = os.open("/proc/thread-self/ns/net", os.O_RDONLY)
        self.libc = ctypes.CDLL(None, use_errno=True)
        self.driver = Rulesets(Marks(marks))
        self.ends: dict[str, socket.socket] = {}
        self.number = 0

    def ip(self, host: str, *lines: str) -> None:
        subprocess.run(["ip", "-n", self.prefix + host, "-b", "-"], input="\n".join(lines), text=True, check=True)  # noqa: S607

    def up(self) -> None:
        for host in ("r", *HOSTS):
            subprocess.run(["ip", "netns", "add", self.prefix + host], check=True)  # noqa: S607
        for at, (host, nic) in enumerate(HOSTS.items()):
            theirs, ours = MACS[host].hex(":"), ROUTER_MACS[host].hex(":")
            self.ip(
                "r",
                f"link add {nic} address {ours} type veth peer name eth0 address {theirs} netns {self.prefix}{host}",
                f"addr add 192.0.2.{at * 8 + 1}/29 dev {nic}",
                f"link set {nic} up",
                f"neigh add 192.0.2.{at * 8 + 2} lladdr {theirs} dev {nic} nud permanent",
                f"route add {NETWORKS[host]} via 192.0.2.{at * 8 + 2} dev {nic}",
            )
            self.ip(host, "link set eth0 up")
            with self.inside(host):
                self.ends[host] = socket.socket(socket.AF_PACKET, socket.SOCK_RAW, socket.htons(0x0800))
                self.ends[host].bind(("eth0", 0x0800))
                self.ends[host].setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 1 << 23)
                self.ends[host].settimeout(0)
        with self.inside("r"):
            for name in ("conf/all/rp_filter", "conf/eth1/rp_filter", "conf/eth2/rp_filter"):
                Path(f"/proc/sys/net/ipv4/{name}").write_text("0")
            Path("/proc/sys/net/ipv4/ip_forward").write_text("1")

    def down(self) -> None:
        for end in self.ends.values():
            end.close()
        for host in ("r", *HOSTS):
            subprocess.run(["ip", "netns", "del", self.prefix + host], check=False)  # noqa: S607
        os.close(self.home)

    @contextlib.contextmanager
    def inside(self, host: str) -> Iterator[None]:
        there = os.open(f"/run/netns/{self.prefix}{host}", os.O_RDONLY)
        try:
            assert self.libc.setns(there, 0x40000000) == 0
            yield
        finally:
            os.close(there)
            assert self.libc.setns(self.home, 0x40000000) == 0

    def load(self, a: Acl, b: Acl, more: Sets | None = None, *, of_a: Interface = A) -> None:
        """Converge on these ACLs of eth1 and eth2, through the driver."""
        sets = defaultdict(dict, {name: dict(held) for name, held in (more or {}).items()})
        for face, acl in ((of_a, a), (B, b)):
            if face.purpose == "tier":
                sets["guest_device"][f'"{face.device}"'] = ""
            for element in compiled(face, acl):
                sets[element.set][element.key] = element.value
        sets["public_device"]['"eth3"'] = ""
        desired = {resource.key: resource for resource in assemble([], sets)}
        with self.inside("r"):
            actual = {resource.key: resource for resource in self.driver.observe(desired)}
            assert list(self.driver.apply(diff(actual, desired))) == []

    def arrives(self, host: str, at: str, packet: Packet, *, flags: int = 0x02) -> bool:
        """Whether a packet gets from one host to another: there is nothing else to wait for, so it is given time."""
        sent = self.send(host, packet, flags=flags)
        time.sleep(SLACK * 0.01)
        return sent in self.heard(at, set())

    def send(self, host: str, packet: Packet, *, flags: int = 0x02) -> int:
        self.number = self.number % 0xFFFF + 1
        self.ends[host].send(frame(host, packet, self.number, flags=flags))
        return self.number

    def heard(self, host: str, expected: set[int]) -> set[int]:
        """Identifications of what has arrived there, once all that is expected has, and a little longer."""
        found: set[int] = set()
        deadline = time.monotonic() + 2
        quiet = 0
        while time.monotonic() < deadline and quiet < 3:
            try:
                data, (_, _, kind, *_) = self.ends[host].recvfrom(2048)
            except BlockingIOError:
                quiet = quiet + 1 if expected <= found else 0
                time.sleep(0.004)
                continue
            if kind != OUTGOING:
                found.add(struct.unpack_from("!H", data, 18)[0])
        return found


@pytest.fixture
def wire(tmp_path: Path) -> Iterator[Wire]:
    made = Wire(tmp_path)
    try:
        made.up()
        yield made
    finally:
        made.down()


def reference(rules: tuple[AclRule, ...], address: str, packet: Packet, *, default: bool) -> bool:
    """The list itself, read from the top."""
    names = {ICMP: "icmp", TCP: "tcp", UDP: "udp"}
    for rule in rules:
        near = any(IPv4Address(address) in IPv4Network(cidr) for cidr in rule.cidrs)
        kind = rule.protocol in ("all", names.get(packet.protocol, str(packet.protocol)))
        if rule.protocol in ("tcp", "udp"):
            kind = kind and rule.first <= packet.dport <= rule.last
        if rule.protocol == "icmp":
            wanted = rule.icmp_type, rule.icmp_code
            kind = kind and all(want in (-1, got) for want, got in zip(wanted, packet.icmp, strict=True))
        if near and kind:
            return rule.allowed
    return default


class Choice:
    """Lists and packets that have something to do with each other; each packet another flow."""

    def __init__(self, seed: int) -> None:
        self.pick = random.Random(seed)  # noqa: S311 not a secret
        self.flow = 0

    def address(self, host: str) -> str:
        base = 0x0A000000 if host == "a" else 0x0A800000
        low = self.pick.choice((0, 1, 2, 3, 256, 257, 65536, 65537, 0x400000, 0x7FFFFF))
        return str(IPv4Address(base + low))

    def rule(self, host: str) -> AclRule:
        def network() -> str:
            length = self.pick.choice((0, 0, 8, 9, 10, 15, 16, 24, 30, 31, 32))
            return str(IPv4Network(f"{self.address(host)}/{length}", strict=False)).removesuffix("/32")

        cidrs = tuple(dict.fromkeys(network() for _ in range(self.pick.choice((1, 1, 2)))))
        protocol = self.pick.choice(("all", "tcp", "tcp", "udp", "udp", "icmp", "icmp", "47", "51"))
        first = self.pick.randrange(12)
        return AclRule(
            allowed=self.pick.random() < 0.5,
            cidrs=cidrs,
            protocol=protocol,
            first=first if protocol in ("tcp", "udp") else 0,
            last=first + self.pick.randrange(6) if protocol in ("tcp", "udp") else 65535,
            icmp_type=self.pick.choice((-1, 8, 13)) if protocol == "icmp" else -1,
            icmp_code=self.pick.choice((-1, 0, 1)) if protocol == "icmp" else -1,
        )

    def rules(self, host: str) -> tuple[AclRule, ...]:
        return tuple(self.rule(host) for _ in range(self.pick.choice((1, 3, 6, 13, 40))))

    def packet(self) -> Packet:
        self.flow += 1
        protocol = self.pick.choice((TCP, TCP, UDP, UDP, ICMP, GRE, AH))
        sport, dport = 1024 + self.flow % 60_000, self.pick.randrange(18)
        icmp = self.pick.choice((8, 8, 13)), self.pick.choice((0, 1, 2))
        return Packet(self.address("a"), self.address("b"), protocol, sport, dport, icmp)


def forget_flows(wire: Wire) -> None:
    subprocess.run(["ip", "netns", "exec", f"{wire.prefix}r", "conntrack", "-F"], check=True, capture_output=True)  # noqa: S607


def test_the_first_packet_is_decided_as_the_list_says(wire: Wire) -> None:
    choice = Choice(1)
    checked = passed = 0
    while checked < PAIRS:
        egress, ingress = choice.rules("b"), choice.rules("a")
        if checked % 3 == 0:
            egress = ()  # open: the ingress list alone decides
        elif checked % 3 == 1:
            ingress = (ACCEPT,)
        wire.load(Acl(egress=egress), Acl(ingress=ingress))
        forget_flows(wire)
        sent: dict[int, Packet] = {}
        for _ in range(20):
            packet = choice.packet()
            sent[wire.send("a", packet)] = packet
        expected = {
            number
            for number, packet in sent.items()
            if reference(egress, packet.target, packet, default=not egress)
            and reference(ingress, packet.source, packet, default=False)
        }
        got = wire.heard("b", expected)
        wrong = {number: sent.get(number) for number in got ^ expected}
        assert not wrong, (egress, ingress, wrong)
        checked += len(sent)
        passed += len(got)
    assert PAIRS // 10 < passed < checked - PAIRS // 10


def test_a_reply_that_comes_first_after_a_change_is_decided_as_the_list_says(wire: Wire) -> None:
    choice = Choice(2)
    checked = passed = 0
    while checked < PAIRS:
        wire.load(Acl(), Acl(ingress=(ACCEPT,)))
        forget_flows(wire)
        flows = [packet for packet in (choice.packet() for _ in range(28)) if packet.protocol != ICMP]
        # A protocol without ports has one flow between two addresses; the other one's reply would be it again.
        flows = list(
            {(f.source, f.target, f.protocol, f.sport if f.protocol in (TCP, UDP) else 0): f for f in flows}.values()
        )
        begun = {wire.send("a", packet) for packet in flows}
        assert wire.heard("b", begun) == begun
        egress, ingress = choice.rules("b"), choice.rules("a")
        if checked % 2:
            egress = ()
        wire.load(Acl(egress=egress), Acl(ingress=ingress))
        sent = {wire.send("b", packet.reply, flags=0x12): packet for packet in flows}
        expected = {
            number
            for number, packet in sent.items()
            if reference(egress, packet.target, packet, default=not egress)
            and reference(ingress, packet.source, packet, default=False)
        }
        got = wire.heard("a", expected)
        wrong = {number: sent.get(number) for number in got ^ expected}
        assert not wrong, (egress, ingress, wrong)
        checked += len(sent)
        passed += len(got)
    assert PAIRS // 10 < passed < checked - PAIRS // 10


class Steady:
    """Each of some packets about 700 times a second, until `stop`; the identification of packet n is n."""

    def __init__(self, wire: Wire, packets: list[tuple[str, Packet]]) -> None:
        self.wire = wire
        self.over = threading.Event()
        self.sent = 0
        self.got = [0] * len(packets)
        self.frames = [(host, frame(host, packet, at)) for at, (host, packet) in enumerate(packets)]
        self.threads = [threading.Thread(target=self._send), threading.Thread(target=self._receive)]
        for thread in self.threads:
            thread.start()

    def _send(self) -> None:
        while not self.over.is_set():
            for host, data in self.frames:
                self.wire.ends[host].send(data)
            self.sent += 1
            time.sleep(0.001)

    def _receive(self) -> None:
        until = float("inf")
        while time.monotonic() < until:
            for end in self.wire.ends.values():
                self._drain(end)
            time.sleep(0.002)
            if self.over.is_set() and until == float("inf"):
                until = time.monotonic() + 0.3

    def _drain(self, end: socket.socket) -> None:
        with contextlib.suppress(BlockingIOError):
            while True:
                data, (_, _, kind, *_) = end.recvfrom(2048)
                self.got[struct.unpack_from("!H", data, 18)[0]] += kind != OUTGOING

    def stop(self) -> None:
        self.over.set()
        for thread in self.threads:
            thread.join()


@pytest.mark.alone
def test_an_acl_that_changes_loses_and_leaks_nothing_of_others(wire: Wire) -> None:
    """A thousand rules; one steady flow is always allowed, one never, while others' rules come and go."""
    fixed = (
        AclRule(allowed=True, cidrs=("10.0.0.1",), protocol="udp", first=7, last=7),
        AclRule(allowed=False, cidrs=("10.0.0.2",)),
    )
    pick = random.Random(3)  # noqa: S311 not a secret

    def another() -> AclRule:
        cidr = f"10.{pick.randrange(1, 100)}.{pick.randrange(256)}.0/24"
        port = pick.randrange(60_000)
        allowed = pick.random() < 0.9
        return AclRule(allowed=allowed, cidrs=(cidr,), protocol="tcp", first=port, last=port + pick.randrange(99))

    rest = [another() for _ in range(998)]
    wire.load(Acl(), Acl(ingress=(*fixed, *rest)))
    allowed = Packet("10.0.0.1", "10.128.0.1", UDP, 5000, 7)
    denied = Packet("10.0.0.2", "10.128.0.1", UDP, 5000, 7)
    wire.ends["a"].send(frame("a", allowed, 9))  # the flow is there before its replies
    assert wire.heard("b", {9}) == {9}
    wire.heard("a", set())
    steady = Steady(wire, [("a", allowed), ("b", allowed.reply), ("a", denied)])
    try:
        for _ in range(CHANGES):
            rest[pick.randrange(len(rest))] = another()
            wire.load(Acl(), Acl(ingress=(*fixed, *rest)))
    finally:
        steady.stop()
    assert steady.sent > 20
    assert steady.got == [steady.sent, steady.sent, 0]


WEB = "192.0.2.17"  # the router's address on eth3
OUTSIDE = "198.51.100.9"
FORWARD: Sets = {
    "port_forward": {f"{WEB} . tcp . 80": "10.128.0.1 . 8080"},
    "forwarded": {f"{WEB} . tcp . 80 . 10.128.0.1": ""},
    "forward_target": {"10.128.0.1 . tcp . 8080": ""},
    "source_nat": {'"eth1" . "eth3"': WEB},
}
CLOSED = Acl(egress=(AclRule(allowed=False, cidrs=("0.0.0.0/0",)),))


def to(cidr: str, port: int, *, allowed: bool = True) -> AclRule:
    return AclRule(allowed=allowed, cidrs=(cidr,), protocol="tcp", first=port, last=port)


def test_from_outside_a_forward_and_the_acl_are_both_needed(wire: Wire) -> None:
    syn = Packet(OUTSIDE, WEB, TCP, 4000, 80)
    wire.load(Acl(), Acl(ingress=(to(OUTSIDE, 80),)), FORWARD)
    assert not wire.arrives("p", "b", syn)  # the port that counts is the VM's
    wire.load(Acl(), Acl(ingress=(to(OUTSIDE, 8080),)), FORWARD)
    assert wire.arrives("p", "b", syn)
    assert wire.arrives("b", "p", Packet("10.128.0.1", OUTSIDE, TCP, 8080, 4000), flags=0x12)
    wire.load(Acl(), Acl(ingress=(to(OUTSIDE, 8081), to(OUTSIDE, 8080))), FORWARD)
    assert wire.arrives("b", "p", Packet("10.128.0.1", OUTSIDE, TCP, 8080, 4000), flags=0x10)
    wire.load(Acl(), Acl(ingress=(to(OUTSIDE, 8081),)), FORWARD)
    assert not wire.arrives("b", "p", Packet("10.128.0.1", OUTSIDE, TCP, 8080, 4000), flags=0x10)
    assert not wire.arrives("p", "b", syn)
    wire.load(Acl(), Acl(ingress=(ACCEPT,)))
    assert not wire.arrives("p", "b", Packet(OUTSIDE, "10.128.0.1", TCP, 4001, 8080))  # nothing leads there
    restricted = {
        "forward_restricted": {f"{WEB} . tcp . 80": ""},
        "forward_source": {f"{WEB} . tcp . 198.51.100.1 . 80": ""},
    }
    wire.load(Acl(), Acl(ingress=(ACCEPT,)), FORWARD | restricted)
    assert not wire.arrives("p", "b", Packet(OUTSIDE, WEB, TCP, 4002, 80))
    assert wire.arrives("p", "b", Packet("198.51.100.1", WEB, TCP, 4002, 80))


def test_from_a_tier_to_outside_its_egress_list_decides(wire: Wire) -> None:
    syn = Packet("10.0.0.1", OUTSIDE, TCP, 4000, 443)
    back = Packet(OUTSIDE, WEB, TCP, 443, 4000)
    open_ = Acl(egress=(to(OUTSIDE, 443),))
    other = Acl(egress=(to(OUTSIDE, 22),))
    wire.load(other, Acl(), FORWARD)
    assert not wire.arrives("a", "p", syn)
    wire.load(open_, Acl(), FORWARD)
    assert wire.arrives("a", "p", syn)
    assert wire.arrives("p", "a", back, flags=0x12)
    wire.load(Acl(egress=(*other.egress, *open_.egress)), Acl(ingress=(ACCEPT,)), FORWARD)
    assert wire.arrives("p", "a", back, flags=0x10)
    wire.load(other, Acl(), FORWARD)
    assert not wire.arrives("p", "a", back, flags=0x10)
    assert not wire.arrives("a", "p", syn, flags=0x10)
    wire.load(open_, Acl(), FORWARD)
    assert wire.arrives("p", "a", back, flags=0x10)


def test_between_tiers_by_a_public_address_both_lists_count(wire: Wire) -> None:
    """Egress by the address that was asked for, ingress by where it leads to."""
    syn = Packet("10.0.0.1", WEB, TCP, 4000, 80)
    back = Packet("10.128.0.1", "10.0.0.1", TCP, 8080, 4000)
    good = (Acl(egress=(to(WEB, 80),)), Acl(ingress=(to("10.0.0.1", 8080),)))
    bad_egress = (Acl(egress=(to("10.128.0.1", 8080),)), good[1])
    bad_ingress = (good[0], Acl(ingress=(to("10.0.0.1", 80),)))
    for bad in (bad_egress, bad_ingress):
        forget_flows(wire)
        wire.load(*bad, FORWARD)
        assert not wire.arrives("a", "b", syn)
        wire.load(*good, FORWARD)
        assert wire.arrives("a", "b", syn)
        assert wire.arrives("b", "a", back, flags=0x12)
        wire.load(*bad, FORWARD)
        assert not wire.arrives("b", "a", back, flags=0x10)
        wire.load(*good, FORWARD)
        assert wire.arrives("b", "a", back, flags=0x10)


def test_the_router_itself_is_reached_by_its_address_on_the_tier_alone(wire: Wire) -> None:
    with wire.inside("r"), socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as service:
        service.bind(("0.0.0.0", 67))  # noqa: S104 the point is which addresses get through
        service.settimeout(0.2)

        def reached(packet: Packet) -> bool:
            wire.send("a", packet)
            with contextlib.suppress(TimeoutError):
                return bool(service.recv(99))
            return False

        services = {
            "router_service": {'"eth1" . udp . 67': ""},
            "acl_gateway": {'"eth1" . 192.0.2.1': ""},
        }
        wire.load(CLOSED, Acl(), services)
        assert reached(Packet("0.0.0.0", "255.255.255.255", UDP, 68, 67))  # noqa: S104 a DHCP client has no address
        assert reached(Packet("10.0.0.1", "192.0.2.1", UDP, 68, 67))
        assert not reached(Packet("10.0.0.1", WEB, UDP, 68, 67))
        wire.load(Acl(egress=(AclRule(allowed=True, cidrs=(WEB,), protocol="udp"),)), Acl(), services)
        assert reached(Packet("10.0.0.1", WEB, UDP, 68, 67))


def test_a_private_gateway(wire: Wire) -> None:
    private = Interface("", "eth1", "private", ())
    wire.load(Acl(), Acl(ingress=(ACCEPT,)), of_a=private)
    assert wire.arrives("a", "b", Packet("10.0.0.1", "10.128.0.1", TCP, 4000, 80))
    assert not wire.arrives("a", "b", Packet("10.128.0.7", "10.128.0.1", TCP, 4000, 80))  # a tier's source
    assert not wire.arrives("a", "p", Packet("10.0.0.1", OUTSIDE, TCP, 4000, 80))  # no way to outside for others
    assert not wire.arrives("b", "a", Packet("10.128.0.1", "10.0.0.1", TCP, 4001, 80))  # no rule: ingress is closed
    wire.load(Acl(ingress=(ACCEPT,)), Acl(), of_a=private)
    assert wire.arrives("b", "a", Packet("10.128.0.1", "10.0.0.1", TCP, 4001, 80))
    wire.load(CLOSED, Acl(ingress=(ACCEPT,)), of_a=private)
    assert not wire.arrives("a", "b", Packet("10.0.0.1", "10.128.0.1", TCP, 4002, 80))


def test_a_reply_to_ping_passes_until_the_next_request(wire: Wire) -> None:
    ask = Packet("10.0.0.1", "10.128.0.1", ICMP)
    wire.load(Acl(), Acl(ingress=(ACCEPT,)))
    number = wire.send("a", ask)
    assert wire.heard("b", {number}) == {number}
    wire.load(Acl(), Acl(ingress=(AclRule(allowed=False, cidrs=("0.0.0.0/0",)),)))
    wire.number = number - 1  # the echo's sequence goes by the packet's number
    assert wire.arrives("b", "a", ask.reply)
    assert not wire.arrives("a", "b", ask)


def test_one_more_denial_cuts_though_nothing_but_an_element_changes(wire: Wire) -> None:
    def listed(*denied: str) -> Acl:
        return Acl(ingress=(*(AclRule(allowed=False, cidrs=(cidr,)) for cidr in denied), ACCEPT))

    syn = Packet("10.0.0.1", "10.128.0.1", TCP, 4000, 80)
    other = Packet("10.0.0.3", "10.128.0.1", TCP, 4000, 80)
    wire.load(Acl(), listed("10.0.0.2"))
    assert wire.arrives("a", "b", syn)
    assert wire.arrives("a", "b", other)
    wire.load(Acl(), listed("10.0.0.2", "10.0.0.1"))
    assert not wire.arrives("b", "a", syn.reply, flags=0x12)
    assert not wire.arrives("a", "b", syn, flags=0x10)
    assert wire.arrives("b", "a", other.reply, flags=0x12)
