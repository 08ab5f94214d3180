"""The packet path and its driver, proved with packets: a router, two guests, two outsides, in namespaces."""

import contextlib
import ctypes
import os
import socket
import subprocess
import threading
import time
from collections.abc import Iterator
from copy import deepcopy
from pathlib import Path
from unittest.mock import Mock

import pytest

from holdfast import run as runner
from holdfast.converge import Failure
from holdfast.drivers import ruleset
from holdfast.drivers.ruleset import Rulesets, generation
from holdfast.marks import Marks
from holdfast.nft import Chain, Rule, Stage, ports
from holdfast.program import assemble
from holdfast.state import Change, diff

pytestmark = [pytest.mark.lab, pytest.mark.skipif(os.geteuid() != 0, reason="needs root")]

HOSTS = {
    "g1": ("brg", "eth0", ["10.1.1.10/24"], "10.1.1.1"),
    "g2": ("brg", "eth0", ["10.1.1.11/24"], "10.1.1.1"),
    "o1": ("brp", "eth0", ["203.0.113.200/24", "192.0.2.9/32"], "203.0.113.1"),
    "o2": ("brq", "eth0", ["198.51.100.200/24", "192.0.2.9/32"], "198.51.100.1"),
}
WEB, VM, FAR = "203.0.113.5", "203.0.113.6", "198.51.100.5"
ELSEWHERE = "192.0.2.9"  # behind both outsides
ROUTER = {
    "eth0": ("brg", ["10.1.1.1/24"]),
    "eth2": ("brp", ["203.0.113.1/24", f"{WEB}/24", f"{VM}/24"]),
    "eth3": ("brq", ["198.51.100.1/24", f"{FAR}/24"]),
}
Wanted = dict[str, dict[str, str]]


def members(*keys: str) -> dict[str, str]:
    return dict.fromkeys(keys, "")


BASE: Wanted = {
    "public_address": members(WEB, VM, FAR),
    "guest_device": members('"eth0"'),
    "public_device": members('"eth2"', '"eth3"'),
    "guest_source": members('"eth0" . 10.1.1.0/24'),
    "guest_service": members('"eth0" . udp . 53'),
    "ingress_port": members(
        f"{WEB} . tcp . 0.0.0.0/0 . 80",
        f"{WEB} . udp . 0.0.0.0/0 . 80",
        f"{WEB} . udp . 0.0.0.0/0 . 90-99",
        f"{VM} . tcp . 0.0.0.0/0 . 1-1023",
        f"{VM} . udp . 0.0.0.0/0 . 1-1023",
        f"{FAR} . udp . 0.0.0.0/0 . 80",
        f"{FAR} . tcp . 0.0.0.0/0 . 80",
    ),
    "port_forward": {
        f"{WEB} . tcp . 80": "10.1.1.10 . 8080",
        f"{WEB} . udp . 80": "10.1.1.10 . 8080",
        f"{FAR} . udp . 80": "10.1.1.10 . 8081",
        f"{FAR} . tcp . 80": "10.1.1.10 . 8081",
    },
    "range_forward": {f"{WEB} . udp . 90-99": "10.1.1.11"},
    "forwarded": members(
        f"{WEB} . tcp . 80 . 10.1.1.10", f"{WEB} . udp . 80 . 10.1.1.10", f"{FAR} . udp . 80 . 10.1.1.10",
        f"{FAR} . tcp . 80 . 10.1.1.10", f"{WEB} . udp . 90-99 . 10.1.1.11",
    ),
    "forward_target": members(
        "10.1.1.10 . tcp . 8080", "10.1.1.10 . udp . 8080", "10.1.1.10 . udp . 8081", "10.1.1.10 . tcp . 8081",
        "10.1.1.11 . udp . 90-99",
    ),
    "static_nat": {VM: "10.1.1.11"},
    "static_source": {'"eth2" . 10.1.1.11': VM},
    "static_public": members(f"{VM} . 10.1.1.11"),
    "static_private": members("10.1.1.11"),
    "source_nat": {'"eth0" . "eth2"': "203.0.113.1", '"eth0" . "eth3"': "198.51.100.1"},
    "hairpin": {'"eth0" . "eth0"': "10.1.1.1"},
    "way_in": {'"eth2"': "0x00000002", '"eth3"': "0x00000003"},
    "egress_allow_port_24": members("10.1.1.0/24 . 0.0.0.0/0 . tcp . 443", "10.1.1.0/24 . 0.0.0.0/0 . udp . 443"),
    "egress_allow_icmp_24": members("10.1.1.0/24 . 0.0.0.0/0 . 8 . 0"),
    "egress_deny_any_32": members("10.1.1.10 . 203.0.113.250"),
}  # fmt: skip


def wanted(**sets: dict[str, str] | None) -> Wanted:
    """BASE with some sets replaced."""
    changed = deepcopy(BASE)
    for name, entries in sets.items():
        changed[name] = entries or {}
    return changed


def without(name: str, *keys: str) -> dict[str, str]:
    return {key: value for key, value in BASE[name].items() if key not in keys}


class Lab:
    """Namespaces, and the thread's way into them."""

    def __init__(self) -> None:
        self.prefix = f"hft-{os.getpid()}-"
        self.home = os.open("/proc/thread-self/ns/net", os.O_RDONLY)
        self.libc = ctypes.CDLL(None, use_errno=True)
        self.sockets: list[socket.socket] = []
        self.listening: dict[tuple[str, int], socket.socket] = {}

    def ip(self, host: str, *lines: str) -> None:
        subprocess.run(["ip", "-n", self.prefix + host, "-b", "-"], input="\n".join(lines), text=True, check=True)  # noqa: S607

    def up(self) -> None:
        for host in ("sw", "r", *HOSTS):
            subprocess.run(["ip", "netns", "add", self.prefix + host], check=True)  # noqa: S607
        lines = [
            f"link add {br} type bridge forward_delay 0 mcast_snooping 0\nlink set {br} up"
            for br in ("brg", "brp", "brq")
        ]
        ports = [(host, nic, bridge) for host, (bridge, nic, *_) in HOSTS.items()]
        for host, nic, bridge in [*ports, *(("r", nic, bridge) for nic, (bridge, _) in ROUTER.items())]:
            lines.append(f"link add {host}{nic} type veth peer name {nic} netns {self.prefix}{host}")
            lines.append(f"link set {host}{nic} master {bridge} up")
        self.ip("sw", *lines)
        for host, (_, nic, addresses, gateway) in HOSTS.items():
            given = [f"addr add {address} dev {nic}" for address in addresses]
            self.ip(host, "link set lo up", f"link set {nic} up", *given, f"route add default via {gateway}")
        lines = ["link set lo up"]
        for nic, (_, addresses) in ROUTER.items():
            lines += [f"link set {nic} up", *(f"addr add {address} dev {nic}" for address in addresses)]
        lines += ["route add default via 203.0.113.200", "route add default via 198.51.100.200 table 103"]
        lines += ["route add throw 10.0.0.0/8 table 103", "rule add fwmark 3/0xfff lookup 103"]
        self.ip("r", *lines)
        with self.inside("r"):
            for name in ("conf/all/rp_filter", "conf/default/rp_filter", *(f"conf/{nic}/rp_filter" for nic in ROUTER)):
                Path(f"/proc/sys/net/ipv4/{name}").write_text("0")
            Path("/proc/sys/net/ipv4/ip_forward").write_text("1")

    def down(self) -> None:
        self.close()
        for host in ("r", *HOSTS, "sw"):
            subprocess.run(["ip", "netns", "del", self.prefix + host], check=False)  # noqa: S607
        os.close(self.home)

    def close(self) -> None:
        self.listening.clear()
        while self.sockets:
            self.sockets.pop().close()

    @contextlib.contextmanager
    def inside(self, host: str) -> Iterator[None]:
        there = os.open(f"/run/netns/{self.prefix}{host}", os.O_RDONLY)
        try:
            assert self.libc.setns(there, 0x40000000) == 0
            yield
        finally:
            os.close(there)
            assert self.libc.setns(self.home, 0x40000000) == 0

    def open(self, host: str, kind: str, address: str = "0.0.0.0", port: int = 0) -> socket.socket:  # noqa: S104
        with self.inside(host):
            made = socket.socket(socket.AF_INET, socket.SOCK_STREAM if kind == "tcp" else socket.SOCK_DGRAM)
        made.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        made.bind((address, port))
        if kind == "tcp":
            made.listen() if port else None
        made.settimeout(0.4)
        self.sockets.append(made)
        return made

    def listener(self, host: str, kind: str, port: int, address: str) -> socket.socket:
        """One for all TCP flows of a port; UDP has a socket for each, connected once its peer is known."""
        if kind == "udp":
            return self.open(host, kind, address, port)
        if (host, port) not in self.listening:
            self.listening[host, port] = self.open(host, kind, address, port)
        return self.listening[host, port]

    def ping(self, host: str, to: str) -> bool:
        argv = ["ip", "netns", "exec", self.prefix + host, "ping", "-c1", "-W1", to]
        return subprocess.run(argv, capture_output=True, check=False).returncode == 0


class Flow:
    """A connection from a host to an address that is answered on another host; None where it does not come about."""

    def __init__(  # noqa: PLR0913, PLR0917 a flow is named by its tuple
        self, lab: Lab, kind: str, src: str, dst: tuple[str, int], at: tuple[str, int], source: str = ""
    ) -> None:
        self.kind = kind
        listener = lab.listener(at[0], kind, at[1], dst[0] if dst[0] == ELSEWHERE else "0.0.0.0")  # noqa: S104
        self.client = lab.open(src, kind, source or "0.0.0.0")  # noqa: S104
        self.seen_from = ""
        self.up = False
        if kind == "tcp":
            try:
                self.client.connect(dst)
                self.server, (self.seen_from, _) = listener.accept()
            except OSError:
                return
            self.server.settimeout(0.4)
            lab.sockets.append(self.server)
        else:
            self.client.connect(dst)
            self.client.send(b"hello")
            try:
                _, peer = listener.recvfrom(99)
            except OSError:
                return
            self.seen_from = peer[0]
            self.server = listener
            self.server.connect(peer)
        self.up = True

    def forth(self) -> bool:
        return self._passes(self.client, self.server)

    def back(self) -> bool:
        return self._passes(self.server, self.client)

    @staticmethod
    def _passes(sender: socket.socket, receiver: socket.socket) -> bool:
        try:
            sender.send(b"ping")
            return b"ping" in receiver.recv(99)
        except OSError:
            return False


@pytest.fixture(scope="module")
def network() -> Iterator[Lab]:
    lab = Lab()
    try:
        lab.up()
        yield lab
    finally:
        lab.down()


class Router:
    """The driver at work in the router's namespace."""

    def __init__(self, lab: Lab, marks: Path) -> None:
        self.lab = lab
        self.driver = Rulesets(Marks(marks))

    def plan(self, elements: Wanted, *rules: Rule) -> list[Change]:
        desired = {resource.key: resource for resource in assemble(rules, elements)}
        with self.lab.inside("r"):
            return diff({resource.key: resource for resource in self.driver.observe(desired)}, desired)

    def apply(self, elements: Wanted, *rules: Rule) -> list[Failure]:
        changes = self.plan(elements, *rules)
        with self.lab.inside("r"):
            return list(self.driver.apply(changes))

    def converge(self, elements: Wanted, *rules: Rule) -> None:
        assert self.apply(elements, *rules) == []
        assert self.plan(elements, *rules) == []

    def nft(self, *argv: str) -> str:
        with self.lab.inside("r"):
            return runner.run(["nft", *argv])


@pytest.fixture
def router(network: Lab, tmp_path: Path) -> Iterator[Router]:
    router = Router(network, tmp_path)
    router.nft("flush", "ruleset")
    subprocess.run(["ip", "netns", "exec", f"{network.prefix}r", "conntrack", "-F"], check=True, capture_output=True)  # noqa: S607
    router.converge(BASE)
    yield router
    network.close()


KINDS = pytest.mark.parametrize("kind", ["tcp", "udp"])


def web(lab: Lab, kind: str, src: str = "o1") -> Flow:
    return Flow(lab, kind, src, (WEB, 80), ("g1", 8080))


def static(lab: Lab, kind: str, src: str = "o1") -> Flow:
    return Flow(lab, kind, src, (VM, 700), ("g2", 700))


def out(lab: Lab, kind: str, src: str = "g1") -> Flow:
    return Flow(lab, kind, src, ("203.0.113.200", 443), ("o1", 443))


@KINDS
def test_what_is_forwarded_is_reached_from_everywhere(network: Lab, router: Router, kind: str) -> None:
    for make, src, seen_from in (
        (web, "o1", "203.0.113.200"),
        (web, "g2", "10.1.1.1"),  # hairpin
        (web, "r", "203.0.113.1"),  # the router itself
        (static, "o1", "203.0.113.200"),
        (static, "g1", "10.1.1.1"),
        (static, "g2", "10.1.1.1"),  # a guest reaches itself by its public address
    ):
        flow = make(network, kind, src)
        assert flow.up
        assert flow.back()
        assert flow.forth()
        assert flow.seen_from == seen_from
        network.close()
    assert router.plan(BASE) == []


@KINDS
def test_all_else_is_dropped(network: Lab, router: Router, kind: str) -> None:
    refused = [
        Flow(network, kind, "o1", (WEB, 81), ("r", 81)),  # no permission
        Flow(network, kind, "g2", (WEB, 82), ("r", 82)),  # neither for guests
        Flow(network, kind, "o1", (VM, 2000), ("g2", 2000)),
        Flow(network, kind, "g1", ("203.0.113.200", 444), ("o1", 444)),  # egress, default deny
    ]
    network.ip("o1", "route add 10.1.1.0/24 via 203.0.113.1", "route add 198.51.100.0/24 via 203.0.113.1")
    refused.append(Flow(network, kind, "o1", ("10.1.1.10", 8080), ("g1", 8080)))  # private address from outside
    refused.append(Flow(network, kind, "o1", ("198.51.100.200", 80), ("o2", 80)))  # public to public
    network.ip("o1", "route del 10.1.1.0/24", "route del 198.51.100.0/24")
    assert [flow.up for flow in refused] == [False] * 6
    router.converge(wanted(egress_open=members('"eth0"')))
    assert Flow(network, kind, "g1", ("203.0.113.200", 445), ("o1", 445)).up


def test_spoofed_sources_are_dropped(network: Lab, router: Router) -> None:
    router.converge(wanted(egress_open=members('"eth0"')))
    network.ip("o1", "addr add 10.1.1.99/32 dev lo")
    network.ip("g1", "addr add 10.9.9.9/32 dev lo")
    assert not Flow(network, "udp", "o1", (WEB, 80), ("g1", 8080), source="10.1.1.99").up
    assert not Flow(network, "udp", "g1", ("203.0.113.200", 446), ("o1", 446), source="10.9.9.9").up
    network.ip("o1", "addr del 10.1.1.99/32 dev lo")
    network.ip("g1", "addr del 10.9.9.9/32 dev lo")


def test_ranges_services_and_echo(network: Lab, router: Router) -> None:
    ranged = Flow(network, "udp", "o1", (WEB, 95), ("g2", 95))
    assert ranged.up
    assert ranged.back()
    assert Flow(network, "udp", "g1", ("10.1.1.1", 53), ("r", 53)).up
    assert not Flow(network, "udp", "o1", ("203.0.113.1", 53), ("r", 53)).up
    assert network.ping("g1", "203.0.113.200")
    assert not network.ping("o1", VM)
    router.converge(wanted(ingress_icmp=members(f"{VM} . 0.0.0.0/0 . 8 . 0")))
    assert network.ping("o1", VM)
    service = Flow(network, "tcp", "o1", ("203.0.113.1", 3922), ("r", 3922))
    assert not service.up
    network.close()
    router.converge(wanted(router_service=members('"eth2" . tcp . 3922')))
    service = Flow(network, "tcp", "o1", ("203.0.113.1", 3922), ("r", 3922))
    assert service.forth()
    router.converge(BASE)
    assert not service.forth()


@KINDS
def test_source_addresses(network: Lab, router: Router, kind: str) -> None:
    assert out(network, kind, "g1").seen_from == "203.0.113.1"
    network.close()
    assert out(network, kind, "g2").seen_from == VM  # static NAT before source NAT
    assert router.plan(BASE) == []


@KINDS
def test_replies_leave_by_the_nic_of_entry(network: Lab, router: Router, kind: str) -> None:
    flow = Flow(network, kind, "o2", (FAR, 80), ("g1", 8081), source=ELSEWHERE)
    assert flow.up
    assert flow.back()
    assert flow.forth()
    network.close()
    router.converge(wanted(way_in={}))
    assert not (flow := Flow(network, kind, "o2", (FAR, 80), ("g1", 8081), source=ELSEWHERE)).up or not flow.back()


@KINDS
def test_a_static_vm_leaves_by_the_nic_of_its_address(network: Lab, router: Router, kind: str) -> None:
    farther = {"static_nat": {FAR: "10.1.1.11"}, "static_source": {'"eth3" . 10.1.1.11': FAR}}
    router.converge(
        wanted(**farther, static_public=members(f"{FAR} . 10.1.1.11"), way_out={'"eth0" . 10.1.1.11': "0x00000003"})
    )
    flow = Flow(network, kind, "g2", (ELSEWHERE, 443), ("o2", 443))
    assert flow.seen_from == FAR
    assert flow.back()
    assert flow.forth()


REVOCATIONS = {
    "ingress": wanted(
        ingress_port=without("ingress_port", f"{WEB} . tcp . 0.0.0.0/0 . 80", f"{WEB} . udp . 0.0.0.0/0 . 80")
    ),
    "forward": wanted(
        port_forward=without("port_forward", f"{WEB} . tcp . 80", f"{WEB} . udp . 80"),
        forwarded=without("forwarded", f"{WEB} . tcp . 80 . 10.1.1.10", f"{WEB} . udp . 80 . 10.1.1.10"),
        forward_target=without("forward_target", "10.1.1.10 . tcp . 8080", "10.1.1.10 . udp . 8080"),
    ),
    "static": wanted(static_nat={}, static_source={}, static_public={}, static_private={}),
    "egress": wanted(egress_allow_port_24=members("10.1.1.0/24 . 0.0.0.0/0 . tcp . 80")),
    "deny": wanted(egress_deny_any_32=members("10.1.1.10 . 203.0.113.0/24")),
}


@KINDS
@pytest.mark.parametrize("first", ["client", "server"])
@pytest.mark.parametrize("what", REVOCATIONS)
def test_revoking_cuts_what_it_should_and_nothing_else(
    network: Lab, router: Router, what: str, first: str, kind: str
) -> None:
    flows = {
        "web": web(network, kind),
        "hairpin": web(network, kind, "g2"),
        "static": static(network, kind),
        "out": out(network, kind),
    }
    assert all(flow.up and flow.back() and flow.forth() for flow in flows.values())
    router.converge(REVOCATIONS[what])
    cut = {"ingress": {"web", "hairpin"}, "forward": {"web", "hairpin"}, "static": {"static"}}.get(what, {"out"})
    for name, flow in flows.items():
        one, other = (flow.forth, flow.back) if first == "client" else (flow.back, flow.forth)
        expected = name not in cut
        assert (one(), other()) == (expected, expected), name


@pytest.mark.parametrize("sender", ["client", "server"])
def test_a_one_way_stream_survives_what_does_not_concern_it(network: Lab, router: Router, sender: str) -> None:
    flows = [web(network, "udp"), out(network, "udp", "g2")]
    for step in range(4):
        router.converge(REVOCATIONS["deny"] if step % 2 else BASE)
        for flow in flows:
            assert flow.forth() if sender == "client" else flow.back()
    router.converge(REVOCATIONS["egress"])
    assert not (flows[1].forth() if sender == "client" else flows[1].back())
    assert flows[0].forth() if sender == "client" else flows[0].back()


def test_another_hand_is_seen_and_put_right(network: Lab, router: Router, monkeypatch: pytest.MonkeyPatch) -> None:
    flow = web(network, "udp")  # a TCP segment sent while no ruleset is there meets the router itself: reset
    started: list[list[str]] = []

    def watched(argv: list[str], stdin: str = "") -> str:
        started.append(argv)
        return runner.run(argv, stdin)

    monkeypatch.setattr(ruleset, "run", watched)
    assert router.plan(BASE) == []
    assert started == []  # nobody wrote: nothing is started
    router.nft("add", "table", "inet", "hft_other")
    assert router.plan(BASE) == []  # somebody wrote elsewhere: looked, nothing to do
    assert len(started) == 1
    assert router.plan(BASE) == []
    assert len(started) == 1
    meddling = (
        ("add rule inet holdfast input accept", {("Ruleset",)}),
        ("flush chain inet holdfast forward", {("Ruleset",)}),
        ("add chain inet holdfast mine", {("Ruleset",)}),
        ("flush chain inet holdfast stamp", {("Ruleset",)}),
        ("add element inet holdfast public_service { 203.0.113.1 . tcp . 22 }", {("Elements", "public_service")}),
        (f"delete element inet holdfast static_nat {{ {VM} }}", {("Elements", "static_nat")}),
        ("add set inet holdfast theirs { type ipv4_addr; }", {("Elements", "theirs"), ("Ruleset",)}),
        ("flush ruleset", None),
    )
    for command, keys in meddling:
        router.nft(command)
        found = {change.key for change in router.plan(BASE)}
        assert found == keys if keys else len(found) == len(assemble([], BASE))
        router.converge(BASE)
        assert flow.forth(), command
        assert flow.back(), command
    assert "mine" not in router.nft("list", "table", "inet", "holdfast")


def test_a_lost_note_is_read_back(network: Lab, router: Router) -> None:
    flow = web(network, "udp")
    router.driver.marks.forget("ruleset.holdfast")
    assert {change.key for change in router.plan(BASE)} == {("Ruleset",)}  # elements read exactly as they were written
    router.converge(BASE)
    assert flow.forth()
    router.driver.marks.write("ruleset.holdfast", b"damaged")
    router.converge(BASE)
    assert flow.back()


def test_a_bad_element_is_named_and_nothing_changes(network: Lab, router: Router) -> None:
    bad = f"{WEB} . tcp . 10.0.0.0/8 . 80-85"  # partly overlaps 0.0.0.0/0 . 80
    wrong = wanted(ingress_port={**BASE["ingress_port"], bad: ""}, public_service=members(f"{WEB} . tcp . 1"))
    failures = {failure.key: failure.reason for failure in router.apply(wrong)}
    assert failures["Elements", "ingress_port"] == f"{bad}: Could not process rule: File exists"
    assert "same transaction" in failures["Elements", "public_service"]
    assert router.plan(BASE) == []
    assert router.apply(BASE, Rule(Chain.FORWARD, Stage.ADMIT, "nonsense here"))
    assert router.plan(BASE) == []
    assert web(network, "udp").up


def test_a_set_of_another_shape_is_replaced_with_the_table(network: Lab, router: Router) -> None:
    router.nft("delete", "table", "inet", "holdfast")
    router.nft("add table inet holdfast; add set inet holdfast ingress_port { type ipv4_addr; }")
    router.converge(BASE)
    assert web(network, "udp").up


class Flood:
    """A flow whose client sends as fast as it can, until `stop`."""

    def __init__(self, flow: Flow) -> None:
        self.flow = flow
        self.over = threading.Event()
        flow.client.settimeout(0)
        self.thread = threading.Thread(target=self._send)
        self.thread.start()

    def _send(self) -> None:
        while not self.over.is_set():
            for _ in range(50):
                with contextlib.suppress(OSError):
                    self.flow.client.send(b"x")
            time.sleep(0.0001)

    def arrives(self) -> bool:
        """Whether it still comes, and not only what was on its way."""
        self.flow.server.settimeout(0.3)
        end = time.monotonic() + 0.5
        with contextlib.suppress(TimeoutError):
            while time.monotonic() < end:
                self.flow.server.recv(99)
            return True
        return False

    def stop(self) -> None:
        self.over.set()
        self.thread.join()


@contextlib.contextmanager
def flooded(flow: Flow) -> Iterator[Flood]:
    flood = Flood(flow)
    try:
        yield flood
    finally:
        flood.stop()


def test_a_flow_that_never_pauses_is_cut_each_time(network: Lab, router: Router) -> None:
    """The kernel shows new chains a moment before it publishes what interval sets lose: a packet comes in between."""
    with flooded(out(network, "udp")) as flood:
        for number in range(10):
            assert flood.arrives(), number
            router.converge(REVOCATIONS["egress"])
            assert not flood.arrives(), number
            router.converge(BASE)


def test_who_dies_before_the_epoch_is_settled_leaves_that_to_be_seen(
    network: Lab, router: Router, monkeypatch: pytest.MonkeyPatch
) -> None:
    with flooded(out(network, "udp")) as flood:
        with monkeypatch.context() as dying:
            dying.setattr(ruleset, "settle", Mock(side_effect=KeyboardInterrupt))
            with pytest.raises(KeyboardInterrupt):
                router.apply(REVOCATIONS["egress"])
        assert {change.key for change in router.plan(REVOCATIONS["egress"])} == {("Ruleset",)}
        router.converge(REVOCATIONS["egress"])
        assert not flood.arrives()


class Probe:
    """Both ends of each flow send in turn, about 1,000 times a second, until `stop`."""

    def __init__(self, flows: list[Flow]) -> None:
        self.over = threading.Event()
        self.ends = [(flow.client, flow.server) for flow in flows]
        self.sent = 0
        self.got = 0
        for end in (end for pair in self.ends for end in pair):
            end.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 1 << 22)
            end.settimeout(0)
        self.threads = [threading.Thread(target=self._send), threading.Thread(target=self._receive)]
        for thread in self.threads:
            thread.start()

    def _send(self) -> None:
        while not self.over.is_set():
            for pair in self.ends:
                pair[self.sent // len(self.ends) % 2].send(b"x")
                self.sent += 1
            time.sleep(0.001)

    def _receive(self) -> None:
        until = float("inf")
        while time.monotonic() < until:
            for end in (end for pair in self.ends for end in pair):
                with contextlib.suppress(BlockingIOError):
                    while end.recv(99):
                        self.got += 1
            time.sleep(0.002)
            if self.over.is_set() and until == float("inf"):
                until = time.monotonic() + 0.3

    def stop(self) -> None:
        self.over.set()
        for thread in self.threads:
            thread.join()


@pytest.mark.alone
def test_refills_lose_nothing_of_a_steady_probe(network: Lab, router: Router) -> None:
    table = router.nft("-a", "list", "tables")
    probe = Probe([web(network, "udp"), out(network, "udp", "g2")])
    until = time.monotonic() + 3
    refills = 0
    try:
        while time.monotonic() < until:
            router.converge(BASE, Rule(Chain.FORWARD, Stage.PREPARE, f"meta length {refills} counter"))
            router.converge(REVOCATIONS["deny"])
            refills += 2
    finally:
        probe.stop()
    assert router.nft("-a", "list", "tables") == table  # its handle: refilled, never replaced
    assert refills > 10
    assert probe.sent > 500
    assert probe.got == probe.sent


def test_one_more_among_ten_thousand(network: Lab, router: Router) -> None:
    many = {f"{WEB} . tcp . 10.{n // 250}.{n % 250}.0/24 . {ports(1000, 1000 + n % 7)}": "" for n in range(10_000)}
    large = wanted(ingress_port={**BASE["ingress_port"], **many})
    router.converge(large)
    with network.inside("r"):
        before = generation()
    began = time.perf_counter()
    router.converge({**large, "ingress_port": {**large["ingress_port"], f"{WEB} . tcp . 0.0.0.0/0 . 7": ""}})
    assert time.perf_counter() - began < 1.0  # 40 ms on an idle machine; this bound finds a reload of the whole
    with network.inside("r"):
        assert generation() == before + 1
    router.driver.marks.forget("ruleset.holdfast")
    assert {change.key for change in router.plan(large)} == {("Ruleset",), ("Elements", "ingress_port")}
    router.converge(large)
    flow = web(network, "udp")
    began = time.perf_counter()
    router.converge(BASE)  # one by one the kernel takes a minute
    assert time.perf_counter() - began < 5.0
    assert flow.forth()
