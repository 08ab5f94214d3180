"""What runs, the agent and keepalived leave for each other; handing over; moving to other ground."""

import json
import os
import subprocess
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from holdfast import ground, handover, pair_files, pairing
from holdfast.errors import Failed

OLD, NEW = "10.71.1.1/24 v2 1", "10.71.2.1/24 v2 0.1"


@pytest.fixture
def root(tmp_path: Path) -> Path:
    pairing.leave(tmp_path, pairing.PAIR, json.dumps({"ground": OLD}))
    return tmp_path


def word(root: Path, said: str) -> None:
    pairing.leave(root, "run/holdfast/role", f"{said}\n")


def heard(root: Path, **said: Any) -> None:
    document = {"heard": time.monotonic(), "name": "r2", "role": "BACKUP", "able": True, "ground": OLD} | said
    pairing.leave(root, pairing.PEER, json.dumps(document))


@contextmanager
def meanwhile(act: Callable[[], None]) -> Iterator[None]:
    thread = threading.Thread(target=act)
    thread.start()
    try:
        yield
    finally:
        thread.join(10)


def until(true: Callable[[], bool]) -> None:
    assert pairing.wait(true, 5)


def test_what_is_old_does_not_count(root: Path) -> None:
    assert pairing.peer(root) == {}
    heard(root, heard=time.monotonic() - 2)
    assert pairing.peer(root) == {}
    heard(root)
    assert pairing.peer(root)["name"] == "r2"


@pytest.mark.parametrize("text", ["", "[]", "{", "null", '{"heard": null}'])
def test_what_is_no_document_is_nothing(root: Path, text: str) -> None:
    pairing.leave(root, pairing.PEER, text)
    assert pairing.peer(root) == {}


def test_a_tracked_number_is_replaced_in_place_and_whole(root: Path) -> None:
    assert pairing.tracked(root, "term") == 0
    pairing.track(root, "term", 14)
    inode = (root / pairing.VRRP / "term").stat().st_ino
    pairing.track(root, "term", 3)
    assert (root / pairing.VRRP / "term").read_text() == "3\n"
    assert (root / pairing.VRRP / "term").stat().st_ino == inode  # keepalived watches the file, not its name


def test_a_poke_reaches_whoever_listens_and_never_waits(root: Path) -> None:
    pairing.poke(root)  # nobody is there
    os.mkfifo(root / pairing.WAKE)
    pairing.poke(root)  # still nobody
    ear = os.open(root / pairing.WAKE, os.O_RDWR | os.O_NONBLOCK)
    try:
        for _ in range(100_000):
            pairing.poke(root)  # full some time: it has been heard anyway
        assert os.read(ear, 1) == b"!"
    finally:
        os.close(ear)


@pytest.mark.parametrize(
    ("said", "peer", "reason"),
    [
        ("BACKUP", {}, "does not serve"),
        ("MASTER", None, "no peer is heard"),
        ("MASTER", {"role": "FAULT"}, "cannot take over: it is FAULT"),
        ("MASTER", {"able": False}, "cannot take over"),
    ],
)
def test_nobody_is_handed_over_to_who_cannot_serve(root: Path, said: str, peer: Any, reason: str) -> None:
    word(root, said)
    if peer is not None:
        heard(root, **peer)
    assert reason in handover.hand_over(root)
    assert pairing.tracked(root, "fault") == 0
    with pytest.raises(Failed, match=reason):
        handover.ordered(root)


def test_this_router_yields_only_when_the_peer_is_ready(root: Path) -> None:
    word(root, "MASTER")
    heard(root)
    order = []

    def peer() -> None:
        until((root / pairing.LEAVING).exists)
        order.append(("asked", pairing.tracked(root, "fault")))
        heard(root, boost=True)
        until(lambda: pairing.tracked(root, "fault") == 1)
        heard(root, boost=True, role="MASTER")

    with meanwhile(peer):
        assert handover.hand_over(root) == ""
    assert order == [("asked", 0)]
    assert pairing.tracked(root, "fault") == 0
    assert not (root / pairing.LEAVING).exists()


def test_where_nobody_is_heard_the_move_waits_for_nobody(root: Path) -> None:
    word(root, "MASTER")
    began = time.monotonic()
    with ground.agreed(root, NEW):
        assert pairing.tracked(root, "hold") == 0
    assert time.monotonic() - began < 0.2


@pytest.mark.parametrize("there", ["", OLD])
def test_who_stays_or_ends_the_pair_agrees_with_nobody(root: Path, there: str) -> None:
    word(root, "BACKUP")
    heard(root, role="MASTER")
    with ground.agreed(root, there):
        assert pairing.tracked(root, "hold") == 0
        assert not (root / pairing.MOVING).exists()


def test_a_backup_that_is_told_first_holds_itself_back(root: Path) -> None:
    word(root, "BACKUP")
    heard(root, role="MASTER")
    with ground.agreed(root, NEW):
        assert pairing.tracked(root, "hold") == 1
        assert json.loads((root / pairing.MOVING).read_text()) == {"to": NEW, "release": False, "by": os.getpid()}
    assert pairing.tracked(root, "hold") == 1  # until the agent sees the peer there
    assert not (root / pairing.MOVING).exists()


def test_a_run_that_was_killed_over_a_move_moves_nothing_any_more(root: Path) -> None:
    said = {"to": NEW, "release": True, "by": os.getpid()}
    pairing.leave(root, pairing.MOVING, json.dumps(said))
    assert pair_files.own(root).moving == NEW

    ended = subprocess.Popen(["/bin/true"])
    ended.wait()
    pairing.leave(root, pairing.MOVING, json.dumps(said | {"by": ended.pid}))

    assert (pair_files.own(root).moving, pair_files.own(root).release) == ("", False)


def test_who_serves_and_is_told_first_hands_over_and_holds_itself_back(root: Path) -> None:
    word(root, "MASTER")
    heard(root)

    def peer() -> None:
        until((root / pairing.LEAVING).exists)
        heard(root, boost=True)
        until(lambda: pairing.tracked(root, "fault") == 1)
        word(root, "FAULT")
        heard(root, role="MASTER")

    with meanwhile(peer), ground.agreed(root, NEW):
        assert pairing.tracked(root, "hold") == 1


@pytest.mark.parametrize("at_once", [True, False])
def test_who_serves_and_is_told_last_lets_the_peer_serve_and_follows(root: Path, *, at_once: bool) -> None:
    word(root, "MASTER")
    heard(root, ground=OLD if at_once else NEW)
    released = []

    def peer() -> None:
        until((root / pairing.MOVING).exists)
        if at_once:
            heard(root, moving=NEW)
            time.sleep(0.1)
        heard(root, ground=NEW, hold=True)
        until(lambda: json.loads((root / pairing.MOVING).read_text())["release"])
        released.append(time.monotonic())
        heard(root, ground=NEW, role="MASTER")

    with meanwhile(peer), ground.agreed(root, NEW):
        assert released
        assert pairing.tracked(root, "hold") == 0
        assert pairing.peer(root)["role"] == "MASTER"


def test_one_that_cannot_hand_over_moves_and_serves(root: Path) -> None:
    word(root, "MASTER")
    heard(root, able=False)
    with ground.agreed(root, NEW):
        assert pairing.tracked(root, "hold") == 0
