"""A router that stands still for a while, and wakes up believing that it serves: who was promoted meanwhile goes on."""

import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack

import pytest
from failover import DETECTION_S, RUNS, Ears, flows, lost, measured, outage_s, repeated, truth
from pair import ADVERT_S, FAR, IsolatedPair, isolated_pair
from slack import SLACK, SOAK
from streams import Streams

from holdfast.lab.router import Router

pytestmark = [pytest.mark.lab, pytest.mark.alone, pytest.mark.pair]

YIELDED_S = ADVERT_S + 0.1
ANNOUNCED_S = 1.0
SHORT_S = 1
PAUSE_S = 10.0
LONG_S = (5, 30) if SOAK else (5,)
OUT, INWARD = 100, 50
RETRANSMISSION_S = 10.0
LOWER, HIGHER = 0, 1
"""Which of the pair: VRRP lets the higher address win where both claim the same rank."""


@pytest.fixture(scope="module")
def made() -> Iterator[IsolatedPair]:
    with isolated_pair("stun") as made:
        yield made


@pytest.fixture
def pair(made: IsolatedPair) -> IsolatedPair:
    """Both on, one serves, nothing left to do: whatever the test before has done to them."""
    made.ready()
    return made


def serving(pair: IsolatedPair, which: int) -> tuple[Router, Router]:
    """Let this one serve; it and its peer."""
    pair.ready()
    if pair.master is not pair.routers[which]:
        pair.hand_over()
        pair.ready()
    assert pair.master is pair.routers[which]
    return pair.routers[which], pair.routers[1 - which]


def pause(router: Router, seconds: float, *, hangs: bool) -> float:
    """Let a router stand still; when it woke up."""
    (router.hang if hangs else router.stun)()
    try:
        time.sleep(seconds)
    finally:
        woken = time.time()
        (router.resume if hangs else router.wake)()
    return woken


@pytest.mark.parametrize("which", [LOWER, HIGHER], ids=["lower", "higher"])
def test_a_short_one_is_no_election(pair: IsolatedPair, which: int, tell: Callable[[str], None]) -> None:
    for _ in range(RUNS):
        old, _ = serving(pair, which)
        before = [pair.entered(router) for router in pair.routers]
        with Streams(pair.web1, pair.world, FAR, 7000, OUT) as out:
            with pair.lab.probe(flows(pair)) as probe:
                pause(old, SHORT_S, hangs=False)
                time.sleep(2 * ADVERT_S)
            lived = out.alive(RETRANSMISSION_S)
        tell(f"outage {outage_s(probe.counts):.2f} s, {lived} of {OUT} lived")
        assert [pair.entered(router) for router in pair.routers] == before
        assert lived == OUT
        truth(pair, old)


@pytest.mark.parametrize("which", [LOWER, HIGHER], ids=["lower", "higher"])
@pytest.mark.parametrize("seconds", LONG_S)
@pytest.mark.parametrize("hangs", [False, True], ids=["stunned", "hangs"])
def test_a_long_one_yields_to_the_one_promoted_meanwhile(
    pair: IsolatedPair, tell: Callable[[str], None], *, hangs: bool, seconds: int, which: int
) -> None:
    """Hanging, its kernel goes on: it forwards, answers ARP and has its addresses while the other one has them too."""
    name = f"{'hung' if hangs else 'stunned'} {seconds} s, {('lower', 'higher')[which]} address"
    announced: list[float] = []

    def once() -> float:
        old, new = serving(pair, which)
        with ExitStack() as opened:
            out = opened.enter_context(Streams(pair.web1, pair.world, FAR, 7000, OUT))
            inward = opened.enter_context(Streams(pair.world, pair.web1, pair.forwards, 5003, INWARD))
            outer, inner = (opened.enter_context(Ears(host, "eth0")) for host in (pair.world, pair.web1))
            pair.told_of(out, inward)
            with pair.lab.probe(flows(pair)) as probe:
                woken = pause(old, seconds, hangs=hangs)
                pair.settles()
                time.sleep(1.5 * ANNOUNCED_S)
            lived = out.alive(RETRANSMISSION_S) + inward.alive(RETRANSMISSION_S)
            after = {router.name: [e for e in pair.entered(router) if e.at >= woken] for router in pair.routers}
            yielded = pair.yielded(old, woken)
            story = {n: [(round(e.at - woken, 3), e.word) for e in entries] for n, entries in after.items()}
            tell(f"{name}: outage {outage_s(probe.counts):.2f} s, lost {lost(probe.counts)}; {story}; {lived} lived")
            assert yielded, story
            assert after[new.name] == [], story
            assert lived == OUT + INWARD
            assert outage_s(probe.counts) <= SLACK * DETECTION_S
            at_home = [a for a in inner.of(pair.gateway, yielded) if a.mac == pair.mac(new)]
            abroad = outer.of(pair.source_nat, yielded)
            assert at_home, f"nobody told the guests again: {inner.of(pair.gateway, woken)}"
            assert abroad, f"nobody told the world again: {outer.of(pair.source_nat, woken)}"
            announced.append(max(at_home[0].at, abroad[0].at) - yielded)
        # Who hung may have been ended by a watchdog, and is a second one again only after keepalived's pause.
        old.eventually(lambda: old.active("keepalived.service"), "stands by", PAUSE_S)
        truth(pair, new)
        return yielded - woken

    repeated(tell, name, YIELDED_S, once)
    measured(tell, f"{name}: announced", ANNOUNCED_S, announced)
