"""A promotion, from the start of keepalived's hook to the first packet that is forwarded, and the watchdogs."""

import os
import re
import socket
import statistics
import struct
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from itertools import pairwise
from math import ceil

import pytest
from pair import FAR, IsolatedPair, isolated_pair
from slack import SLACK, SOAK
from streams import Streams
from threads import Beside, in_network
from watching import socket_in

from holdfast import keepalived
from holdfast.lab.router import Router
from holdfast.lab.sentence import eventually
from holdfast.role_report import is_up

pytestmark = [pytest.mark.lab, pytest.mark.alone, pytest.mark.pair]

RUNS = 20 if SOAK else 3
PROMOTION_MS = 60
PLANNED_MS = 100
SIZES = (1_000, 10_000, 100_000) if SOAK else (10_000,)
STREAMS = 50
ENTRIES = "/root/entries"
AGENT = ("holdfast-role.path", "holdfast-role.service", "holdfast-agent.service")
_TICKS = os.sysconf("SC_CLK_TCK")
_SO_TIMESTAMPNS = 35
_BEAT_S = 0.001
_PORT = 6200


@pytest.fixture(scope="module")
def made() -> Iterator[IsolatedPair]:
    with isolated_pair("promotion") as made:
        yield made


@pytest.fixture
def pair(made: IsolatedPair) -> IsolatedPair:
    """Both on, one serves, nothing left to do: whatever the test before has done to them."""
    made.ready()
    return made


class Flow(Beside):
    """One flow of a guest's, a packet each millisecond, and when each came by the receiver's kernel."""

    def __init__(self, pair: IsolatedPair) -> None:
        self.came_ns: list[int] = []
        self._far = socket_in(pair.world, socket.SOCK_DGRAM)
        self._far.bind((FAR, _PORT))
        self._far.setsockopt(socket.SOL_SOCKET, _SO_TIMESTAMPNS, 1)
        self._far.settimeout(0.1)
        self._near = socket_in(pair.web1, socket.SOCK_DGRAM)
        super().__init__(self._send, self._receive, sockets=(self._far, self._near))

    def _send(self) -> None:
        while not self.over.wait(_BEAT_S):
            self._near.sendto(b"beat", (FAR, _PORT))

    def _receive(self) -> None:
        while not self.over.is_set():
            try:
                _, beside, _, _ = self._far.recvmsg(16, 128)
            except TimeoutError:
                continue
            ((_, _, stamp),) = beside
            seconds, nanoseconds = struct.unpack("qq", stamp)
            self.came_ns.append(seconds * 10**9 + nanoseconds)


def began_ns(router: Router) -> int:
    """When the hook of the last word was started, by the machine's clock; up to one tick (10 ms) too early."""
    ticks, _ = router.read("/run/holdfast/role.by").split()
    return time.time_ns() - time.clock_gettime_ns(time.CLOCK_BOOTTIME) + int(ticks) * 10**9 // _TICKS


def track(router: Router, path: str, number: int) -> None:
    assert router.shell(["sh", "-c", f"echo {number} 1<>{path}"]).code == 0


@contextmanager
def without_agent(pair: IsolatedPair) -> Iterator[None]:
    """Nobody converges while this lasts but by command."""
    for router in pair.routers:
        router.shell(["systemctl", "stop", *AGENT])
    try:
        yield
    finally:
        for router in pair.routers:
            router.shell(["systemctl", "start", *AGENT[::2]])


def word(router: Router) -> str:
    return router.read("/run/holdfast/role").strip()


def processes(router: Router, unit: str) -> list[str]:
    """The processes of a unit, its main one first."""
    main = router.shell(["systemctl", "show", "-P", "MainPID", unit]).text.strip()
    return [main, *router.shell(["pgrep", "-P", main]).text.split()]


def rested(pair: IsolatedPair) -> None:
    """Both conntrackd have told each other everything: for seconds after a promotion that is work for a whole core."""
    stats = [(router, f"/proc/{processes(router, 'conntrackd.service')[0]}/stat") for router in pair.routers]

    def spent() -> int:
        """Ticks of user and system time, proc(5)."""
        fields = [router.read(path).rpartition(")")[2].split() for router, path in stats]
        return sum(int(own[11]) + int(own[12]) for own in fields)

    def rest() -> bool:
        before = spent()
        time.sleep(0.3)
        return spent() - before <= 1

    eventually(rest, "conntrackd rests", 30)


def promote(pair: IsolatedPair, flow: Flow, *, converges: bool) -> float:
    """Let the one that serves step back, its outer cable cut; return ms from the peer's hook to the first packet."""
    master, backup = pair.master, pair.backup
    track(backup, keepalived.BOOST, 14)
    time.sleep(0.2)
    eventually(lambda: flow.came_ns and time.time_ns() - flow.came_ns[-1] < 2e8, "packets pass")
    outer = pair.nic(master, pair.public_mac)
    master.carrier(outer, up=False)
    try:
        track(master, keepalived.FAULT, 1)
        backup.eventually(lambda: word(backup) == "MASTER", "serves")
        began = began_ns(backup)
        eventually(lambda: flow.came_ns[-1] > began + 5e8, "packets pass again")
    finally:
        master.carrier(outer, up=True)
        for router, path in ((backup, keepalived.BOOST), (master, keepalived.FAULT)):
            track(router, path, 0)
    master.eventually(lambda: word(master) == "BACKUP", "stands by")
    if not converges:
        for router in (master, backup):
            done = router.shell(["/usr/sbin/holdfast", "converge"])
            assert done.code == 0, done.text + done.errors
    return min(at - began for at in flow.came_ns if at > began) / 1e6


def measured(
    pair: IsolatedPair, tell: Callable[[str], None], case: str, *, converges: bool, amid: bool = False
) -> None:
    """Promotions of a backup, one after another; `amid`: of what the one before has left to be told, too."""
    with ExitStack() as opened:
        streams = opened.enter_context(Streams(pair.web1, pair.world, FAR, 7000, STREAMS))
        pair.told_of(streams)
        if not converges:
            opened.enter_context(without_agent(pair))
        flow = opened.enter_context(Flow(pair))
        took = []
        for _ in range(RUNS):
            if not amid:
                rested(pair)
            took.append(promote(pair, flow, converges=converges))
            if converges:
                pair.ready()
        lived = streams.alive(10)
    middle, late = statistics.median(took), sorted(took)[ceil(0.95 * len(took)) - 1]
    tell(f"promotion, {case}: median {middle:.0f} ms, p95 {late:.0f} ms, {[round(one) for one in took]}")
    assert lived == STREAMS
    assert max(middle, late) <= PROMOTION_MS * SLACK


def test_the_batch_alone_forwards(pair: IsolatedPair, tell: Callable[[str], None]) -> None:
    measured(pair, tell, "without the agent", converges=False)


def test_with_the_agent_it_is_as_quick(pair: IsolatedPair, tell: Callable[[str], None]) -> None:
    measured(pair, tell, "with the agent", converges=True)


def fill(master: Router, entries: int) -> None:
    """Connections of guests', in a burst: those with an address of the routers' would be nobody else's business."""
    lines = "".join(
        f"-A -p tcp --state ESTABLISHED -t 3600 -s 10.70.1.{50 + n % 100} -d 192.0.{n // 50_000}.7 "
        f"--sport {1024 + n % 50_000} --dport 443 -u ASSURED,SEEN_REPLY --src-nat 203.0.113.70:{1024 + n % 50_000}\n"
        for n in range(entries)
    )
    master.write(ENTRIES, lines)
    assert master.shell(["conntrack", "-R", ENTRIES]).code == 0


def held(router: Router) -> int:
    return int(router.read("/proc/sys/net/netfilter/nf_conntrack_count"))


@contextmanager
def holding(pair: IsolatedPair, entries: int) -> Iterator[None]:
    """Both hold so many connections, and do so still at the end."""
    master, backup = pair.master, pair.backup
    fill(master, entries)
    backup.eventually(lambda: held(backup) >= entries, f"holds {entries} connections", 30)
    try:
        yield
        assert min(map(held, pair.routers)) >= entries, "none of them was lost on the way"
    finally:
        for router in pair.routers:
            router.shell(["conntrack", "-F"])


@pytest.mark.parametrize("entries", SIZES)
def test_it_is_as_quick_with_many_connections(entries: int, pair: IsolatedPair, tell: Callable[[str], None]) -> None:
    with holding(pair, entries):
        measured(pair, tell, f"{entries} connections", converges=True)


@pytest.mark.soak
def test_amid_all_that_the_last_one_left_to_be_told(pair: IsolatedPair, tell: Callable[[str], None]) -> None:
    """Each of the two conntrackd works as much as it can then, and two cores are all that both routers have here."""
    with holding(pair, SIZES[-1]):
        measured(pair, tell, f"{SIZES[-1]} connections, being told anew", converges=True, amid=True)


def test_what_conntrackd_cannot_hear_in_a_burst_the_peer_has_soon_after(
    pair: IsolatedPair, tell: Callable[[str], None]
) -> None:
    master, backup = pair.master, pair.backup
    entries = 100_000  # far more than its socket holds
    deaf = processes(master, "conntrackd.service")[0]
    try:
        master.shell(["kill", "-STOP", deaf])
        try:
            fill(master, entries)
        finally:
            master.shell(["kill", "-CONT", deaf])
        began = time.monotonic()
        assert held(backup) < entries
        backup.eventually(lambda: held(backup) >= entries, f"holds {entries} connections", 5 * SLACK)
        tell(f"{entries} connections in a burst, not heard: the peer has them after {time.monotonic() - began:.1f} s")
    finally:
        for router in pair.routers:
            router.shell(["conntrack", "-F"])


def test_a_planned_stop_asks_the_peer_to_take_over_first(pair: IsolatedPair, tell: Callable[[str], None]) -> None:
    gaps, order = [], []
    pair.ready()  # whatever came before: a peer that is not able yet is not asked
    for _ in range(RUNS):
        master, backup = pair.master, pair.backup
        with Flow(pair) as flow:
            time.sleep(0.5)
            assert master.shell(["systemctl", "restart", "keepalived.service"]).code == 0
            backup.eventually(lambda: word(backup) == "MASTER", "serves")  # noqa: B023 at once
            time.sleep(1.0)
        gaps.append(max(after - before for before, after in pairwise(flow.came_ns)) / 1e6)
        order.append([entry.word for entry in pair.entered(master)][-3:])
        pair.ready()
        assert pair.master is backup
    tell(f"planned stop: longest gap {sorted(round(gap) for gap in gaps)} ms")
    assert all(words == ["FAULT", "BACKUP", "BACKUP"] for words in order), (
        f"it stepped back before it was stopped: {order}"
    )
    assert max(gaps) <= PLANNED_MS * SLACK


def test_a_stale_batch_is_refused_and_the_agent_does_it(pair: IsolatedPair) -> None:
    master, backup = pair.master, pair.backup
    text = backup.read("/run/holdfast/promotion")
    backup.write("/run/holdfast/promotion", re.sub("generation [0-9]+", "generation 000000", text))
    with without_agent(pair):
        track(master, keepalived.FAULT, 1)
        try:
            backup.eventually(lambda: word(backup) == "MASTER", "serves")
            assert not pair.outside(backup)
        finally:
            track(master, keepalived.FAULT, 0)
    pair.ready()
    assert pair.master is backup


class Link(Beside):
    """When a router's link went down, by the machine's clock in nanoseconds; 0 while it is up."""

    def __init__(self, router: Router, nic: str) -> None:
        self.down_ns = 0
        self._nic = nic
        self._asked = in_network(router.namespace, lambda: socket.socket(socket.AF_INET, socket.SOCK_DGRAM))
        super().__init__(self._look, sockets=(self._asked,))

    def _look(self) -> None:
        while not self.down_ns and not self.over.wait(_BEAT_S):
            if not is_up(self._asked, self._nic):
                self.down_ns = time.time_ns()


@pytest.mark.appliance
def test_who_yields_to_one_that_serves_stops_at_once(pair: IsolatedPair, tell: Callable[[str], None]) -> None:
    """The agent does not run: it would take some tenths of a second, with two outer links of one MAC up meanwhile."""
    took = []
    for _ in range(RUNS):
        backup = pair.backup
        pair.lab.partition(pair.guests, [backup])
        backup.eventually(lambda: pair.outside(backup), "serves too", 15)  # noqa: B023 at once
        with without_agent(pair), ExitStack() as opened:
            links = [opened.enter_context(Link(one, pair.nic(one, pair.public_mac))) for one in pair.routers]
            pair.lab.heal(pair.guests)
            eventually(lambda: any(link.down_ns for link in links), "one of them stops", 5)  # noqa: B023 at once
            old = next(one for one, link in zip(pair.routers, links, strict=True) if link.down_ns)
            old.eventually(lambda: word(old) == "BACKUP", "stands by")  # noqa: B023 at once
            took.append((max(link.down_ns for link in links) - began_ns(old)) / 1e6)
        pair.ready()
    tell(f"from keepalived's hook to the outer link's end: {sorted(round(one) for one in took)} ms")
    assert max(took) <= PROMOTION_MS * SLACK


@pytest.mark.parametrize(("unit", "which"), [("keepalived.service", -1), ("conntrackd.service", 0)])
def test_one_that_hangs_is_killed_and_comes_back(unit: str, which: int, pair: IsolatedPair) -> None:
    master, backup = pair.master, pair.backup
    hung = processes(master, unit)[which]
    words = len(pair.entered(backup))
    began = time.monotonic()
    assert master.shell(["kill", "-STOP", hung]).code == 0
    master.eventually(lambda: hung not in processes(master, unit), "the one that hung is gone", 25)
    assert time.monotonic() - began > 5
    master.eventually(lambda: master.active(unit), "there is another one", 15)
    assert "watchdog" in master.shell(["journalctl", "--no-pager", "-u", unit, "-n", "50"]).text.lower()
    pair.ready()
    if unit == "conntrackd.service":
        assert len(pair.entered(backup)) == words, "no election"
        assert pair.master is master


@pytest.mark.appliance
def test_a_keepalived_that_takes_no_text_is_ended_and_comes_back(
    pair: IsolatedPair, tell: Callable[[str], None]
) -> None:
    master, backup = pair.master, pair.backup
    reader = processes(master, "keepalived.service")[0]
    assert master.shell(["kill", "-STOP", reader]).code == 0
    began = time.monotonic()
    assert master.shell(["systemctl", "reload", "keepalived.service"]).code == 0
    backup.eventually(lambda: word(backup) == "MASTER", "serves: nothing is left of the one that hung", 30)
    tell(f"the peer serves {time.monotonic() - began:.1f} s after the text that keepalived did not take")
    master.eventually(lambda: master.active("keepalived.service"), "there is another one", 15)
    assert "keepalived hangs" in master.read("/var/log/routerServiceMonitor.log")
    pair.ready()


def test_the_watchdogs_let_those_live_that_are_well(pair: IsolatedPair) -> None:
    before = [processes(router, unit) for router in pair.routers for unit in ("keepalived", "conntrackd")]
    elections = pair.elections()
    time.sleep(13)
    assert [processes(router, unit)[:2] for router in pair.routers for unit in ("keepalived", "conntrackd")] == [
        one[:2] for one in before
    ]
    assert pair.elections() == elections
