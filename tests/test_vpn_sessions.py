"""Users who are connected: written down by pppd's hook, disconnected by exact name, and nobody else."""

import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from holdfast import ppp_session
from holdfast.drivers.ppp import PppSessions
from holdfast.l2tp import Sessions
from holdfast.state import Change, State

Connected = dict[str, subprocess.Popen[bytes]]


@pytest.fixture
def connected(tmp_path: Path) -> Iterator[Connected]:
    """A process for each of three users, as pppd would be."""
    sleeps = [sys.executable, "-c", "import time; time.sleep(60)"]
    made = {user: subprocess.Popen(sleeps) for user in ("ann", "an", "b n")}
    for user, process in made.items():
        assert ppp_session.main([], {"PPPD_PID": str(process.pid), "PEERNAME": user}, tmp_path) == 0
    yield made
    for process in made.values():
        process.kill()
        process.wait()


def wanted(*users: str) -> State:
    resource = Sessions(users)
    return {resource.key: resource}


def end(root: Path, *allowed: str) -> list[object]:
    driver = PppSessions(root)
    seen = next(iter(driver.observe(wanted(*allowed))))
    return [*driver.apply([Change(seen, Sessions(allowed))])]


def test_a_removed_user_is_disconnected_and_nobody_else(connected: Connected, tmp_path: Path) -> None:
    assert [*PppSessions(tmp_path).observe(wanted("ann", "b n"))] == [Sessions(("ann", "b n", "an"))]

    assert end(tmp_path, "ann", "b n") == []

    assert connected["an"].wait(5) != 0
    assert (connected["ann"].poll(), connected["b n"].poll()) == (None, None)
    assert [*PppSessions(tmp_path).observe(wanted("ann", "b n"))] == [Sessions(("ann", "b n"))]


def test_without_users_nobody_stays(connected: Connected, tmp_path: Path) -> None:
    assert end(tmp_path) == []
    assert all(process.wait(5) for process in connected.values())


def test_a_number_that_is_another_process_by_now_is_left_alone(connected: Connected, tmp_path: Path) -> None:
    process = connected["an"]
    note = tmp_path / ppp_session.FOLDER / str(process.pid)
    note.write_text("1 an\n")  # who had that number then had started at another time

    assert [*PppSessions(tmp_path).observe(wanted("ann", "b n"))] == [Sessions(("ann", "b n"))]
    assert end(tmp_path, "ann", "b n") == []
    assert process.poll() is None


def test_a_session_that_ends_is_forgotten(connected: Connected, tmp_path: Path) -> None:
    environment = {"PPPD_PID": str(connected["an"].pid), "PEERNAME": "an", "CONNECT_TIME": "12"}

    assert ppp_session.main([], environment, tmp_path) == 0
    assert ppp_session.main([], environment, tmp_path) == 0
    assert {session.user for session in ppp_session.living(tmp_path)} == {"ann", "b n"}


def test_a_damaged_note_is_no_session(connected: Connected, tmp_path: Path) -> None:
    (tmp_path / ppp_session.FOLDER / str(connected["an"].pid)).write_text("")

    assert {session.user for session in ppp_session.living(tmp_path)} == {"ann", "b n"}
    assert ppp_session.main([], {"PPPD_PID": "../../etc/passwd", "PEERNAME": "x"}, tmp_path) == 2
