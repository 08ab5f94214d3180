"""A VPC's pair: tiers come and go on both routers, and none of it is an election."""

import time
from collections.abc import Callable, Iterator
from functools import partial

import pytest
from failover import counted, repeated
from pair import ADVERT_S, FAR, VpcPair, vpc_pair
from slack import SLACK
from streams import Streams

from holdfast.lab.probe import Flow
from holdfast.lab.router import Router

pytestmark = [pytest.mark.lab, pytest.mark.alone, pytest.mark.pair]

SETTLED_S = 3.0 * ADVERT_S
DETECTION_S = 3.5 * ADVERT_S
RETRANSMISSION_S = 10.0
IDLE = 100
BURST = range(1, 13)
ELECTED = 1
NOTICED_S = 1.0


@pytest.fixture(scope="module")
def pair() -> Iterator[VpcPair]:
    with vpc_pair("vpair") as pair:
        yield pair


def flows(pair: VpcPair) -> list[Flow]:
    """Out of both tiers, and from one to the other."""
    return [
        Flow(pair.vms[1], pair.world, 6000, address=FAR),
        Flow(pair.vms[2], pair.world, 6001, "new", FAR),
        Flow(pair.vms[1], pair.vms[2], 6002),
    ]


def test_the_numbers_of_nics_differ(pair: VpcPair) -> None:
    """What the tests here are about is not that both routers look the same."""
    first, second = ({port.mac: name for name, port in router.ports.items()} for router in pair.routers)
    assert first[pair.mac(1, 0)] != second[pair.mac(1, 1)]


def test_a_tier_comes_and_goes_unnoticed_by_the_others(pair: VpcPair, tell: Callable[[str], None]) -> None:
    pair.ready()
    before = [pair.entered(router) for router in pair.routers]
    took = len(pair.seconds)

    def come_and_go() -> None:
        pair.tier(3)
        pair.open(3)
        time.sleep(ADVERT_S)
        pair.tier(3, add=False)
        pair.unplug(3)
        time.sleep(ADVERT_S)

    counts = pair.lab.measure(flows(pair), come_and_go)
    elections = [pair.entered(router) for router in pair.routers]
    tell(
        f"lost {[count.lost for count in counts]} of {[count.sent for count in counts]}, silence"
        f" {max(count.silence_s for count in counts) * 1000:.0f} ms, commands up to {max(pair.seconds[took:]):.2f} s"
    )
    assert elections == before
    assert [count.lost for count in counts] == [0] * len(counts)


def test_connections_of_all_tiers_live_on_whatever_the_nics_are_called(
    pair: VpcPair, tell: Callable[[str], None]
) -> None:
    repeated(tell, "power cut in a VPC", DETECTION_S, lambda: counted(lambda: cut(pair, tell)))


def cut(pair: VpcPair, tell: Callable[[str], None]) -> float | None:
    """Take the power from the one that serves: the longest silence of guests in all tiers, None where it is void."""
    pair.ready()
    master, backup = pair.master, pair.backup
    with (
        Streams(pair.vms[1], pair.world, FAR, 7000, IDLE) as outward,
        Streams(pair.vms[2], pair.vms[1], "10.71.1.10", 7001, IDLE) as between,
    ):
        pair.told_of(outward, between)
        with pair.lab.probe(flows(pair)) as probe:
            master.power_cut()
            pair.settles(3 * DETECTION_S)
            time.sleep(1.0)
        lived = outward.alive(RETRANSMISSION_S), between.alive(RETRANSMISSION_S)
    silences = [round(count.silence_s, 2) for count in probe.counts]
    tell(f"outage {silences} s, lived {lived[0]}/{IDLE} out of a tier and {lived[1]}/{IDLE} between tiers")
    assert lived == (IDLE, IDLE)
    assert pair.says(backup) == "PRIMARY"
    pair.ready()
    assert pair.says(master) == "BACKUP"
    return None if probe.void else max(silences)


def test_two_that_serve_are_noticed_where_another_tier_connects_them(
    pair: VpcPair, tell: Callable[[str], None]
) -> None:
    repeated(tell, "two masters named by both, another tier connects them", NOTICED_S, lambda: split(pair))


def split(pair: VpcPair) -> float:
    """Cut the segment alone that they elect over: seconds until both have named two masters."""
    pair.ready()
    backup = pair.backup
    named = [len(_named(router, pair.other(router))) for router in pair.routers]
    pair.lab.partition(pair.segment(ELECTED), [backup])
    try:
        backup.eventually(lambda: "MASTER" in _role(backup), "serves too", 3 * DETECTION_S)
        second = max(entry.at for entry in pair.entered(backup))
        told = [
            _noticed(router, pair.other(router), before)
            for router, before in sorted(zip(pair.routers, named, strict=True), key=lambda each: each[0] is backup)
        ]
        for router in pair.routers:
            assert "two masters for" in router.shell(["/usr/sbin/holdfast", "status"]).text
            assert "MASTER" in _role(router), "who is told of it elects nobody"
    finally:
        pair.lab.heal(pair.segment(ELECTED))
    pair.ready()
    for router in pair.routers:
        assert "two masters for" not in router.shell(["/usr/sbin/holdfast", "status"]).text
    return max(told) - second


def _role(router: Router) -> str:
    return router.read("/run/holdfast/role")


def _named(router: Router, peer: Router) -> list[str]:
    """What a router has told its management server of two masters."""
    name = peer.shell(["hostname"]).text.strip()
    alerts = router.shell(["cat", "/var/log/routerServiceMonitor.log"]).text.splitlines()
    return [line for line in alerts if f"two masters: this router and {name} both serve" in line]


def _noticed(router: Router, peer: Router, before: int) -> float:
    """When a router told its management server that both serve, once more than before."""
    router.eventually(lambda: len(_named(router, peer)) > before, "names two masters", 3 * NOTICED_S)
    return time.time()


@pytest.mark.parametrize("how", ["one by one", "bundled"])
def test_a_burst_of_tiers_is_no_election(how: str, tell: Callable[[str], None]) -> None:
    repeated(tell, f"twelve tiers {how}: settled", SETTLED_S, lambda: counted(lambda: burst(how, tell)))


def burst(how: str, tell: Callable[[str], None]) -> float | None:
    """Let twelve tiers come: how long after the last both have nothing left to do, None where the count is void."""
    with vpc_pair("vburst", ()) as pair:
        stands_by_without_a_tier(pair)
        first = pair.first(BURST[0])
        before = pair.elections()
        for tier in BURST[1:]:
            pair.plug(tier)
        reloads = [_reloads(router) for router in pair.routers]
        with pair.lab.probe([Flow(first, pair.world, 6000, address=FAR)]) as probe:
            began = time.monotonic()
            if how == "bundled":
                pair.bundle([("guest_network", partial(pair.network, tier)) for tier in BURST[1:]])
            else:
                for tier in BURST[1:]:
                    pair.tier(tier, at_once=True)
            told = time.monotonic()
            pair.ready()
            settled = time.monotonic() - told
        master = pair.master
        reloads = [_reloads(router) - had for router, had in zip(pair.routers, reloads, strict=True)]
        (count,) = probe.counts
        tell(
            f"told {how} within {told - began:.2f} s, settled {settled:.2f} s later, {pair.elections() - before}"
            f" elections, {reloads} reloads of keepalived, {count.lost} of {count.sent} lost, void: {probe.void}"
        )
        assert pair.elections() == before
        # Each command is answered when its own tier's gateway is there, so each has its own reload; a bundle has one.
        assert all(0 < count <= (1 if how == "bundled" else len(BURST) - 1) for count in reloads)
        for tier in BURST:
            assert pair.holds(master, f"10.71.{tier}.1")
            assert not pair.holds(pair.other(master), f"10.71.{tier}.1")
        assert settled <= SLACK * SETTLED_S
        if probe.void:
            return None
        assert count.lost == 0
        return settled


def stands_by_without_a_tier(pair: VpcPair) -> None:
    """There is nothing to elect over: both are backup, and no public link is up."""
    for router in pair.routers:
        assert pair.says(router) == "BACKUP"
        assert not pair.outside(router)
        assert not router.active("keepalived.service")


def _reloads(router: Router) -> int:
    argv = ["journalctl", "--no-pager", "--quiet", "--boot=0", "--output=cat", "--unit=keepalived"]
    return router.shell(argv).text.count("Reloading\n")
