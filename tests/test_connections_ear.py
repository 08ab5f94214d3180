"""When the peer is told of all connections again, and when all are asked for anew."""

import json
import time
from pathlib import Path

import pytest

from holdfast import conntrackd, pair_files, pairing
from holdfast.ears.connections import LOOK_S, REFILL, TELL, Connections


@pytest.fixture
def ear(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Connections:
    monkeypatch.setattr(pair_files, "flows", lambda: 10_000)
    return Connections(tmp_path, 0.0)


def pair(root: Path, own: str, peers: str, flows: int) -> None:
    pairing.leave(root, "run/holdfast/role", f"{own}\n")
    pairing.leave(root, pairing.PEER, json.dumps({"heard": time.monotonic(), "role": peers, "flows": flows}))


def wishes(ear: Connections, *times: float) -> list[tuple[float, str]]:
    return [(at, wish.cause) for at in times for wish in ear.tick(at)]


def test_a_peer_that_has_heard_of_too_few_is_told_again(ear: Connections) -> None:
    pair(ear.root, "MASTER", "BACKUP", 5_000)
    assert wishes(ear, 1.0, 1.5, 7.0, 8.0, 14.0) == [(7.0, TELL), (14.0, TELL)]


def test_one_that_has_heard_of_all_is_told_again_before_they_run_out(ear: Connections) -> None:
    pair(ear.root, "MASTER", "BACKUP", 9_990)
    times = [number * LOOK_S for number in range(25)]
    assert [cause for _, cause in wishes(ear, *times)] == [TELL, TELL]
    assert conntrackd.REFRESH_S < 60  # a stream without news runs out after 120 s; one telling may be lost


def test_a_backup_that_holds_too_many_asks_anew_after_a_while(ear: Connections) -> None:
    pair(ear.root, "BACKUP", "MASTER", 1_000)
    assert wishes(ear, 10.0, conntrackd.REFILL_S - 1, conntrackd.REFILL_S + 10) == [(conntrackd.REFILL_S + 10, REFILL)]


@pytest.mark.parametrize(("own", "peers"), [("MASTER", "MASTER"), ("BACKUP", "BACKUP"), ("FAULT", "MASTER")])
def test_between_roles_nobody_is_told_anything(ear: Connections, own: str, peers: str) -> None:
    pair(ear.root, own, peers, 0)
    assert wishes(ear, 10.0, 100.0, 1000.0) == []


def test_without_a_peer_nobody_is_told_anything(ear: Connections) -> None:
    assert wishes(ear, 10.0, 1000.0) == []
