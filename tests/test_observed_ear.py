"""When a word of keepalived's is found to be no longer so, and what is said in its place."""

import json
import os
from pathlib import Path
from typing import Any

import pytest

from holdfast import alerts, errands, pairing, role_report
from holdfast.answers.checkrouter import Seen
from holdfast.ears import observed
from holdfast.ears.observed import AWAY, GONE, HERE, LOOKS, Observed, amiss

MASTER = Seen(role="MASTER", runs=True, virtual="10.1.1.1", held=True, outer={"eth2": True}, word="PRIMARY")
BACKUP = Seen(role="BACKUP", runs=True, virtual="10.1.1.1", held=False, outer={"eth2": False}, word="PRIMARY")
SERVES, STANDS_BY = {"role": "MASTER"}, {"role": "BACKUP"}


@pytest.mark.parametrize(
    ("seen", "peer", "found"),
    [
        (None, SERVES, ""),
        (MASTER, STANDS_BY, ""),
        (MASTER, SERVES, ""),  # two masters are keepalived's to part
        (BACKUP, SERVES, ""),
        (BACKUP, {}, ""),
        (MASTER._replace(runs=False), SERVES, GONE),
        (MASTER._replace(runs=False, held=False), SERVES, GONE),
        (MASTER._replace(runs=False), STANDS_BY, ""),  # better than nobody
        (MASTER._replace(runs=False), {}, ""),
        (BACKUP._replace(runs=False), SERVES, ""),
        (MASTER._replace(held=False), SERVES, AWAY),
        (MASTER._replace(held=False), {}, AWAY),
        (MASTER._replace(held=False, kept={"10.1.1.1": False, "10.1.2.1": True}), SERVES, ""),
        (MASTER._replace(held=False, virtual=""), SERVES, ""),
        (BACKUP._replace(held=True), STANDS_BY, HERE),
        (BACKUP._replace(held=True, role="FAULT"), {}, HERE),
        (BACKUP._replace(held=True, role=""), {}, HERE),
        (BACKUP._replace(held=True), SERVES, ""),
        (BACKUP._replace(held=True, runs=False), {}, ""),  # left behind
        (BACKUP._replace(role="FAULT"), STANDS_BY, ""),
    ],
)
def test_what_is_amiss(seen: Seen | None, peer: dict[str, Any], found: str) -> None:
    assert amiss(seen, peer) == found


class Scene:
    """An ear, and what it sees."""

    def __init__(self, root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        self.seen, self.peer, self.now = MASTER, dict[str, str](), 0.0
        self.ear = Observed(root, 0.0)
        monkeypatch.setattr(role_report, "look", lambda _: self.seen)
        monkeypatch.setattr(pairing, "peer", lambda _: self.peer)

    def looks(self, count: int) -> list[str]:
        found = []
        for _ in range(count):
            found += [wish.cause for wish in self.ear.tick(self.now)]
            self.now += observed.LOOK_S
        return found


@pytest.fixture
def scene(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Scene:
    return Scene(tmp_path, monkeypatch)


@pytest.mark.parametrize(
    ("seen", "peer", "cause"),
    [
        (MASTER._replace(runs=False), SERVES, GONE),
        (MASTER._replace(held=False), STANDS_BY, AWAY),
        (BACKUP._replace(held=True), STANDS_BY, HERE),
    ],
)
def test_what_lasts_is_wished_for_and_wished_for_again(
    scene: Scene, seen: Seen, peer: dict[str, str], cause: str
) -> None:
    scene.seen, scene.peer = seen, peer
    assert scene.looks(LOOKS[cause] - 1) == []
    assert list(scene.ear.tick(scene.now - observed.LOOK_S / 2)) == [], "only when it is due"
    assert scene.looks(1) == [cause]
    assert scene.looks(LOOKS[cause]) == [cause], "the hook may have failed"


@pytest.mark.parametrize("seen", [MASTER._replace(held=False), BACKUP._replace(held=True)])
def test_what_passes_is_a_change_of_role(scene: Scene, seen: Seen) -> None:
    for _ in range(5):
        scene.seen = seen
        assert scene.looks(2) == []
        scene.seen = MASTER
        assert scene.looks(1) == []


def test_each_word_has_its_own_looks(scene: Scene, tmp_path: Path) -> None:
    scene.seen = BACKUP._replace(held=True)
    for word in ("BACKUP", "BACKUP", "FAULT"):  # MASTER in between, quicker than anybody looks
        pairing.leave(tmp_path, role_report.WORD, f"{word}\n")
        assert scene.looks(LOOKS[HERE] - 1) == []
    assert scene.looks(1) == [HERE]


def test_one_that_comes_back_after_a_crash_loses_nothing(scene: Scene) -> None:
    scene.seen, scene.peer = MASTER._replace(runs=False), SERVES
    assert scene.looks(5) == []
    scene.seen = BACKUP
    assert scene.looks(5) == []
    scene.seen = MASTER._replace(runs=False)
    assert scene.looks(5) == []


def test_one_that_starts_and_dies_again_and_again_is_gone(scene: Scene) -> None:
    scene.peer = SERVES
    found = []
    for _ in range(4):
        scene.seen = MASTER._replace(runs=False)
        found += scene.looks(4)
        scene.seen = MASTER
        found += scene.looks(1)
    assert found == [GONE]


def test_a_move_to_other_ground_is_left_alone(scene: Scene, tmp_path: Path) -> None:
    scene.seen = MASTER._replace(held=False)
    move = {"to": "10.71.2.1/24 v2 1", "release": False, "by": os.getpid()}
    pairing.leave(tmp_path, pairing.MOVING, json.dumps(move))
    assert scene.looks(20) == []
    pairing.leave(tmp_path, pairing.MOVING, json.dumps({**move, "by": 2**30}))
    assert scene.looks(3) == [AWAY], "who was killed over it moves nothing any more"


@pytest.mark.parametrize(
    ("seen", "peer", "cause", "word"),
    [
        (MASTER._replace(runs=False), SERVES, GONE, "STOP"),
        (MASTER._replace(held=False), STANDS_BY, AWAY, "BACKUP"),
        (BACKUP._replace(held=True), STANDS_BY, HERE, "MASTER"),
    ],
)
def test_the_word_is_said_once_more_if_it_still_is_so(  # noqa: PLR0913, PLR0917 a case
    scene: Scene,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    seen: Seen,
    peer: dict[str, str],
    cause: str,
    word: str,
) -> None:
    said: list[list[str]] = []
    monkeypatch.setattr(errands, "run", said.append)
    monkeypatch.setattr(alerts, "alert", lambda *_: None)
    (tmp_path / "run/holdfast").mkdir(parents=True)
    (tmp_path / "run/holdfast/role").write_text(seen.role)
    errands.do(tmp_path, [cause])
    assert said == [], "meanwhile all is well"
    scene.seen, scene.peer = seen, peer
    errands.do(tmp_path, [cause])
    assert said == [["/opt/holdfast/libexec/holdfast-role", "INSTANCE", "inside", word, "0"]]


def test_what_cannot_be_read_ends_no_agent(tmp_path: Path) -> None:
    (tmp_path / "run/holdfast").mkdir(parents=True)
    (tmp_path / "run/holdfast/watch.json").write_text('{"virtual": 1}')
    assert list(Observed(tmp_path, 0.0).tick(0.0)) == []
