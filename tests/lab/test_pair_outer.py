"""A pair's outer nics: whoever loses his yields to a peer that has its own, once."""

import json
import time
from collections.abc import Callable, Iterator

import pytest
from failover import FLOWS, PLANNED_S, UNPLANNED_S, counted, flows, outage_s, repeated, taken_over, truth, watch
from pair import ADVERT_S, IsolatedPair, isolated_pair

from holdfast.lab.router import Router
from holdfast.verdict import NEVER_SEEN_S

pytestmark = [pytest.mark.lab, pytest.mark.alone, pytest.mark.pair]

GONE_S = NEVER_SEEN_S + 3 * PLANNED_S
"""Also outside of a soak: nearly all of it is the wait for another hand, which has no slack."""
ALERT = "yields to its peer: an outer link has no carrier"


@pytest.fixture(scope="module")
def made() -> Iterator[IsolatedPair]:
    with isolated_pair("outer") as made:
        yield made


@pytest.fixture
def pair(made: IsolatedPair) -> IsolatedPair:
    """Both on, one serves, nothing left to do: whatever the test before has done to them."""
    made.ready()
    return made


def anew(pair: IsolatedPair, router: Router) -> None:
    """Let a router forget that it has yielded, which its agent alone knows: its peer could hand over to it at once.

    Who has yielded is no help to its peer for a minute and more, or both would swing.
    """
    pair.ready()
    assert router.shell(["systemctl", "restart", "holdfast-agent.service"]).code == 0
    peer = pair.other(router)

    def able() -> bool:
        return json.loads(peer.read("/run/holdfast/peer.json"))["able"] is True

    peer.eventually(able, "its peer could serve")


def test_a_lost_public_link(pair: IsolatedPair, tell: Callable[[str], None]) -> None:
    def pull() -> None:
        old, new = pair.master, pair.backup
        anew(pair, new)
        alerts = _alerts(old)
        nic = pair.nic(old, pair.public_mac)
        old.carrier(nic, up=False)
        try:
            taken_over(pair, new)
            assert _alerts(old) > alerts
        finally:
            old.carrier(nic, up=True)

    def once() -> float:
        seen = watch(pair, pull)
        tell(str(seen))
        assert seen.lived == FLOWS
        pair.ready()
        truth(pair, pair.master)
        return seen.outage_s

    repeated(tell, "public link lost", UNPLANNED_S, once)


def _alerts(router: Router) -> int:
    return router.shell(["cat", "/var/log/routerServiceMonitor.log"]).text.count(ALERT)


def test_an_outer_nic_that_is_unplugged(pair: IsolatedPair, tell: Callable[[str], None]) -> None:
    """It moves the role once, its return does not, and a peer without its nic is none that could serve."""

    def once() -> float | None:
        one, two = pair.master, pair.backup
        anew(pair, two)
        nic = pair.nic(one, pair.public_mac)
        with pair.lab.probe(flows(pair)) as probe:
            one.unplug(nic)
            taken_over(pair, two)
        assert f"the outer nic {pair.public_mac} is missing" in one.shell(["/usr/sbin/holdfast", "status"]).text
        assert pair.says(one) == "FAULT"
        assert "could not take over" in two.shell(["/usr/sbin/holdfast", "status"]).text
        began = pair.elections()
        assert one.plug(pair.world_segment, pair.public_mac) == nic
        pair.ready()
        time.sleep(2 * ADVERT_S)
        assert pair.elections() == began
        truth(pair, two)
        return None if probe.void else outage_s(probe.counts)

    gone(tell, "outer nic unplugged", once)


@pytest.mark.soak
def test_an_outer_link_that_somebody_sets_down(pair: IsolatedPair, tell: Callable[[str], None]) -> None:
    def once() -> float | None:
        master, backup = pair.master, pair.backup
        anew(pair, backup)
        with pair.lab.probe(flows(pair)) as probe:
            assert master.shell(["ip", "link", "set", pair.nic(master, pair.public_mac), "down"]).code == 0
            taken_over(pair, backup)
        pair.ready()
        truth(pair, backup)
        return None if probe.void else outage_s(probe.counts)

    gone(tell, "outer link set down by hand", once)


def gone(tell: Callable[[str], None], case: str, once: Callable[[], float | None]) -> None:
    """Repeat what is waited for, and hold each run to its bound, whatever else this machine does."""
    outages: list[float] = []

    def run() -> float:
        outages.append(counted(once))
        return outages[-1]

    repeated(tell, case, GONE_S, run)
    assert max(outages) <= GONE_S
