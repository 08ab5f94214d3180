"""The drivers against the real kernel and a real systemd, in namespaces of our own."""

import ctypes
import os
import socket
import subprocess
import threading
import time
import traceback
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path

import pytest
from slack import SLACK

from holdfast import netlink
from holdfast import run as runner
from holdfast.announce import frames
from holdfast.converge import Driver, Failure
from holdfast.drivers.address import Addresses
from holdfast.drivers.link import CARRIES_S, Links, carries
from holdfast.drivers.policy_rule import PolicyRules
from holdfast.drivers.route import Routes
from holdfast.drivers.sysctl import Sysctls
from holdfast.drivers.unit import Units, systemd_runs
from holdfast.facts import nics
from holdfast.iproute import IpRoute
from holdfast.link_flags import RUNNING, link_flags
from holdfast.marks import Marks
from holdfast.state import Address, Change, File, Link, PolicyRule, Resource, Route, State, Sysctl, Unit, diff, order

pytestmark = [pytest.mark.lab, pytest.mark.skipif(os.geteuid() != 0, reason="needs root")]

CLONE_NEWNS, CLONE_NEWNET = 0x20000, 0x40000000
LIBC = ctypes.CDLL(None, use_errno=True)
SYSTEMD = Path("/lib/systemd/systemd")
CGROUPS = [Path("/sys/fs/cgroup") / hierarchy for hierarchy in ("systemd", "unified")]

WORLD = """
link set lo up
link add eth0 address 02:00:00:00:00:01 type veth peer name p0
link add eth1 address 02:00:00:00:00:02 type veth peer name p1
link set p0 up
link set p1 up
"""


class Counter:
    """The real run, and what it was asked."""

    def __init__(self) -> None:
        self.asked: list[tuple[str, ...]] = []

    def __call__(self, argv: Sequence[str], stdin: str = "", *, timeout_s: float = 60) -> str:
        self.asked.append(tuple(argv))
        return runner.run(argv, stdin, timeout_s=timeout_s)


class Machine:
    """The network's drivers, and the spine in small."""

    def __init__(self) -> None:
        self.children = Counter()
        self.ip = IpRoute(self.children)
        self.addresses = Addresses(self.ip)
        self.drivers: tuple[Driver, ...] = (
            Sysctls(),
            Links(self.ip),
            self.addresses,
            Routes(self.ip),
            PolicyRules(self.ip),
        )

    def plan(self, desired: State) -> list[Change]:
        return diff(state(*(one for driver in self.drivers for one in driver.observe(desired))), desired)

    def once(self, desired: State) -> list[Failure]:
        by_kind = {kind: driver for driver in self.drivers for kind in driver.kinds}
        failures: list[Failure] = []
        for phase in order(self.plan(desired), [driver.kinds for driver in self.drivers]):
            failures += by_kind[type(phase[0].resource)].apply(phase)
        return failures

    def converge(self, *wanted: Resource) -> list[Failure]:
        desired = state(*wanted)
        failures: list[Failure] = []
        for _ in range(3):
            failures = self.once(desired)
            if not self.plan(desired):
                return []
        return failures


def state(*resources: Resource) -> State:
    return {one.key: one for one in resources}


def ip(*words: str) -> str:
    return runner.run(["ip", *words])


@contextmanager
def inside(name: str) -> Iterator[None]:
    """Put this thread into a network namespace for a while; its children go along."""
    home = os.open("/proc/thread-self/ns/net", os.O_RDONLY)
    there = os.open(f"/run/netns/{name}", os.O_RDONLY)
    try:
        assert LIBC.setns(there, CLONE_NEWNET) == 0
        yield
    finally:
        assert LIBC.setns(home, CLONE_NEWNET) == 0
        os.close(home)
        os.close(there)


@pytest.fixture
def machine() -> Iterator[Machine]:
    name = f"hfd-{os.getpid()}"
    ip("netns", "add", name)
    try:
        with inside(name):
            runner.run(["ip", "-batch", "-"], WORLD)
            yield Machine()
    finally:
        ip("netns", "del", name)


UP = (Link("eth0"), Link("eth1"))
LAN = Address("eth0", "10.1.1.1/24")
WAN = Address("eth1", "203.0.113.5/24", announce=True)


def test_a_whole_router_converges_and_is_then_left_alone(machine: Machine) -> None:
    wanted = (
        Sysctl("net.ipv4.ip_forward", "1"),
        Sysctl("net/ipv4/conf/eth0/rp_filter", "2"),
        Sysctl("net.ipv4.ping_group_range", "0 100"),
        Link("eth0", mtu=1400),
        Link("eth1"),
        LAN,
        WAN,
        Address("eth1", "203.0.113.6/32"),
        Address("eth1", "198.51.100.2/31"),
        Route("default", gateway="203.0.113.1", device="eth1"),
        Route("default", 101, gateway="10.9.0.1", device="eth0"),
        Route("10.9.0.1/32", 101, device="eth0"),
        Route("10.9.0.1/32", device="eth0"),
        Route("10.0.0.0/8", 101, "throw"),
        PolicyRule(1000, 101, mark=0x101, mask=0xFFF),
        PolicyRule(1001, 101, "10.1.1.0/24"),
        PolicyRule(1002, 300, "10.1.1.5", 5),
    )

    assert machine.converge(*wanted) == []

    assert "10.1.1.255" in ip("-4", "addr", "show", "dev", "eth0")
    assert [nic.name for nic in nics(machine.ip)] == ["eth0", "eth1"]
    machine.ip.forget()
    machine.children.asked.clear()
    assert machine.plan(state(*wanted)) == []
    assert [argv[3] for argv in machine.children.asked] == ["addr", "route", "rule"]


def test_a_raised_link_is_waited_for_until_it_carries(machine: Machine) -> None:
    ip("link", "set", "p0", "down")
    ip("link", "set", "eth0", "up")
    began = time.monotonic()
    carries(["eth0", "gone"])
    assert CARRIES_S <= time.monotonic() - began < CARRIES_S + 0.2 * SLACK, "no cable costs so much, and no more"

    ip("link", "set", "eth0", "down")
    ip("link", "set", "p0", "up")
    assert machine.converge(*UP, LAN, WAN) == []

    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as asked:
        assert link_flags(asked, "eth0") & RUNNING


def test_drift_is_put_right(machine: Machine) -> None:
    wanted = (*UP, LAN, WAN, Route("default", gateway="203.0.113.1", device="eth1"), PolicyRule(1000, 101, mark=5))
    machine.converge(*wanted)
    ip("addr", "add", "10.66.0.1/24", "dev", "eth0")
    ip("addr", "del", LAN.interface, "dev", "eth0")
    ip("route", "add", "10.50.0.0/16", "via", "203.0.113.9", "proto", "77", "metric", "5", "table", "7")
    ip("route", "add", "blackhole", "10.52.0.0/16", "proto", "77")
    ip("route", "replace", "default", "via", "203.0.113.9", "proto", "77")
    ip("rule", "add", "pref", "1000", "from", "10.0.0.0/8", "table", "9")
    ip("rule", "add", "pref", "1500", "from", "all", "iif", "eth0", "blackhole")
    ip("rule", "add", "pref", "1501", "not", "from", "10.0.0.0/8", "table", "9")
    machine.ip.forget()

    assert machine.converge(*wanted) == []

    assert "10.66" not in ip("addr")
    assert ip("-N", "rule").count("\n") == 4


def test_what_is_not_ours_is_not_touched(machine: Machine) -> None:
    machine.converge(*UP, LAN, WAN)
    ip("addr", "add", "10.7.0.1/24", "dev", "p0")
    ip("addr", "add", "10.8.0.1/24", "dev", "eth0")
    ip("route", "add", "192.0.2.0/24", "via", "10.1.1.9")
    ip("rule", "add", "pref", "2000", "from", "10.0.0.0/8", "table", "9")
    kept = Address("eth0", "10.8.0.1/24", keeper="another daemon")
    machine.ip.forget()

    assert machine.plan(state(*UP, LAN, WAN, kept)) == []
    assert machine.converge(kept) == []

    assert "10.7.0.1" in ip("addr")
    assert "10.8.0.1" in ip("addr")
    assert "2000:" in ip("rule")
    assert " UP " in ip("-o", "link", "show", "eth0").replace(",UP", " UP ").replace(">", " ")


def test_another_hands_default_route_gives_way(machine: Machine) -> None:
    machine.converge(*UP, LAN, WAN)
    ip("route", "add", "default", "via", "10.1.1.9", "proto", "dhcp")

    assert machine.converge(*UP, LAN, WAN, Route("default", gateway="203.0.113.1", device="eth1")) == []

    assert ip("route", "show", "default").split()[:3] == ["default", "via", "203.0.113.1"]
    assert ip("route", "show", "default").count("\n") == 1


def test_a_route_can_change_its_kind(machine: Machine) -> None:
    machine.converge(*UP, LAN, Route("10.9.0.0/16", 101, device="eth0"))

    assert machine.converge(*UP, LAN, Route("10.9.0.0/16", 101, "throw")) == []

    assert ip("route", "show", "table", "101").split()[:2] == ["throw", "10.9.0.0/16"]


def test_a_leased_address_becomes_a_lasting_one(machine: Machine) -> None:
    ip("addr", "add", LAN.interface, "dev", "eth0", "valid_lft", "600", "preferred_lft", "600")

    assert machine.converge(*UP, LAN) == []

    assert "valid_lft forever" in ip("-4", "addr", "show", "dev", "eth0")


@pytest.mark.parametrize("promote", ["0", "1"])
def test_a_removed_primary_costs_no_secondary(machine: Machine, promote: str) -> None:
    Path("/proc/sys/net/ipv4/conf/all/promote_secondaries").write_text(promote)
    Path("/proc/sys/net/ipv4/conf/eth1/promote_secondaries").write_text(promote)
    seconds = [Address("eth1", f"203.0.113.{n}/24") for n in range(10, 20)]
    route = Route("default", gateway="203.0.113.1", device="eth1")
    machine.converge(*UP, WAN, route)
    machine.converge(*UP, WAN, route, *seconds)

    assert machine.converge(*UP, route, *seconds[1:]) == []

    assert ip("addr", "show", "dev", "eth1").count("203.0.113.1") == 2 * len(seconds[1:]) - 9
    assert "203.0.113.5" not in ip("addr")


def test_one_bad_change_stops_no_other_and_is_named(machine: Machine) -> None:
    bad = (
        Sysctl("net.ipv4.no_such_thing", "1"),
        Sysctl("net.ipv4.ip_forward", "many"),
        Link("eth9"),
        Address("eth9", "10.9.0.1/24"),
        Route("10.60.0.0/16", gateway="192.0.2.1", device="eth0"),
        Route("10.61.0.0/16", device="eth1"),
        Route("nonsense", device="eth0"),
        PolicyRule(1000, 101, "nonsense"),
    )
    good = (
        Sysctl("net.ipv4.ip_forward", "1"),
        UP[0],
        Link("eth1", up=False),
        LAN,
        Route("10.62.0.0/16", device="eth0"),
    )

    failures = {failure.key: failure.reason for failure in machine.converge(*good, *bad[:1], *bad[2:])}

    assert failures.keys() == {one.key for one in bad if one is not bad[1]}
    assert failures[bad[0].key] == "this kernel has no such parameter"
    assert "eth9" in failures[bad[2].key]
    assert "not up" in failures[bad[5].key]
    assert {change.key for change in machine.plan(state(*good))} == set()
    assert "Invalid argument" in next(iter(Sysctls().apply([Change(None, bad[1])]))).reason


def test_the_same_change_twice_is_no_failure(machine: Machine) -> None:
    rule, route = PolicyRule(1000, 101, mark=5), Route("10.62.0.0/16", 300, device="eth0")
    machine.converge(*UP, LAN)

    for _ in range(2):
        assert list(PolicyRules(machine.ip).apply([Change(None, rule)])) == []
        assert list(Routes(machine.ip).apply([Change(None, route)])) == []
        assert list(Addresses(machine.ip).apply([Change(None, LAN)])) == []
    for _ in range(2):
        assert list(PolicyRules(machine.ip).apply([Change(rule, None)])) == []
        assert list(Routes(machine.ip).apply([Change(route, None)])) == []
        assert list(Addresses(machine.ip).apply([Change(LAN, None)])) == []


def test_a_new_address_is_announced_once(machine: Machine) -> None:
    machine.converge(*UP)
    with socket.socket(socket.AF_PACKET, socket.SOCK_RAW, socket.htons(0x0806)) as ear:
        ear.bind(("p1", 0x0806))
        ear.settimeout(0.3)

        assert machine.converge(*UP, LAN, WAN, Address("eth1", "203.0.113.6/24")) == []
        assert machine.converge(*UP, LAN, WAN) == []

        heard = []
        with suppress(TimeoutError):
            while True:
                heard.append(ear.recv(2000))

    assert tuple(heard) == frames(bytes.fromhex("020000000002"), "203.0.113.5")


def test_an_announcement_that_cannot_be_made_fails_nothing(machine: Machine) -> None:
    assert machine.converge(Link("eth1", up=False), WAN) == []


def test_looking_at_64_addresses_is_cheap(machine: Machine) -> None:
    wanted = state(
        *UP,
        *(Address("eth1", f"203.0.113.{n}/24") for n in range(2, 66)),
        *(Route(f"10.{n}.0.0/16", 101, gateway="203.0.113.1", device="eth1") for n in range(64)),
        *(PolicyRule(1000 + n, 100 + n, mark=n + 1, mask=0xFFF) for n in range(8)),
    )
    assert machine.converge(*wanted.values()) == []
    taken_s = []
    machine.children.asked.clear()
    for _ in range(9):
        machine.ip.forget()
        before_s = time.perf_counter()
        assert machine.plan(wanted) == []
        taken_s.append(time.perf_counter() - before_s)

    assert len(machine.children.asked) == 9 * 3
    assert sorted(taken_s)[4] < SLACK * 0.2, "a look at the whole network takes milliseconds"


def test_a_link_event_ends_the_wait(machine: Machine) -> None:
    del machine
    assert not netlink.wait_for_link_event(0.05)
    with netlink.LinkEvents() as events:
        ip("link", "set", "eth0", "up")
        assert events.wait(5), "what happened between opening and waiting is not lost"
        while events.wait(1.5):
            pass  # the kernel tells of carriers up to a second later
        for alias in ("one", "two"):
            ip("link", "set", "eth0", "alias", alias)
        assert events.wait(5)
        assert not events.wait(0.2), "a burst is one event"


def test_waiting_for_a_nic_ends_when_it_comes(machine: Machine) -> None:
    def present() -> bool:
        machine.ip.forget()
        return any(nic.name == "eth2" for nic in nics(machine.ip))

    name = f"hfd-{os.getpid()}"
    later = threading.Timer(0.2, ip, ["-n", name, "link", "add", "eth2", "type", "veth", "peer", "name", "p2"])
    later.start()
    before_s = time.monotonic()

    assert netlink.wait_until(present, 10)

    assert time.monotonic() - before_s < 5
    later.join()
    assert not netlink.wait_until(lambda: False, 0.1)


# --- services: a user manager stands in for the system's, in a mount namespace and cgroups of its own ---------


def in_child(story: Callable[[], None]) -> None:
    """Run a story in a forked child, so that its namespaces end with it; fail with its traceback."""
    reader, writer = os.pipe()
    child = os.fork()
    if not child:
        try:
            story()
        except BaseException:  # noqa: BLE001 whatever it was, the parent must hear of it
            os.write(writer, traceback.format_exc().encode()[-60000:])
        finally:
            os._exit(0)
    os.close(writer)
    with os.fdopen(reader) as report:
        said = report.read()
    os.waitpid(child, 0)
    assert not said, said


@contextmanager
def systemd(home: Path) -> Iterator[None]:
    """Run a systemd with /run, home and cgroups of its own; without the last it would move everybody's processes."""
    own = [hierarchy / f"hfd-{os.getpid()}" for hierarchy in CGROUPS if hierarchy.is_dir()]
    for group in own:
        group.mkdir()
        (group / "cgroup.procs").write_text(str(os.getpid()))
    assert LIBC.unshare(CLONE_NEWNS) == 0
    runner.run(["mount", "--make-rprivate", "/"])
    runner.run(["mount", "-t", "tmpfs", "hfd", "/run"])
    for directory in ("/run/systemd/system", "/run/user"):
        Path(directory).mkdir(parents=True, mode=0o700)
    os.environ |= {"XDG_RUNTIME_DIR": "/run/user", "HOME": str(home)}
    manager = subprocess.Popen([SYSTEMD, "--user"], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    try:
        deadline = time.monotonic() + 20
        while _state().strip() not in ("running", "degraded"):
            assert time.monotonic() < deadline, _state()
            time.sleep(0.05)
        yield
    finally:
        manager.terminate()
        manager.wait(20)
        for group in own:
            (group.parent / "cgroup.procs").write_text(str(os.getpid()))
            for inner in sorted((path for path in group.rglob("*") if path.is_dir()), reverse=True):
                inner.rmdir()
            group.rmdir()


def _state() -> str:
    try:
        return systemctl(["systemctl", "is-system-running"])
    except OSError as error:
        return str(error)


def systemctl(argv: Sequence[str], stdin: str = "", *, timeout_s: float = 60) -> str:
    return runner.run([argv[0], "--user", *argv[1:]], stdin, timeout_s=timeout_s)


class Services:
    """Units under a real manager; each service copies the file that it reads when it starts or reloads."""

    def __init__(self, home: Path) -> None:
        self.home = home
        self.conf = File(str(home / "x.conf"), "one", restart="hf-x.service")
        self.units = home / ".config/systemd/user"
        self.units.mkdir(parents=True)
        self.marks = Marks(home / "marks")
        self.write(self.conf)
        self.define("hf-x", f"ExecStartPre=/bin/cp {home}/x.conf {home}/read\nExecStart=/bin/sleep 1000")
        self.define(
            "hf-r",
            f"ExecStart=/bin/sleep 1000\nExecReload=/bin/cp {home}/r.conf {home}/reread",
        )
        self.define("hf-bad", "ExecStart=/bin/false\nRestart=on-failure\nRestartSec=30")

    def define(self, name: str, text: str) -> None:
        (self.units / f"{name}.service").write_text(f"[Service]\n{text}\n")

    @staticmethod
    def write(file: File) -> None:
        fresh = Path(f"{file.path}.new")
        fresh.write_text(file.text)
        fresh.replace(file.path)

    def driver(self) -> Units:
        return Units(self.marks, available=systemd_runs(), run=systemctl)

    def plan(self, *wanted: Resource) -> list[Change]:
        units = state(*self.driver().observe(state(*wanted)))
        return diff(units, state(*(one for one in wanted if isinstance(one, Unit))))

    def converge(self, *wanted: Resource) -> list[str]:
        driver = self.driver()
        desired = state(*wanted)
        changes = diff(state(*driver.observe(desired)), state(*(one for one in wanted if isinstance(one, Unit))))
        return [failure.reason for failure in driver.apply(changes)]

    def invocation(self, name: str) -> str:
        return systemctl(["systemctl", "show", "-p", "InvocationID", "--", name])


@pytest.mark.skipif(not SYSTEMD.exists(), reason="no systemd on this machine")
def test_services_under_a_real_systemd(tmp_path: Path) -> None:
    def story() -> None:
        services = Services(tmp_path)
        with systemd(tmp_path):
            assert systemd_runs()
            _restart_story(services)
            _reload_story(services)
            _trouble_story(services)

    in_child(story)


def _restart_story(services: Services) -> None:
    read = services.home / "read"
    unit = Unit("hf-x.service", running=True, restart="one", files=(services.conf.path,))
    assert services.converge(unit, services.conf) == []
    assert services.plan(unit, services.conf) == []
    first = services.invocation(unit.name)

    two, newer = File(services.conf.path, "two"), Unit(unit.name, running=True, restart="two", files=unit.files)
    services.write(two)
    for text in ("two", "three", "four", "five", "six", "seven", "eight"):  # more often than systemd's start limit
        two, newer = File(two.path, text), Unit(unit.name, running=True, restart=text, files=unit.files)
        services.write(two)
        assert services.converge(newer, two) == []
        assert read.read_text() == text
        assert services.plan(newer, two) == []
    assert services.invocation(unit.name) != first

    # Another hand restarts it: it has read what is there.  Then it forgets nothing about what it has not read.
    time.sleep(0.05)
    systemctl(["systemctl", "reset-failed", unit.name])
    systemctl(["systemctl", "restart", unit.name])
    assert services.plan(newer, two) == []
    services.marks.forget(f"unit.{unit.name}")
    assert services.plan(newer, two) == []
    services.marks.forget(f"unit.{unit.name}")
    services.write(two)
    assert len(services.plan(newer, two)) == 1

    assert services.converge(Unit(unit.name, running=False)) == []
    assert services.plan(Unit(unit.name, running=False)) == []


def _reload_story(services: Services) -> None:
    conf = File(str(services.home / "r.conf"), "one", reload="hf-r.service")
    services.write(conf)
    unit = Unit("hf-r.service", running=True, reload="one", files=(conf.path,))
    assert services.converge(unit, conf) == []
    first = services.invocation(unit.name)

    newer, two = Unit(unit.name, running=True, reload="two", files=unit.files), File(conf.path, "two")
    services.write(two)
    assert services.converge(newer, two) == []

    assert services.invocation(unit.name) == first
    assert (services.home / "reread").read_text() == "two"
    assert services.plan(newer, two) == []


def _trouble_story(services: Services) -> None:
    systemctl(["systemctl", "mask", "hf-m.service"])
    bad, masked, absent = (Unit(f"hf-{name}.service", running=True) for name in ("bad", "m", "absent"))

    reasons = services.converge(bad, masked, absent)

    assert any("hf-m.service is masked" in reason for reason in reasons)
    assert any("hf-absent.service not found" in reason for reason in reasons)
    assert {change.key for change in services.plan(bad, masked, absent)} == {bad.key, masked.key, absent.key}

    off = tuple(Unit(one.name, running=False) for one in (bad, masked, absent))
    assert [change.key for change in services.plan(*off)] == [bad.key], "waiting for a restart is not off"
    assert services.converge(*off) == []
    assert services.plan(*off) == []

    services.define("hf-absent", "ExecStart=/bin/sleep 1000")
    assert services.converge(absent) == []
    services.define("hf-absent", "ExecStart=/bin/sleep 1001")
    assert services.converge(Unit(absent.name, running=True, restart="new")) == []
    assert services.plan(Unit(absent.name, running=True, restart="new")) == []
    assert "sleep 1001" in systemctl(["systemctl", "show", "-p", "ExecStart", "--", absent.name]).replace(";", "")
