"""The package as users make it, lintian's word on it, and the router that it makes of a bare machine: one story."""

from collections.abc import Iterator
from pathlib import Path

import pytest
from packaged import ROOT, bare_disks
from recorded import Player, begin, outside, story
from replay import HOLDFAST, Site, said, site

from holdfast.lab.process import must

pytestmark = [pytest.mark.lab, pytest.mark.appliance]


@pytest.fixture
def bare(tmp_path: Path) -> Iterator[Site]:
    """A router with Debian alone on its disk."""
    with bare_disks(tmp_path), site("debstory") as made:
        yield made


def test_what_make_deb_makes_turns_a_bare_machine_into_the_router_of_a_whole_story(bare: Site) -> None:
    printed = must(["make", "--no-print-directory", "-C", str(ROOT), "deb"], timeout_s=300)  # lintian fails it
    made = [Path(line) for line in printed.splitlines() if line.endswith(".deb")]
    assert {path.name.rpartition("_")[2] for path in made} == {"amd64.deb", "arm64.deb"}
    package = next(
        path for path in made if path.name.endswith(f"_{must(['dpkg', '--print-architecture']).strip()}.deb")
    )

    router = bare.router
    outside(bare)
    router.boot()
    router.write("/root/holdfast.deb", package.read_bytes())
    done = router.shell(["dpkg", "--install", "/root/holdfast.deb"], timeout_s=120)
    assert done.code == 0, said(done)
    router.power_cut()
    steps = begin(bare, story("4.22", "S1"))

    player = Player(bare)
    again = next(index for index, step in enumerate(steps) if step.boot_line)
    for step in steps[:again]:
        if not any(event[1] == "bootArgs.txt" for event in step.events):
            player.play(step)
    assert player.commands > 30
    assert bare.plan()["changes"] == []

    lived = bare.state()
    router.power_cut()
    router.boot()

    assert bare.plan()["changes"] == [], router.journal(60)
    assert bare.state() == lived
    done = router.shell([HOLDFAST, "status"])
    assert done.code == 0, said(done)
    assert router.shell(["systemctl", "--failed", "--no-legend", "--plain"]).text == ""
