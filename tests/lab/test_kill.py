"""Killed at any moment: the store is the old one or the new one, whole, and the same file again always ends well."""

import json
import os
import random
import statistics
import time
from collections.abc import Callable, Iterator
from itertools import cycle, islice
from typing import Any, NamedTuple

import pytest
from killing import Killer
from replay import FILES, Site, firewall, forward, forwards, ingress, said, settled, vm, vm_line

from holdfast.store import Store

pytestmark = pytest.mark.lab

KILLS = 300 if os.environ.get("HOLDFAST_SOAK") == "1" else 40
GRAIN_S = 0.02  # file times are as coarse as the kernel's tick


class Turn(NamedTuple):
    """A message, and whether what it asks for is so on the machine."""

    payload: dict[str, Any]
    live: Callable[[Site], bool]


def opened(made: Site) -> bool:
    return ". 7001" in made.holds("ingress_port")


def forwarded(made: Site) -> bool:
    return ". 7022 : 10.1.1.12 . 22" in made.holds("port_forward")


def known(made: Site) -> bool:
    """It stands in the file, and dnsmasq has looked since it does."""
    file = made.path("/etc/dhcphosts.txt")
    looked = (
        int(made.units()["dnsmasq.service"]["StateChangeTimestampMonotonic"]) / 1e6 + time.time() - time.monotonic()
    )
    assert looked + GRAIN_S > file.stat().st_mtime
    return vm_line(7) in file.read_text()


TURNS = (
    Turn(firewall(ingress(700, 7001)), opened),
    Turn(firewall(ingress(700, 7001, revoked=True)), lambda made: not opened(made)),
    Turn(vm(7), known),
    Turn(vm(7, remove=True), lambda made: not known(made)),
    Turn(forwards(forward(7022, "10.1.1.12", 22)), forwarded),
    Turn(forwards(forward(7022, "10.1.1.12", 22, revoke=True)), lambda made: not forwarded(made)),
)


@pytest.fixture
def made() -> Iterator[Site]:
    with settled("kill") as made:
        # Without it the command does the work itself; tests of the agent kill that one.
        assert made.router.shell(["systemctl", "stop", "holdfast-agent"]).code == 0
        yield made


def test_the_same_file_after_a_kill_at_any_moment_ends_well(made: Site) -> None:
    seed = int(os.environ.get("HOLDFAST_SEED") or random.SystemRandom().randrange(1 << 32))
    print(f"HOLDFAST_SEED={seed}")  # noqa: T201 a failure is repeated with it
    dice = random.Random(seed)  # noqa: S311 moments, not secrets
    before = made.state()
    durations = {turn.payload["type"]: [] for turn in TURNS}  # type: dict[str, list[float]]
    for turn in TURNS:
        done = made.tell(turn.payload)
        assert done.code == 0, said(done)
        durations[turn.payload["type"]].append(done.seconds)
    killers = {kind: Killer(dice, statistics.mean(taken)) for kind, taken in durations.items()}
    hits, old = 0, 0
    for number, turn in enumerate(islice(cycle(TURNS), KILLS)):
        kind = turn.payload["type"]
        hit, was_old = one_kill(made, turn, f"{FILES[kind]}.kill{number}", killers[kind])
        hits, old = hits + hit, old + was_old
    print(f"{KILLS} kills, {hits} before the end; the old configuration stood after {old}")  # noqa: T201 what was tried
    assert hits > KILLS / 2
    for turn in TURNS[1::2]:
        made.told(turn.payload)
    assert made.state() == before


def one_kill(made: Site, turn: Turn, name: str, killer: Killer) -> tuple[bool, bool]:
    """Whether the kill came before the end, and whether the old configuration stood after it."""
    store = Store(made.path("/etc/cloudstack"))
    before = documents(store)
    made.router.send(json.dumps(turn.payload).encode(), name)
    hit = killer.kill(made.router, name)
    between = documents(store)
    where = f"{name} killed after {killer.moment_s:.4f} s"

    done = made.router.run("update_config.py", name)
    assert done.code == 0, f"{where}: {said(done)}"
    after = documents(store)
    assert after != before, where
    assert between in (before, after), where
    assert turn.live(made), f"{where}: {said(done)}"
    assert made.plan()["changes"] == [], where
    return hit, between == before


def documents(store: Store) -> dict[str, bytes]:
    """The stored configuration, which must be whole."""
    found = store.load()
    assert store.damage == []
    assert found
    return dict(found.documents)
