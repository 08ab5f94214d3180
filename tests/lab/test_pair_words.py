"""A word of keepalived's that is no longer so: one router serves again, and nobody was asked to do anything."""

import time
from collections.abc import Callable, Iterator

import pytest
from pair import IsolatedPair, isolated_pair

pytestmark = [pytest.mark.lab, pytest.mark.alone, pytest.mark.pair, pytest.mark.appliance]

WORD = "/run/holdfast/role"
LOG = "/run/holdfast/vrrp/check.log"


@pytest.fixture(scope="module")
def shared() -> Iterator[IsolatedPair]:
    with isolated_pair("words") as pair:
        yield pair


@pytest.fixture
def pair(shared: IsolatedPair) -> IsolatedPair:
    shared.ready()
    return shared


def mends(pair: IsolatedPair, tell: Callable[[str], None], what: str) -> None:
    began = time.monotonic()
    pair.settles(20)
    tell(f"{what}: {time.monotonic() - began:.1f} s")
    pair.ready()
    assert sorted(map(pair.says, pair.routers)) == ["BACKUP", "PRIMARY"]


def test_a_backup_that_was_called_master_is_backup_again(pair: IsolatedPair, tell: Callable[[str], None]) -> None:
    master, backup = pair.master, pair.backup
    elections = len(pair.entered(master))
    assert backup.run("master.py", "--master").code == 0
    assert pair.outside(backup), "it has opened its public link beside the master's"

    mends(pair, tell, "a backup that was called master")

    assert pair.master is master
    assert len(pair.entered(master)) == elections


def test_a_master_whose_word_was_lost_is_master_again(pair: IsolatedPair, tell: Callable[[str], None]) -> None:
    master, backup = pair.master, pair.backup
    elections = len(pair.entered(backup))
    master.write(WORD, "BACKUP\n")
    master.eventually(lambda: master.read(WORD) == "MASTER\n", "says that it serves", 12)

    mends(pair, tell, "a word that was lost")

    assert pair.master is master
    assert len(pair.entered(backup)) == elections


def test_a_text_that_was_refused_is_named_until_it_is_taken(pair: IsolatedPair) -> None:
    master = pair.master
    path = "/etc/keepalived/keepalived.conf"
    good = master.read(path)
    assert "refused its text" not in master.shell(["holdfast", "status"]).text, master.read(LOG)
    master.write(path, good.replace("dev eth0", "dev eth77"))
    master.shell(["systemctl", "reload", "keepalived.service"])
    master.eventually(lambda: "refused its text" in master.shell(["holdfast", "status"]).text, "names it", 5)
    assert pair.says(master) == "PRIMARY"
    master.write(path, good)
    master.shell(["chmod", "600", path])
    master.shell(["systemctl", "reload", "keepalived.service"])
    master.eventually(lambda: "refused its text" not in master.shell(["holdfast", "status"]).text, "has taken it", 5)


def test_one_whose_keepalived_does_not_come_back_leaves_the_service_to_its_peer(
    pair: IsolatedPair, tell: Callable[[str], None]
) -> None:
    master, backup = pair.master, pair.backup
    dropin = "/run/systemd/system/keepalived.service.d/zz-gone.conf"
    master.shell(["mkdir", "-p", "/run/systemd/system/keepalived.service.d"])
    master.write(dropin, "[Service]\nExecStart=\nExecStart=/nowhere/keepalived\n")
    assert master.shell(["systemctl", "daemon-reload"]).code == 0
    try:
        master.shell(["systemctl", "kill", "--signal=KILL", "keepalived.service"])
        backup.eventually(lambda: pair.holds(backup, pair.gateway), "serves", 8)
        began = time.monotonic()
        master.eventually(lambda: not pair.outside(master), "has taken its public link down", 20)
        tell(
            f"a keepalived that is gone: its public link is down {time.monotonic() - began:.1f} s after the peer serves"
        )
        master.eventually(lambda: not pair.holds(master, pair.gateway), "has left no address behind", 20)
        assert pair.outside(backup)
        assert pair.says(backup) == "PRIMARY"
        # systemd tries anew each four seconds: for that moment it runs, as a backup.
        assert pair.says(master) in ("FAULT", "BACKUP")
    finally:
        master.shell(["rm", dropin])
        master.shell(["systemctl", "daemon-reload"])
    pair.ready()
    assert pair.master is backup
