"""A pair's outer nics: whoever loses his yields to a peer that has its own, once."""

import json
import time
from collections.abc import Callable, Iterator

import pytest
from failover import FLOWS, PLANNED_S, UNPLANNED_S, flows, outage_s, taken_over, truth, watch
from pair import ADVERT_S, IsolatedPair, isolated_pair
from slack import SLACK

from holdfast.lab.router import Router
from holdfast.verdict import NEVER_SEEN_S

pytestmark = [pytest.mark.lab, pytest.mark.alone, pytest.mark.pair]

GONE_S = NEVER_SEEN_S + 3 * PLANNED_S
"""Also in a soak: nearly all of it is the wait for another hand, which has no slack."""


@pytest.fixture(scope="module")
def made() -> Iterator[IsolatedPair]:
    with isolated_pair("outer") as made:
        yield made


@pytest.fixture
def pair(made: IsolatedPair) -> IsolatedPair:
    """Both on, one serves, nothing left to do: whatever the test before has done to them."""
    made.ready()
    return made


def test_a_lost_public_link(pair: IsolatedPair, tell: Callable[[str], None]) -> None:
    """Once, also in a soak: who has yielded is no help to its peer for a minute and more, or both would swing."""
    master, backup = pair.master, pair.backup
    nic = pair.nic(master, pair.public_mac)
    try:

        def pull() -> None:
            master.carrier(nic, up=False)
            taken_over(pair, backup)

        seen = watch(pair, pull)
    finally:
        master.carrier(nic, up=True)
    tell(f"public link lost: {seen}")
    assert seen.outage_s <= SLACK * UNPLANNED_S
    assert seen.lived == FLOWS
    truth(pair, backup)
    alerts = master.read("/var/log/routerServiceMonitor.log")
    assert "yields to its peer: an outer link has no carrier" in alerts


def anew(pair: IsolatedPair, router: Router) -> None:
    """Let a router forget that it has yielded, which its agent alone knows: its peer could hand over to it at once."""
    assert router.shell(["systemctl", "restart", "holdfast-agent.service"]).code == 0
    peer = pair.other(router)

    def able() -> bool:
        return json.loads(peer.read("/run/holdfast/peer.json"))["able"] is True

    peer.eventually(able, "its peer could serve")


def test_an_outer_nic_that_is_unplugged(pair: IsolatedPair, tell: Callable[[str], None]) -> None:
    """It moves the role once, its return does not, and a peer without its nic is none that could serve."""
    one, two = pair.master, pair.backup
    anew(pair, two)
    nic = pair.nic(one, pair.public_mac)

    def unplug() -> None:
        one.unplug(nic)
        taken_over(pair, two)

    counts = pair.lab.measure(flows(pair), unplug)
    tell(f"unplugged: outage {outage_s(counts):.2f} s")
    assert outage_s(counts) <= GONE_S
    assert f"the outer nic {pair.public_mac} is missing" in one.shell(["/usr/sbin/holdfast", "status"]).text
    assert pair.says(one) == "FAULT"
    assert "could not take over" in two.shell(["/usr/sbin/holdfast", "status"]).text
    began = pair.elections()
    assert one.plug(pair.world_segment, pair.public_mac) == nic
    pair.ready()
    time.sleep(2 * ADVERT_S)
    assert pair.elections() == began
    truth(pair, two)
    anew(pair, one)


@pytest.mark.soak
def test_an_outer_link_that_somebody_sets_down(pair: IsolatedPair, tell: Callable[[str], None]) -> None:
    master, backup = pair.master, pair.backup
    anew(pair, backup)

    def down() -> None:
        assert master.shell(["ip", "link", "set", pair.nic(master, pair.public_mac), "down"]).code == 0
        taken_over(pair, backup)

    counts = pair.lab.measure(flows(pair), down)
    tell(f"set down: outage {outage_s(counts):.2f} s")
    assert outage_s(counts) <= GONE_S
    truth(pair, backup)
    anew(pair, master)
