"""What runs, the agent and keepalived leave for each other; handing over; moving to other ground."""

import json
import os
import subprocess
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from math import inf
from pathlib import Path
from typing import Any

import pytest

from holdfast import alerts, errands, ground, handover, pair_files, pairing
from holdfast.agent import Answer
from holdfast.ears.acknowledged import KEEP, Passwords
from holdfast.ears.decisions import Decisions
from holdfast.errors import Failed, Rejected
from holdfast.pair_files import Own
from holdfast.peer import Face, Hello, Here, Pair, Peer, Sent
from holdfast.session import Session
from holdfast.verdict import STUCK_S, UNABLE_S, Links

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


# What follows by itself: a router that serves, and the one that it could yield to.


class Side:
    """One router's files, and its agent's decisions."""

    def __init__(self, root: Path, name: str, role: str) -> None:
        self.root, self.name = root, name
        root.mkdir()
        word(root, role)
        self.decisions = Decisions(root, 0.0)
        self.session = Session(root)
        self.pair = Pair(key="00", name=name, ground=OLD)

    def ran(self, *stuck: str, code: int = 0) -> None:
        self.session._tell_peer(Answer(code=code, stuck=stuck))  # noqa: SLF001 the end of a run, without its beginning

    def hello(self, now: float) -> Hello:
        own = pair_files.own(self.root)
        return Hello(name=self.name, role=own.role, ground=OLD, able=self.decisions.able(own, now))

    def look(self, other: Hello, now: float) -> None:
        own = pair_files.own(self.root)
        self.decisions.write(own, self.pair, Peer(other, now, Sent(now, "", 0)), now, Links(1, 0))

    def fault(self) -> bool:
        return pairing.tracked(self.root, "fault") == 1


@pytest.fixture
def both(tmp_path: Path) -> tuple[Side, Side]:
    return Side(tmp_path / "one", "r-1-VM", "MASTER"), Side(tmp_path / "two", "r-2-VM", "BACKUP")


def turns(sides: tuple[Side, Side], seconds: int, ran: Callable[[Side], None], step_s: int = 1) -> list[int]:
    """When they change roles; each convergence, at a change of roles, leaves what `ran` says."""
    found, serving = [], 0
    for second in range(1, seconds, step_s):
        now = float(second)
        said = [side.hello(now) for side in sides]
        for side, other in zip(sides, said[::-1], strict=True):
            side.look(other, now)
        if sides[serving].fault():
            found.append(second)
            word(sides[serving].root, "FAULT")
            word(sides[1 - serving].root, "MASTER")
            for side in sides:
                side.look(Hello(name="x", role="MASTER" if side is sides[serving] else "FAULT", ground=OLD), now)
            serving = 1 - serving
            word(sides[1 - serving].root, "BACKUP")
            for side in sides:
                ran(side)
    return found


@pytest.mark.parametrize("stuck", ["Link", "Address", "Route", "PolicyRule", "Ruleset", "Elements"])
def test_a_master_that_cannot_have_what_guests_need_yields_to_a_peer_that_can(
    both: tuple[Side, Side], stuck: str
) -> None:
    both[0].ran(stuck)
    assert turns(both, 30, lambda _: None) == [1 + STUCK_S]
    assert "yields to its peer: what guests need is not as wanted" in (both[0].root / alerts.LOG).read_text()


def test_what_guests_do_not_need_is_no_reason(both: tuple[Side, Side]) -> None:
    both[0].ran("File", "Unit")
    assert turns(both, 30, lambda _: None) == []


def test_where_neither_could_serve_nothing_swings(both: tuple[Side, Side]) -> None:
    for side in both:
        side.ran("Route")
    assert turns(both, 600, lambda _: None) == []


def test_where_each_fails_as_master_alone_it_is_passed_on_ever_more_seldom(both: tuple[Side, Side]) -> None:
    def ran(side: Side) -> None:
        side.ran(*(["Route"] if pair_files.own(side.root).role == "MASTER" else []))

    both[0].ran("Route")
    found = turns(both, 4 * 3600, ran, step_s=10)
    assert 4 < len(found) < 20
    assert found[-1] - found[-2] > 1000 > UNABLE_S


@pytest.mark.parametrize("role", ["", "MASTER", "BACKUP", "FAULT"])
def test_in_any_role_a_run_leaves_whether_this_router_could_serve(tmp_path: Path, role: str) -> None:
    side = Side(tmp_path / "one", "r-1-VM", role)
    side.ran("Address")
    assert pair_files.own(side.root).unable
    assert not side.decisions.able(pair_files.own(side.root), 1.0)
    side.ran(code=Rejected.exit_code)  # it has looked at nothing
    assert pair_files.own(side.root).unable
    side.ran("File")
    assert not pair_files.own(side.root).unable


def test_who_hears_its_peer_serve_on_other_ground_holds_itself_back_and_says_so(both: tuple[Side, Side]) -> None:
    one = both[1]
    there = Hello(name="r-1-VM", role="MASTER", ground=NEW)
    one.look(there, 1.0)
    assert pairing.tracked(one.root, "hold") == 1
    assert "holds itself back: r-1-VM serves on other ground" in (one.root / alerts.LOG).read_text()
    one.look(Hello(name="r-1-VM", role="MASTER", ground=OLD), 2.0)
    assert pairing.tracked(one.root, "hold") == 0


# What is told is no command to whoever reads it, and waits for no disk.


def test_a_peer_that_has_left_the_segment_leaves_it_to_nobody_else(tmp_path: Path) -> None:
    decided, segment = Decisions(tmp_path, 0.0), "10.71.1.0/24"
    here = Pair(key="00", segment="eth2", faces=(Face(segment, "eth2", "10.71.1.1", 24),))

    def known(now: float, nics: dict[str, Here]) -> tuple[str, str]:
        hello = Hello(name="r-2-VM", role="BACKUP", nics=nics)
        list(decided.tell(pair_files.own(tmp_path), here, Peer(hello, now, Sent(now, "", 0)), now))
        left = pairing.peer(tmp_path, inf)
        return left["address"], left["mac"]

    there = ("10.71.1.2", "02:00:47:00:00:02")
    assert known(1.0, {segment: Here("eth3", *there)}) == there
    assert known(2.0, {"10.71.2.0/24": Here("eth4", "10.71.2.2", there[1])}) == there
    other = ("10.71.1.9", "02:00:47:00:00:09")
    assert known(3.0, {segment: Here("eth3", *other)}) == other, "it was made anew"


def test_what_an_alert_speaks_of_is_there_when_it_is_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    decided, pair = Decisions(tmp_path, 0.0), Pair(key="00", ground=OLD)
    seen: list[tuple[str, float, int]] = []

    def reads(root: Path, texts: list[str]) -> None:
        seen.extend(
            (text, pairing.peer(root, inf).get("two_masters_since", -1), pairing.tracked(root, "fault"))
            for text in texts
        )

    def step(own: Own, role: str, now: float, links: Links) -> None:
        heard = Peer(Hello(name="r-2-VM", role=role, able=True, ground=OLD), now, Sent(now, own.role, 0))
        decided.write(own, pair, heard, now, links)
        list(decided.tell(own, pair, heard, now))

    monkeypatch.setattr(alerts, "alert", reads)
    for now, role in ((1.0, "MASTER"), (2.0, "MASTER"), (3.0, "BACKUP")):
        step(Own(role="MASTER"), role, now, Links(1, 0))
    for now in (4.0, 9.0):
        step(Own(role="MASTER"), "BACKUP", now, Links(0, 1))

    assert [(text.split(":")[0].split(",")[0], *rest) for text, *rest in seen] == [
        ("two masters", 1.0, 0),
        ("two masters no longer", 0.0, 0),
        ("this router yields to its peer", 0.0, 1),
    ]


def test_an_alert_holds_nothing_that_commands_a_terminal(tmp_path: Path) -> None:
    alerts.alert(tmp_path, ["a\x1b[2Jb\nc\x00d\x9b31m\u202ee\ud800", "größer"])
    lines = (tmp_path / alerts.LOG).read_text().splitlines()
    assert [line[24:] for line in lines] == ["a?[2Jb c?d?31m?e?", "größer"]
    alerts.note("\x1b\x00\ud800")


def kept(ear: Passwords, now: float) -> list[str]:
    return [wish.cause for wish in ear.keep(now, {})]


def test_what_the_peer_has_acknowledged_is_kept_by_an_errand(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    ear = Passwords(tmp_path)
    ear.hear({"10.1.0.1": 3, "not one": 4}, {})
    with monkeypatch.context() as context:
        context.setattr(os, "fsync", lambda _: pytest.fail("an ear waited for a disk"))
        causes = kept(ear, 10.0)
    assert causes == [KEEP, "passwords acknowledged at the peer"]
    assert pair_files.acknowledged_there(tmp_path) == {}

    errands.do(tmp_path, causes)
    assert pair_files.acknowledged_there(tmp_path) == {"10.1.0.1": 3}
    assert kept(ear, 12.0) == []
    assert ear.due() == float("inf")
    assert Passwords(tmp_path).due() == float("inf")


def test_it_is_asked_for_until_the_disk_has_it_ever_more_seldom(tmp_path: Path) -> None:
    ear = Passwords(tmp_path)
    ear.hear({"10.1.0.1": 3}, {})
    asked = [second for second in range(10, 400) if ear.due() <= second and kept(ear, float(second))]
    assert asked[:4] == [10, 12, 16, 24]
    assert asked[-1] - asked[-2] == 64
    (tmp_path / "var/lib").mkdir(parents=True)
    (tmp_path / "var/lib/holdfast").write_text("in the way")
    errands.do(tmp_path, [KEEP])  # noted, and no end of the agent's child
    (tmp_path / "var/lib/holdfast").unlink()
    errands.do(tmp_path, [KEEP])
    assert kept(ear, 500.0) == []
    ear.hear({"10.1.0.1": 4}, {})
    assert ear.due() == 502.0
