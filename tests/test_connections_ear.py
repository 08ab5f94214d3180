"""When the peer is told of all connections again, and when all are asked for anew."""

import json
import time
from pathlib import Path

import pytest

from holdfast import conntrackd, pair_files, pairing
from holdfast.ears.connections import MISSED, REFILL, TELL, Connections


@pytest.fixture
def ear(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Connections:
    monkeypatch.setattr(pair_files, "flows", lambda: 10_000)
    monkeypatch.setattr(pair_files, "LISTENERS", tmp_path / "netlink")
    return Connections(tmp_path, 0.0)


LISTENERS = """\
sk               Eth Pid        Groups   Rmem     Wmem     Dump  Locks    Drops    Inode
0000000001       0   911        00000111 0        0        0     2        77       31
0000000002       12  3817272285 00000007 0        0        0     2        {}       32
0000000003       12  3701460324 00000000 0        0        0     2        500      33
0000000004       12  0          00000000 0        0        0     2        0        34
"""


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
    times = [float(number) for number in range(121)]
    assert [cause for _, cause in wishes(ear, *times)] == [TELL, TELL]
    assert conntrackd.REFRESH_S < 60  # a stream without news runs out after 120 s; one telling may be lost


def test_a_backup_that_holds_too_many_asks_anew_after_a_while(ear: Connections) -> None:
    pair(ear.root, "BACKUP", "MASTER", 1_000)
    assert wishes(ear, 10.0, conntrackd.REFILL_S - 1, conntrackd.REFILL_S + 10) == [(conntrackd.REFILL_S + 10, REFILL)]


def test_what_conntrackd_missed_in_a_burst_is_looked_for_once_the_burst_is_over(ear: Connections) -> None:
    pair(ear.root, "MASTER", "BACKUP", 9_990)
    seen = []
    for at, drops in enumerate((0, 0, 40, 90, 90, 90, 90)):
        (ear.root / "netlink").write_text(LISTENERS.format(drops))
        seen += wishes(ear, float(at))
    assert seen == [(4.0, MISSED)]


def test_what_was_missed_while_no_peer_was_heard_is_looked_for_when_there_is_one(ear: Connections) -> None:
    pairing.leave(ear.root, "run/holdfast/role", "MASTER\n")
    for at, drops in enumerate((0, 40, 40, 40)):
        (ear.root / "netlink").write_text(LISTENERS.format(drops))
        assert wishes(ear, float(at)) == []
    pair(ear.root, "MASTER", "BACKUP", 9_990)
    assert wishes(ear, 4.0, 5.0) == [(4.0, MISSED)]


def test_of_the_listeners_those_count_that_hear_of_connections() -> None:
    assert conntrackd.unheard(LISTENERS.format(40)) == 40


def test_what_a_backup_missed_of_its_own_is_nothing_to_its_peer(ear: Connections) -> None:
    pair(ear.root, "BACKUP", "MASTER", 9_990)
    for drops in (0, 40, 40, 40):
        (ear.root / "netlink").write_text(LISTENERS.format(drops))
        assert wishes(ear, 10.0 + drops) == []


@pytest.mark.parametrize(("own", "peers"), [("MASTER", "MASTER"), ("BACKUP", "BACKUP"), ("FAULT", "MASTER")])
def test_between_roles_nobody_is_told_anything(ear: Connections, own: str, peers: str) -> None:
    pair(ear.root, own, peers, 0)
    assert wishes(ear, 10.0, 100.0, 1000.0) == []


def test_without_a_peer_nobody_is_told_anything(ear: Connections) -> None:
    assert wishes(ear, 10.0, 1000.0) == []
