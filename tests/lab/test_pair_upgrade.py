"""A pair that is upgraded, one router after the other: the one that serves hands over before its daemons restart."""

from collections.abc import Callable
from pathlib import Path

import pytest
from failover import FLOWS, PLANNED_S, RUNS, measured, taken_over, truth, watch
from packaged import ROOT, bare_disks
from pair import IsolatedPair, lab_of
from replay import said

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
    """The one that stands by first, as an operator would; the next version finds the roles swapped."""
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
        aside: list[float] = []
        serving: list[float] = []
        for number in range(1, RUNS + 1):
            changed = {f"system/{unit}.d/holdfast.conf": _other(unit, number) for unit in DAEMONS}
            package = make(f"1.{number}-1", {**changed, "agent.py": f"\n# another: {number}\n"})
            standing_by(pair, package, aside, tell)
            master(pair, package, serving, tell)
        measured(tell, "upgrade of the backup", PLANNED_S, aside)
        measured(tell, "upgrade of the master", PLANNED_S, serving)


def standing_by(pair: IsolatedPair, package: Path, outages: list[float], tell: Callable[[str], None]) -> None:
    """Upgrade the one that does not serve, which nobody notices."""
    pair.ready()
    old, new = pair.master, pair.backup
    seen = watch(pair, lambda: install(new, package))
    tell(f"upgrade of the backup: {seen}")
    assert (seen.lived, pair.master) == (FLOWS, old)
    outages.append(seen.outage_s)
    pair.ready()


def master(pair: IsolatedPair, package: Path, outages: list[float], tell: Callable[[str], None]) -> None:
    """Upgrade the one that serves: it hands over before its daemons restart."""
    old, new = pair.master, pair.backup
    printed: list[str] = []

    def upgrade() -> None:
        printed.append(install(old, package))
        taken_over(pair, new)

    seen = watch(pair, upgrade)
    tell(f"upgrade of the one that serves: {seen}")
    assert all(f"restarting if it runs: {unit}" in printed[0] for unit in DAEMONS), printed
    assert seen.lived == FLOWS
    outages.append(seen.outage_s)
    pair.ready()
    truth(pair, new)


def _other(unit: str, number: int) -> str:
    text = (ROOT / f"system/{unit}.d/holdfast.conf").read_text()
    return f"# Version {number}'s.\n{text}"
