"""The package leaves routers of a pair: the peer serves first, and what is left never gets in its way."""

import json
import time
from collections.abc import Callable
from pathlib import Path

import pytest
from failover import AFTER_S, PLANNED_S, flows, outage_s
from pair import IsolatedPair, isolated_pair
from replay import said
from slack import SLACK

from holdfast.lab.router import Router

pytestmark = [pytest.mark.lab, pytest.mark.alone, pytest.mark.appliance]

PRERM = Path(__file__).resolve().parents[2] / "packaging/scripts/prerm"
ENDED = ("holdfast-agent.service", "holdfast-role.path", "keepalived.service", "conntrackd.service", "dnsmasq.service")


def leaves(pair: IsolatedPair, router: Router) -> float:
    """What dpkg runs before it takes the files: how long that took, in seconds."""
    router.write("/root/prerm", PRERM.read_bytes())
    done = router.shell(["sh", "/root/prerm", "remove"], timeout_s=90)
    assert done.code == 0, said(done)
    assert not pair.outside(router)
    assert [name for name in ENDED if router.active(name)] == []
    assert router.active("ssh.service")
    assert "table inet holdfast" in router.shell(["nft", "list", "tables"]).text
    assert router.shell(["ls", "/run/holdfast/wishes"]).text == ""
    return done.seconds


def test_who_serves_leaves_it_to_the_peer_and_without_one_gets_out_of_the_way(tell: Callable[[str], None]) -> None:
    with isolated_pair("removal") as pair:
        pair.ready()
        first, second = pair.master, pair.backup

        with pair.lab.probe(flows(pair)) as probe:
            time.sleep(AFTER_S)
            took_s = leaves(pair, first)
            time.sleep(AFTER_S)

        outage = outage_s(probe.counts)
        tell(json.dumps({"case": "removal of the package", "outage_s": round(outage, 3), "took_s": round(took_s, 2)}))
        assert outage <= SLACK * PLANNED_S
        assert pair.serving() == [second]
        assert pair.outside(second)

        leaves(pair, second)  # there is no peer any more
        assert pair.serving() == []
        first.power_cut()
        pair.boot(first)
        first.eventually(lambda: pair.serving() == [first] and pair.outside(first), "serves again", 15)
        assert not pair.outside(second)
