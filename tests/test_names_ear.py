"""The ear for peers that are known by a name: asked of a real process, waited for by nobody."""

import json
import os
import select
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from holdfast import names
from holdfast.ears import Wish
from holdfast.ears.names import EVERY_S, FOUND, LIMIT_S, LOOK_S, SOON_S, Names
from holdfast.texts import is_ipv4

WEST, EAST = "gw.west.example", "gw.east.example"
RESOLVER = """#!/bin/sh
[ "$1" = ahostsv4 ] && cat "$(dirname "$0")/$2"
"""


@pytest.fixture
def resolver(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder in which a file by a name is what getent prints of it."""
    program = tmp_path / "bin/getent"
    program.parent.mkdir()
    program.write_text(RESOLVER)
    program.chmod(0o755)
    monkeypatch.setenv("PATH", f"{program.parent}:{os.environ['PATH']}")
    return program.parent


@pytest.fixture
def listening(tmp_path: Path) -> Iterator[Names]:
    made = Names(tmp_path)
    yield made
    made.close()


def want(root: Path, *wanted: str) -> None:
    path = root / names.WANTED
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(wanted))


def round_of(listening: Names, now: float) -> list[Wish]:
    """What it wishes for until it has asked for all of them; `now` stands still."""
    wishes = [*listening.tick(now)]
    until = time.monotonic() + 5
    while listening.fileno() >= 0:
        assert time.monotonic() < until
        if select.select([listening.fileno()], [], [], 1)[0]:
            wishes += listening.ready(now)
    return wishes


def test_what_is_wanted_is_found_and_told_once(tmp_path: Path, resolver: Path, listening: Names) -> None:
    assert round_of(listening, 0) == []
    (resolver / WEST).write_text("198.51.100.9 STREAM gw.west.example\n198.51.100.9 DGRAM\n198.51.100.8 STREAM\n")
    (resolver / EAST).write_text("203.0.113.5 STREAM east.example\n")
    want(tmp_path, EAST, WEST)

    assert {*round_of(listening, 2)} == {Wish(FOUND)}
    assert names.found(tmp_path) == {WEST: ("198.51.100.8", "198.51.100.9"), EAST: ("203.0.113.5",)}
    assert round_of(listening, 4) == []
    assert round_of(listening, 2 + EVERY_S) == []

    (resolver / WEST).write_text("198.51.100.7 STREAM\n")
    assert round_of(listening, 2 + 2 * EVERY_S) == [Wish(FOUND)]
    assert names.found(tmp_path)[WEST] == ("198.51.100.7",)

    want(tmp_path, EAST)
    assert round_of(listening, 2 + 2 * EVERY_S + LOOK_S) == []
    assert names.found(tmp_path) == {EAST: ("203.0.113.5",)}


def test_a_resolver_that_fails_ends_nothing_and_is_asked_again_soon(
    tmp_path: Path, resolver: Path, listening: Names
) -> None:
    want(tmp_path, WEST)
    assert round_of(listening, 0) == []
    assert names.found(tmp_path) == {}
    (resolver / WEST).write_text("198.51.100.9 STREAM\n")
    assert round_of(listening, SOON_S) == [Wish(FOUND)]

    (resolver / WEST).unlink()
    assert round_of(listening, SOON_S + EVERY_S) == []
    assert names.found(tmp_path) == {WEST: ("198.51.100.9",)}
    # An agent that starts anew knows it still.
    assert round_of(Names(tmp_path), 0) == []
    assert names.found(tmp_path) == {WEST: ("198.51.100.9",)}


def test_one_that_hangs_is_ended_and_the_next_name_is_asked_for(
    tmp_path: Path, resolver: Path, listening: Names
) -> None:
    (resolver / "getent").write_text('#!/bin/sh\n[ "$2" = gw.west.example ] && exec sleep 600\necho 203.0.113.5\n')
    want(tmp_path, EAST, WEST)
    assert [*listening.tick(0)] == []
    asked = listening.fileno()
    assert asked >= 0
    assert listening.due() <= LIMIT_S
    assert round_of(listening, LIMIT_S) == [Wish(FOUND)]
    assert names.found(tmp_path) == {EAST: ("203.0.113.5",)}


def test_a_name_that_comes_while_another_is_asked_for_is_asked_for_next(
    tmp_path: Path, resolver: Path, listening: Names
) -> None:
    for name, address in ((WEST, "198.51.100.9"), (EAST, "203.0.113.5")):
        (resolver / name).write_text(f"{address} STREAM\n")
    want(tmp_path, WEST)
    assert [*listening.tick(0)] == []
    want(tmp_path, WEST, EAST)

    assert round_of(listening, 1) == [Wish(FOUND)]
    assert listening.due() == 1
    assert round_of(listening, 1) == [Wish(FOUND)]
    assert names.found(tmp_path) == {WEST: ("198.51.100.9",), EAST: ("203.0.113.5",)}


def test_where_there_is_no_resolver_it_says_so_and_goes_on(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, listening: Names
) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    want(tmp_path, WEST)
    assert round_of(listening, 0) == []
    assert listening.due() == LOOK_S


def test_files_of_another_hand_mean_nothing(tmp_path: Path) -> None:
    for text in ("", "[", "{}", '["-x", "$(id)"]', "[1]"):
        (tmp_path / "run/holdfast").mkdir(parents=True, exist_ok=True)
        (tmp_path / names.WANTED).write_text(text)
        assert names.wanted(tmp_path) == ()
    for text in ("", "[]", '{"a": ["x"]}', '{"a": []}', '{"a": "1.2.3.4"}'):
        (tmp_path / names.FOUND).write_text(text)
        assert names.found(tmp_path) == {}


@given(st.binary(max_size=200) | st.from_regex(rb"([0-9.]{7,15} STREAM [a-z]*\n){0,12}", fullmatch=True))
def test_whatever_is_said_only_addresses_come_of_it(said: bytes) -> None:
    found = names.addresses(said)

    assert len(found) <= 8
    assert all(is_ipv4(address) and not address.startswith(("127.", "224.")) for address in found)
    assert found == names.addresses(b"\n".join(reversed(said.split(b"\n"))))


def test_an_address_that_is_nobodys_is_none() -> None:
    assert names.addresses(b"127.0.0.1 STREAM\n0.0.0.0 STREAM\n224.0.0.5 STREAM\n198.51.100.9 STREAM\n") == (
        "198.51.100.9",
    )
