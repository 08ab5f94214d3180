"""The package leaves the router that serves for a pair: its peer serves first, and nothing here elects again."""

import json
import time
from collections.abc import Callable
from pathlib import Path

import pytest
from failover import AFTER_S, PLANNED_S, SLACK, flows, outage_s
from pair import isolated_pair
from replay import said

pytestmark = [pytest.mark.lab, pytest.mark.alone, pytest.mark.appliance]

PRERM = Path(__file__).resolve().parents[2] / "packaging/scripts/prerm"
ENDED = ("holdfast-agent.service", "holdfast-role.path", "keepalived.service", "conntrackd.service", "dnsmasq.service")


def test_the_peer_serves_before_the_package_goes(tell: Callable[[str], None]) -> None:
    with isolated_pair("removal") as pair:
        pair.ready()
        leaving, staying = pair.master, pair.backup
        leaving.write("/root/prerm", PRERM.read_bytes())

        with pair.lab.probe(flows(pair)) as probe:
            time.sleep(AFTER_S)
            done = leaving.shell(["sh", "/root/prerm", "remove"], timeout_s=90)
            time.sleep(AFTER_S)

        assert done.code == 0, said(done)
        outage = outage_s(probe.counts)
        tell(json.dumps({"case": "removal of the package", "outage_s": round(outage, 3), "took_s": done.seconds}))
        assert outage <= SLACK * PLANNED_S
        assert pair.serving() == [staying]
        assert pair.outside(staying)
        assert not pair.outside(leaving)
        assert [name for name in ENDED if leaving.active(name)] == []
        assert leaving.active("ssh.service")
        assert "table inet holdfast" in leaving.shell(["nft", "list", "tables"]).text
