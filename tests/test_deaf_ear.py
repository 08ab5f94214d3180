"""When keepalived is found to take no new text."""

from pathlib import Path

import pytest

from holdfast.ears.deaf import DEAF, LOOK_S, Deaf, unheard

STATUS = "Name:\tkeepalived\nState:\tS (sleeping)\nSigPnd:\t{}\nShdPnd:\t{}\nSigBlk:\t0000000000000001\n"
NONE, HANGUP, CHILD = "0000000000000000", "0000000000000001", "0000000000010000"


@pytest.fixture
def ear(tmp_path: Path) -> Deaf:
    (tmp_path / "run").mkdir()
    return Deaf(tmp_path, 0.0, tmp_path / "proc")


def runs(root: Path, pid: int, pending: str) -> None:
    (root / "run/keepalived.pid").write_text(f"{pid}\n")
    (root / f"proc/{pid}").mkdir(parents=True, exist_ok=True)
    (root / f"proc/{pid}/status").write_text(STATUS.format(NONE, pending))


def looks(ear: Deaf, first: int, last: int) -> list[str]:
    return [wish.cause for look in range(first, last + 1) for wish in ear.tick(look * LOOK_S)]


@pytest.mark.parametrize(("pending", "waits"), [(NONE, False), (CHILD, False), (HANGUP, True)])
def test_a_hang_up_that_waits_is_seen_among_other_signals(pending: str, waits: bool) -> None:  # noqa: FBT001 a case
    assert unheard(STATUS.format(CHILD, pending)) is waits
    assert not unheard("")


def test_one_that_hangs_is_to_end_at_the_third_look(ear: Deaf, tmp_path: Path) -> None:
    runs(tmp_path, 41, HANGUP)
    assert looks(ear, 0, 1) == []
    assert list(ear.tick(LOOK_S + 1.0)) == [], "only when it is due"
    assert looks(ear, 2, 2) == [DEAF]
    assert looks(ear, 3, 4) == [], "the next may take as long"


def test_one_that_is_slow_lives(ear: Deaf, tmp_path: Path) -> None:
    runs(tmp_path, 41, HANGUP)
    assert looks(ear, 0, 1) == []
    runs(tmp_path, 41, NONE)
    assert looks(ear, 2, 2) == []
    runs(tmp_path, 41, HANGUP)
    assert looks(ear, 3, 4) == []


def test_another_one_is_judged_by_itself_and_none_not_at_all(ear: Deaf, tmp_path: Path) -> None:
    assert looks(ear, 0, 4) == []
    runs(tmp_path, 41, HANGUP)
    assert looks(ear, 5, 6) == []
    runs(tmp_path, 42, HANGUP)
    assert looks(ear, 7, 8) == []
