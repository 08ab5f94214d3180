"""Tiers of a VPC's pair come and go: none of it is an election but the end of the one that they elect over."""

import itertools
import json
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import NamedTuple

import pytest
from failover import RUNS, lost, outage_s, overlap_and_gap, reigns, repeated
from pair import ADVERT_S, FAR, VpcPair, vpc_pair
from slack import SOAK
from streams import Streams

from holdfast.lab.probe import Flow
from holdfast.lab.router import Router

pytestmark = [pytest.mark.lab, pytest.mark.alone, pytest.mark.pair]

OLDEST, KEPT = 2, 4
"""The tier that they elect over, and the one whose guests go on."""
FIRST, MIDDLE, LAST = 1, 3, 5
NEWEST_NETWORK = 790
OVERLAP_S, GAP_S = 0.3, 1.0
UNSEEN_S, LONG_S = 1.0, 7.0
"""For how long two may serve that cannot hear each other's adverts, and what is longer than any of their patience."""
FAST_S = 0.1
TOLD = list(itertools.product((True, False), (0, 5, 60))) if SOAK else [(True, 0), (False, 5)]
"""Whether the master is told first, and how many seconds later the other one is."""
IDLE = 50
RETRANSMISSION_S = 10.0


@pytest.fixture(scope="module")
def made() -> Iterator[VpcPair]:
    with vpc_pair("move", (OLDEST, KEPT)) as made:
        # The lowest address of all, and yet the newest network.
        made.networks[FIRST] = NEWEST_NETWORK
        yield made


@pytest.fixture
def pair(made: VpcPair) -> VpcPair:
    """Both on, one serves, nothing left to do."""
    made.ready()
    return made


def flows(pair: VpcPair) -> list[Flow]:
    """Out of the tiers that stay, and from one to the other."""
    return [
        Flow(pair.vms[OLDEST], pair.world, 6000, address=FAR),
        Flow(pair.vms[KEPT], pair.world, 6001, "new", FAR),
        Flow(pair.vms[OLDEST], pair.vms[KEPT], 6002),
    ]


@pytest.mark.parametrize("tier", [FIRST, MIDDLE, LAST], ids=["first", "middle", "last"])
def test_a_tier_comes_and_goes_unnoticed_by_the_others(pair: VpcPair, tier: int, tell: Callable[[str], None]) -> None:
    def come_and_go() -> None:
        pair.tier(tier)
        time.sleep(ADVERT_S)
        pair.tier(tier, add=False)
        pair.unplug(tier)
        time.sleep(ADVERT_S)

    for _ in range(RUNS):
        before = [pair.entered(router) for router in pair.routers]
        counts = pair.lab.measure(flows(pair), come_and_go)
        tell(f"lost {lost(counts)} of {[count.sent for count in counts]}")
        assert [pair.entered(router) for router in pair.routers] == before
        assert lost(counts) == [0] * len(counts)


class Moved(NamedTuple):
    """For how long both were master, or neither, by keepalived's journal; and the guests' longest outage."""

    both_s: float
    neither_s: float
    outage_s: float


def watch(pair: VpcPair, order: Sequence[int], apart_s: float, step: Callable[[int], None]) -> Moved:
    """Let both routers be told, one `apart_s` seconds after the other, while the other tier's guests are in touch."""
    with Streams(pair.vms[KEPT], pair.world, FAR, 7000, IDLE) as idle:
        pair.told_of(idle)
        steady = [
            Flow(pair.vms[KEPT], pair.world, 6000, address=FAR),
            Flow(pair.vms[KEPT], pair.world, 6001, "new", FAR),
        ]
        with pair.lab.probe(steady) as probe:
            since = time.time()
            with ThreadPoolExecutor(2) as senders:
                first = senders.submit(step, order[0])
                time.sleep(apart_s)
                second = senders.submit(step, order[1])
                first.result()
                second.result()
            pair.settles()
            time.sleep(2 * ADVERT_S)
            until = time.time()
        lived = idle.alive(RETRANSMISSION_S)
    assert lived == IDLE
    for router in pair.routers:
        pair.idle(router)
    both, neither = overlap_and_gap([reigns(pair.entered(router), until) for router in pair.routers], since, until)
    return Moved(both, neither, outage_s(probe.counts))


def gone(pair: VpcPair, number: int) -> None:
    """One router is told that the oldest tier is no more, and loses its nic."""
    router: Router = pair.routers[number]
    pair.command_one(number, "guest_network", pair.network(OLDEST, number, add=False))
    router.unplug(pair.nic(router, pair.mac(OLDEST, number)))


def back(pair: VpcPair, number: int) -> None:
    """One router is told of it again: its number is older than all others', as that of a network that was only shut."""
    pair.command_one(number, "guest_network", pair.network(OLDEST, number))


def within(tell: Callable[[str], None], case: str, move: Callable[[], Moved]) -> None:
    seen: list[Moved] = []

    def once() -> float:
        seen.append(move())
        return max(seen[-1].neither_s, seen[-1].outage_s)

    repeated(tell, f"{case}: nobody serves", GAP_S, once)
    again = iter(seen)
    repeated(tell, f"{case}: both serve", OVERLAP_S, lambda: next(again).both_s)


@pytest.mark.parametrize(("master_first", "apart_s"), TOLD)
def test_the_oldest_tier_goes_and_comes_back(
    pair: VpcPair, tell: Callable[[str], None], *, apart_s: float, master_first: bool
) -> None:
    """Routers that elect over different nics do not hear each other, and still there is one master all the time."""

    def order() -> list[int]:
        pair.ready()
        master = pair.routers.index(pair.master)
        return [master, 1 - master] if master_first else [1 - master, master]

    def cycle() -> Moved:
        removed = watch(pair, order(), apart_s, lambda number: gone(pair, number))
        pair.ready()
        tell(f"removed: {removed}")
        pair.plug(OLDEST)
        returned = watch(pair, order(), min(apart_s, 5), lambda number: back(pair, number))
        tell(f"returned: {returned}")
        return Moved(*map(max, zip(removed, returned, strict=True)))

    within(tell, f"oldest tier, told {apart_s} s apart, {'master' if master_first else 'backup'} first", cycle)


def beat(router: Router, seconds: float) -> None:
    """Tell one router of another interval; 0 is what its boot line says."""
    router.write("/etc/holdfast/settings.json", json.dumps({"advert_s": seconds}))
    done = router.shell(["/usr/sbin/holdfast", "converge"])
    assert done.code == 0, done.text + done.errors


def held(router: Router) -> bool:
    """Whether a router holds itself back."""
    return router.read("/run/holdfast/vrrp/hold").strip() not in ("", "0")


@pytest.mark.appliance
@pytest.mark.parametrize("taken_back", [True, False], ids=["taken-back", "told-to-the-other-too"])
def test_a_router_that_boots_on_other_ground_serves_beside_nobody(
    pair: VpcPair, tell: Callable[[str], None], *, taken_back: bool
) -> None:
    """Its /run is empty: nothing there says that it was holding itself back, and keepalived hears no adverts."""
    master, backup = pair.master, pair.backup
    beat(backup, FAST_S)
    assert held(backup)
    since = time.time()
    backup.power_cut()
    pair.boot(backup)
    time.sleep(LONG_S)
    now = time.time()
    words = {router.name: [entry.word for entry in pair.entered(router)] for router in pair.routers}
    both, neither = overlap_and_gap([reigns(pair.entered(router), now) for router in pair.routers], since, now)
    serving = [router for router in pair.routers if not held(router)]
    tell(f"both {both:.2f} s, neither {neither:.2f} s; {words}; served before: {master.name}")
    assert both <= UNSEEN_S
    assert pair.serving() == serving
    assert len(serving) == 1

    beat(backup if taken_back else master, 0 if taken_back else FAST_S)
    pair.ready()
    assert [held(router) for router in pair.routers] == [False, False]
    if not taken_back:
        beat(pair.backup, 0)
        beat(pair.master, 0)
        pair.ready()
