"""An isolated network's pair: whatever happens to the router that serves, the other one does, and its guests go on."""

import json
import re
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from functools import partial
from math import inf

import pytest
from failover import (
    DETECTION_S,
    FAST_DETECTION_S,
    FLOWS,
    HEALED_S,
    IDLE,
    PLANNED_S,
    RUNS,
    TWO_S,
    UNPLANNED_S,
    Ears,
    counted,
    flows,
    lost,
    measured,
    outage_s,
    overlap_and_gap,
    reigns,
    repeated,
    serves_guests,
    summed,
    taken_over,
    truth,
    watch,
)
from pair import ADVERT_S, FAR, IsolatedPair, isolated_pair
from slack import SLACK
from streams import Streams

from holdfast.lab.router import Router

pytestmark = [pytest.mark.lab, pytest.mark.alone, pytest.mark.pair]

FAST_S = 0.1
ANNOUNCED_S = 1.0
TERMS = (13, 14)


@pytest.fixture(scope="module")
def made() -> Iterator[IsolatedPair]:
    with isolated_pair("pair") as made:
        yield made


@pytest.fixture
def pair(made: IsolatedPair) -> IsolatedPair:
    """Both on, one serves, nothing left to do: whatever the test before has done to them."""
    made.ready()
    return made


def outage(pair: IsolatedPair, tell: Callable[[str], None], happening: Callable[[], object]) -> float:
    """Seconds without service, where every connection has to live on."""
    seen = watch(pair, happening)
    tell(str(seen))
    assert seen.lived == FLOWS, str(seen)
    return seen.outage_s


def cut(pair: IsolatedPair) -> None:
    """Take the power from the one that serves."""
    master, backup = pair.master, pair.backup
    master.power_cut()
    taken_over(pair, backup)


def test_of_two_that_boot_at_the_same_moment_one_serves(pair: IsolatedPair, tell: Callable[[str], None]) -> None:
    firsts: list[float] = []

    def once() -> float:
        for router in pair.routers:
            router.power_cut()
        began = time.time()
        pair.boot()
        master = pair.master
        firsts.append(min(entry.at - began for entry in pair.entered(master) if entry.word == "MASTER"))
        pair.ready()
        now = time.time()
        both, _ = overlap_and_gap([reigns(pair.entered(router), now) for router in pair.routers], began, now)
        tell(f"master {firsts[-1]:.2f} s after power on, {pair.elections()} states entered by both")
        truth(pair, master)
        serves_guests(pair, master)
        return both

    repeated(tell, "both booted at once: two serve", TWO_S, once)
    summed(tell, "both booted at once: one serves after power on", firsts)


def test_a_power_cut_of_the_one_that_serves(pair: IsolatedPair, tell: Callable[[str], None]) -> None:
    repeated(tell, "power cut", DETECTION_S, lambda: outage(pair, tell, lambda: cut(pair)))
    (master,) = pair.serving()
    truth(pair, master)
    serves_guests(pair, master)


def test_the_old_one_comes_back_and_stays_backup(pair: IsolatedPair, tell: Callable[[str], None]) -> None:
    old, new = pair.master, pair.backup
    old.power_cut()
    taken_over(pair, new)
    began = len(pair.entered(new))

    def come_back() -> None:
        if old.running:
            old.power_cut()
        pair.boot(old)
        time.sleep(2 * ADVERT_S)

    counts = pair.lab.measure(flows(pair), come_back)
    tell(f"lost {lost(counts)}, entered {[entry.word for entry in pair.entered(old)]}")
    assert lost(counts) == [0] * len(counts)
    assert len(pair.entered(new)) == began
    truth(pair, new)


def test_an_orderly_stop_of_the_one_that_serves(pair: IsolatedPair, tell: Callable[[str], None]) -> None:
    def stop() -> None:
        master, backup = pair.master, pair.backup
        master.shutdown()
        taken_over(pair, backup)

    repeated(tell, "orderly stop", PLANNED_S, lambda: outage(pair, tell, stop))


def test_a_true_death_of_keepalived(pair: IsolatedPair, tell: Callable[[str], None]) -> None:
    """The parent can't pass it on and the child can't say farewell: the addresses stay behind."""

    def kill() -> None:
        master = pair.master
        parent = master.shell(["systemctl", "show", "-p", "MainPID", "--value", "keepalived"]).text.strip()
        child = master.shell(["pgrep", "-P", parent]).text.split()
        assert int(parent) > 1
        assert child
        for signal, pids in (("STOP", [parent]), ("KILL", child), ("KILL", [parent])):
            assert master.shell(["kill", f"-{signal}", *pids]).code == 0
        time.sleep(DETECTION_S + 2)

    repeated(tell, "death of keepalived", UNPLANNED_S, lambda: outage(pair, tell, kill))
    tell(str([[entry.word for entry in pair.entered(router)] for router in pair.routers]))
    truth(pair, pair.master)


def agent(router: Router) -> str:
    """The resident agent's process."""
    return router.shell(["systemctl", "show", "-p", "MainPID", "--value", "holdfast-agent"]).text.strip()


def another(router: Router, old: str) -> bool:
    """Whether an agent other than the old one is up."""
    return router.active("holdfast-agent.service") and agent(router) not in ("0", old)


def test_the_death_of_the_agent_is_noticed_by_nobody(pair: IsolatedPair, tell: Callable[[str], None]) -> None:
    def kill() -> None:
        for router in pair.routers:
            old = agent(router)
            assert int(old) > 1
            assert router.shell(["kill", "-KILL", old]).code == 0
            router.eventually(partial(another, router, old), "has another agent")

    for _ in range(RUNS):
        before = [pair.entered(router) for router in pair.routers]
        seen = watch(pair, kill)
        tell(str(seen))
        assert (lost(seen.counts), seen.lived) == ([0] * len(seen.counts), FLOWS)
        assert [pair.entered(router) for router in pair.routers] == before
        pair.ready()


def healed(pair: IsolatedPair, tell: Callable[[str], None]) -> tuple[float, float] | None:
    """Cut the guest network until both serve, and heal it: seconds until one serves, and from then until it has told
    guests and the world where it is.  None where the count of packets is void.
    """
    pair.ready()
    backup = pair.backup
    with ExitStack() as cut, ExitStack() as opened:
        pair.lab.partition(pair.guests, [backup])
        cut.callback(pair.lab.heal, pair.guests)
        backup.eventually(lambda: len(pair.serving()) == 2, "serves too", 3 * DETECTION_S)
        time.sleep(0.5)
        outer, inner = (opened.enter_context(Ears(host, "eth0")) for host in (pair.world, pair.web1))
        with pair.lab.probe(flows(pair)) as probe:
            began = time.time()
            cut.close()
            pair.settles()
            time.sleep(1.5 * ANNOUNCED_S)
    after = {router.name: [(e.at - began, e.word) for e in pair.entered(router)] for router in pair.routers}
    alone = max((at for entries in after.values() for at, _ in entries), default=0.0)
    (master,) = pair.serving()
    told = (
        next((a.at for a in inner.of(pair.gateway, began + alone) if a.mac == pair.mac(master)), inf) - began,
        next((a.at for a in outer.of(pair.source_nat, began + alone)), inf) - began,
    )
    tell(f"outage {outage_s(probe.counts):.2f} s; {after}; announced inside and outside {told}")
    if probe.void:
        return None
    assert outage_s(probe.counts) <= SLACK * HEALED_S
    return alone, max(told) - alone


def test_two_serve_only_while_the_guest_network_is_cut(pair: IsolatedPair, tell: Callable[[str], None]) -> None:
    times = [counted(lambda: healed(pair, tell)) for _ in range(RUNS)]
    measured(tell, "one serves after a cut was healed", HEALED_S, [alone for alone, _ in times])
    measured(tell, "announced after a cut was healed", ANNOUNCED_S, [told for _, told in times])
    truth(pair, pair.master)
    pair.world.serve(6100)
    pair.web1.reaches(FAR, 6100)


def rank(router: Router, ours: int | None = None) -> int:
    """How often a router says that it was promoted; `ours`: let it say so."""
    path = "/run/holdfast/vrrp/term"
    if ours is not None:
        assert router.shell(["sh", "-c", f"echo {ours} >{path}"]).code == 0
    return int(router.read(path))


def test_the_count_of_promotions_comes_to_its_end_and_starts_again(
    pair: IsolatedPair, tell: Callable[[str], None]
) -> None:
    """At its end both claim the same rank at most: still one serves, and it is agreed upon anew."""
    rank(pair.master, TERMS[1])
    rank(pair.backup, TERMS[0])
    for _ in range(max(3, RUNS)):
        promoted = pair.backup
        pair.hand_over()
        pair.ready()
        found = {router.name: rank(router) for router in pair.routers}
        tell(str(found))
        assert pair.master is promoted
        assert rank(promoted) > rank(pair.other(promoted))
        assert max(found.values()) <= TERMS[1]


def test_who_was_told_first_makes_no_difference(pair: IsolatedPair) -> None:
    """The same message to the second router first: both say the same to keepalived."""
    path = "/etc/keepalived/keepalived.conf"
    first, second = (router.read(path) for router in pair.routers)
    assert first == second
    pair.routers = (pair.routers[1], pair.routers[0])
    try:
        pair.associate(pair.source_nat, pair.forwards, "203.0.113.73")
        pair.associate(pair.source_nat, pair.forwards)
    finally:
        pair.routers = (pair.routers[1], pair.routers[0])
    assert [router.read(path) for router in pair.routers] == [first, second]


def test_the_count_notices_a_pair_that_shares_no_connections(pair: IsolatedPair, tell: Callable[[str], None]) -> None:
    """Whoever says that all connections lived has to be able to see them die."""
    for router in pair.routers:
        # Stopped by hand it would be drift, and soon run again.
        assert router.run("manage_service.sh", "stop", "conntrackd").code == 0
    master, backup = pair.master, pair.backup
    # Connections of the tests before have ended, and would match where a new one comes by the same ports.
    assert backup.shell(["conntrack", "-F"]).code == 0
    with Streams(pair.web1, pair.world, FAR, 7000, IDLE) as idle:
        master.power_cut()
        taken_over(pair, backup)
        lived = idle.alive(2.0)
    assert backup.run("manage_service.sh", "start", "conntrackd").code == 0
    tell(f"{lived} of {IDLE} lived")
    assert lived == 0


def test_a_power_cut_with_adverts_of_a_tenth_of_a_second(pair: IsolatedPair, tell: Callable[[str], None]) -> None:
    """The setting is changed while both run, which is no reason for two to serve, or none for long."""

    def beat(seconds: float) -> None:
        for router in pair.routers:
            router.write("/etc/holdfast/settings.json", json.dumps({"advert_s": seconds}))
        for router in pair.routers:
            done = router.shell(["/usr/sbin/holdfast", "converge"])
            assert done.code == 0, done.text + done.errors
        pair.ready()
        for router in pair.routers:
            found = re.search(r"advert_int (\S+)", router.read("/etc/keepalived/keepalived.conf"))
            assert found
            assert float(found[1]) == (seconds or ADVERT_S)

    beat(FAST_S)
    repeated(tell, "power cut, adverts of 0.1 s", FAST_DETECTION_S, lambda: outage(pair, tell, lambda: cut(pair)))
    pair.ready()
    beat(0)
