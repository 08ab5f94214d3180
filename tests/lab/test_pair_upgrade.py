"""A pair that is upgraded, one router after the other: the one that serves hands over before its daemons restart."""

from collections.abc import Callable
from pathlib import Path

import pytest
from failover import FLOWS, PLANNED_S, taken_over, truth, watch
from packaged import ROOT, bare_disks
from pair import IsolatedPair, lab_of
from replay import said
from slack import SLACK

from holdfast.lab.router import Router

pytestmark = [pytest.mark.lab, pytest.mark.alone, pytest.mark.appliance]

DAEMONS = ("keepalived.service", "conntrackd.service")


def install(router: Router, package: Path) -> str:
    """Install a package; what that printed."""
    router.write(f"/root/{package.name}", package.read_bytes())
    done = router.shell(["dpkg", "--install", f"/root/{package.name}"], timeout_s=120)
    assert done.code == 0, said(done)
    return done.text


def test_an_upgrade_of_both_costs_no_connection(tmp_path: Path, tell: Callable[[str], None]) -> None:
    with bare_disks(tmp_path) as make, lab_of("upgraded") as lab:
        pair = IsolatedPair(lab)
        first = make("1.0-1", {})
        for router in pair.routers:
            router.boot()
            install(router, first)
            router.power_cut()
        pair.boot()
        pair.furnish()
        pair.settles()
        pair.web1.gets_lease()
        pair.app1.gets_lease()
        pair.ready()
        changed = {f"system/{unit}.d/holdfast.conf": _other(unit) for unit in DAEMONS}
        second = make("1.1-1", {**changed, "agent.py": "\n# another\n"})
        old, new = pair.master, pair.backup

        # The one that stands by first, as an operator would.
        seen = watch(pair, lambda: install(new, second))
        tell(f"upgrade of the backup: {seen}")
        assert (seen.lived, pair.master) == (FLOWS, old)
        assert seen.outage_s <= SLACK * PLANNED_S
        pair.ready()

        printed: list[str] = []

        def upgrade() -> None:
            printed.append(install(old, second))
            taken_over(pair, new)

        seen = watch(pair, upgrade)
        tell(f"upgrade of the one that serves: {seen}")
        assert all(f"restarting if it runs: {unit}" in printed[0] for unit in DAEMONS), printed
        assert seen.lived == FLOWS
        assert seen.outage_s <= SLACK * PLANNED_S
        pair.ready()
        truth(pair, new)


def _other(unit: str) -> str:
    text = (ROOT / f"system/{unit}.d/holdfast.conf").read_text()
    return f"# Another version's.\n{text}"
