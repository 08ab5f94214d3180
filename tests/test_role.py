"""The role: keepalived's word as a fact, a run that follows it, and what is reported of it."""

import errno
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest

from fake_machine import NICS, FakeDriver, FakeMachine
from holdfast import alerts, cli, facts, manage_service, promotion_file, role_report
from holdfast.answers.checkrouter import ALONE, UNKNOWN, WATCH, Seen, doubts, pair
from holdfast.boot import line as boot_line
from holdfast.config import EMPTY
from holdfast.features.cmdline import CmdLine, merge
from holdfast.features.state_report import FEATURE
from holdfast.marks import Marks
from holdfast.router import Facts, Role, Router
from holdfast.session import ROLES, Session
from holdfast.shared import BootLine
from holdfast.state import Change, Handover

LINE = (
    "name=r-60-VM type=router eth0ip=10.31.0.14 eth0mask=255.255.255.0 privateMtu=1500 redundant_router=1 advert_int=1 "
    "redundant_state=BACKUP guestgw=10.31.0.1 eth1ip=169.254.31.2 eth1mask=255.255.0.0 eth2ip=198.51.100.20 "
    "eth2mask=255.255.255.0 gateway=198.51.100.1"
)
PUBLIC_LINK = ("Link", "eth2")


def say(root: Path, word: str) -> None:
    (root / "run/holdfast").mkdir(parents=True, exist_ok=True)
    (root / "run/holdfast/role").write_text(word)


class Elected(FakeMachine):
    """A machine that reads its role as the real one does.  `words`: what keepalived says while each run is at work."""

    def __init__(self, root: Path, words: Sequence[str] = ()) -> None:
        super().__init__(NICS)
        self.root, self.words, self.roles = root, list(words), list[str]()
        others = [driver for driver in self.drivers if driver.kinds != (Handover,)]
        self.drivers = [Speaking(self, (Handover,)), *others]
        self.marks = Marks(root / "run/holdfast/marks")

    def facts(self) -> Facts:
        self.role = facts.role(self.root)
        return super().facts()


class Speaking(FakeDriver):
    """The first that is told of a role; keepalived goes on speaking meanwhile."""

    def apply(self, changes: Sequence[Change]) -> Any:
        elected = self.machine
        assert isinstance(elected, Elected)
        elected.roles += [change.after.role for change in changes if isinstance(change.after, Handover)]
        if elected.words:
            say(elected.root, elected.words.pop(0))
        return super().apply(changes)


def session(root: Path, monkeypatch: pytest.MonkeyPatch, words: Sequence[str] = ()) -> tuple[Session, Elected]:
    monkeypatch.setattr(alerts, "note", lambda *_, **__: None)
    made = Session(root, nic_wait_s=0)
    machine = Elected(root, words)
    made.machine = machine  # type: ignore[assignment]  # everything of it that a session uses
    made.inbox.directory.mkdir(parents=True)
    (made.inbox.directory / "cmd_line.json").write_bytes(boot_line.command(LINE))
    return made, machine


def up(machine: Elected) -> bool:
    link: Any = machine.held[PUBLIC_LINK]
    return bool(link.up)


@pytest.mark.parametrize("word", ["MASTER", "BACKUP", "FAULT"])
def test_a_word_of_keepalived_s_is_the_role(tmp_path: Path, word: str) -> None:
    say(tmp_path, f"{word}\n")

    assert facts.role(tmp_path) is Role[word]


@pytest.mark.parametrize("text", ["", "\n", "MAST", "STOP", "ALONE", "MASTER BACKUP", "master", "\xff\0"])
def test_any_other_text_is_none(tmp_path: Path, text: str) -> None:
    say(tmp_path, text)

    assert facts.role(tmp_path) is Role.ALONE


def test_no_word_is_none_and_neither_is_a_directory(tmp_path: Path) -> None:
    assert facts.role(tmp_path) is Role.ALONE

    (tmp_path / "run/holdfast/role").mkdir(parents=True)
    assert facts.role(tmp_path) is Role.ALONE


def test_one_of_a_pair_starts_as_backup_with_its_public_link_down(tmp_path: Path, monkeypatch: Any) -> None:
    made, machine = session(tmp_path, monkeypatch)

    assert made.converge("boot", booting=True).code == 0
    assert not up(machine)
    assert machine.roles == ["BACKUP"]


def test_a_promotion_that_cannot_be_worked_out_ahead_fails_no_command(tmp_path: Path, monkeypatch: Any) -> None:
    made, machine = session(tmp_path, monkeypatch)
    notes: list[str] = []
    monkeypatch.setattr(alerts, "note", lambda text, **_: notes.append(text))

    def full(*_: Any) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(promotion_file, "prepare", full)

    assert made.converge("boot", booting=True).code == 0
    assert machine.roles == ["BACKUP"]
    assert any("no promotion could be worked out ahead: " in text and "No space left" in text for text in notes)


def test_a_service_that_does_not_become_as_it_was_asked_is_told(tmp_path: Path, monkeypatch: Any, capsys: Any) -> None:
    made, machine = session(tmp_path, monkeypatch)
    assert made.converge("boot", booting=True).code == 0
    monkeypatch.setattr(manage_service, "Session", lambda _root: made)
    machine.held.pop(("Unit", "keepalived.service"))
    machine.ignores.add(("Unit", "keepalived.service"))

    assert manage_service.main(["start", "conntrackd"], tmp_path) == 0  # that one is well
    assert manage_service.main(["start", "keepalived"], tmp_path) == 3
    assert "keepalived" in capsys.readouterr().err


def test_a_role_that_moves_during_a_run_is_followed_before_the_answer(tmp_path: Path, monkeypatch: Any) -> None:
    made, machine = session(tmp_path, monkeypatch, ["MASTER"])

    answer = made.converge("boot", booting=True)

    assert answer.code == 0
    assert machine.roles == ["BACKUP", "MASTER"]
    assert up(machine)
    assert [text for text in answer.changes if "eth2" in text and "up" in text]
    assert made.converge("again").changes == ()


def test_a_command_and_a_rollback_follow_it_too(tmp_path: Path, monkeypatch: Any) -> None:
    made, machine = session(tmp_path, monkeypatch)
    made.converge("boot", booting=True)
    say(tmp_path, "MASTER")
    machine.words = ["BACKUP"]
    (made.inbox.directory / "vm.json").write_text(
        json.dumps({"type": "dhcpentry", "host_name": "web1", "mac_address": "02:00:1f:00:01:0b",
                    "ipv4_address": "10.31.0.11", "default_entry": True})
    )  # fmt: skip

    assert made.update("vm.json").code == 0
    assert machine.roles == ["BACKUP", "MASTER", "BACKUP"]
    assert not up(machine)

    say(tmp_path, "MASTER")
    machine.words = ["FAULT"]
    assert made.rollback(1).code == 0
    assert machine.roles[3:] == ["MASTER", "FAULT"]
    assert not up(machine)


def test_a_role_that_never_rests_does_not_hold_a_command_for_ever(tmp_path: Path, monkeypatch: Any) -> None:
    made, machine = session(tmp_path, monkeypatch, ["MASTER", "BACKUP"] * 20)

    assert made.converge("boot", booting=True).code == 0
    assert len(machine.roles) == ROLES + 1


SERVING = Seen(role="MASTER", runs=True, virtual="10.1.1.1", held=True, outer={"eth2": True}, word="PRIMARY")
STANDING_BY = Seen(role="BACKUP", runs=True, virtual="10.1.1.1", held=False, outer={"eth2": False}, word="PRIMARY")


def test_what_fits_together_is_reported_by_its_word() -> None:
    assert pair(SERVING) == "Status: PRIMARY"
    assert pair(SERVING._replace(word="MASTER")) == "Status: MASTER"
    assert pair(STANDING_BY) == "Status: BACKUP"
    assert pair(STANDING_BY._replace(role="FAULT")) == "Status: FAULT"
    assert pair(STANDING_BY._replace(role="")) == "Status: BACKUP"  # keepalived has only just started


def test_before_there_is_a_guest_network_nobody_is_elected() -> None:
    nobody = Seen(role="", runs=False, virtual="", held=False, outer={"eth1": False}, word="PRIMARY")

    assert pair(nobody) == "Status: BACKUP"
    assert pair(nobody._replace(role="MASTER")) == "Status: BACKUP"  # of a network that has gone
    assert pair(nobody._replace(outer={"eth1": True})) == "Status: FAULT"


@pytest.mark.parametrize(
    ("seen", "why"),
    [
        (SERVING._replace(runs=False), "keepalived does not run"),
        (SERVING._replace(held=False), "MASTER, but 10.1.1.1 is not here"),
        (SERVING._replace(outer={"eth2": True, "eth3": False}), "MASTER, but eth3 is down"),
        (STANDING_BY._replace(runs=False), "keepalived does not run"),
        (STANDING_BY._replace(held=True), "BACKUP, but 10.1.1.1 is here"),
        (STANDING_BY._replace(outer={"eth2": True}), "BACKUP, but eth2 is up"),
        (STANDING_BY._replace(role="", outer={"eth2": True}), "BACKUP, but eth2 is up"),
        (SERVING._replace(missing=("eth2",)), "the outer nic eth2 is missing"),
        (STANDING_BY._replace(missing=("1e:00:00:00:00:01",)), "the outer nic 1e:00:00:00:00:01 is missing"),
        (SERVING._replace(kept={"10.1.1.1": True, "10.1.2.1": False}), "MASTER, but 10.1.2.1 is not here"),
        (STANDING_BY._replace(kept={"10.1.1.1": False, "10.1.2.1": True}), "BACKUP, but 10.1.2.1 is here"),
    ],
)
def test_what_does_not_fit_together_is_a_fault_with_a_reason(seen: Seen, why: str) -> None:
    assert doubts(seen) == [why]
    assert pair(seen) == "Status: FAULT"


def test_a_text_that_keepalived_has_refused_is_named_and_makes_no_other_role() -> None:
    refused = SERVING._replace(refused="(Line 40) interface eth3 does not exist")
    assert doubts(refused) == ["keepalived has refused its text: (Line 40) interface eth3 does not exist"]
    assert pair(refused) == "Status: PRIMARY"


def watch(text: str, *, mtu: int = 0) -> dict[str, Any]:
    """What one of a pair leaves for the report, by its boot line's word; `mtu` is what newer servers send."""
    told = {"type": "router", "redundant_router": "1", "privateMtu": str(mtu or "null"), "redundant_state": text}
    command = CmdLine(cmd_line={key: value for key, value in told.items() if value})
    router = Router({**EMPTY, "cmdline": merge(BootLine(), command, Router(EMPTY, Facts())).bag}, Facts())
    (claim,) = FEATURE.contribute(None, router)
    part: Any = claim.part
    assert part.path == WATCH
    made: dict[str, Any] = json.loads(part.text)
    return made


@pytest.mark.parametrize(
    ("said", "mtu", "word"),
    [
        ("PRIMARY", 0, "PRIMARY"),
        ("MASTER", 0, "MASTER"),
        ("", 0, "PRIMARY"),
        ("BACKUP", 1500, "PRIMARY"),
        ("BACKUP", 0, "MASTER"),
    ],
)
def test_the_word_is_the_one_that_the_server_itself_used(said: str, mtu: int, word: str) -> None:
    assert watch(said, mtu=mtu)["word"] == word


def test_a_router_that_is_not_one_of_a_pair_leaves_nothing() -> None:
    assert list(FEATURE.contribute(None, Router({"cmdline": BootLine(type="router")}, Facts()))) == []


def test_the_report_reads_what_is_there(tmp_path: Path) -> None:
    assert role_report.line(tmp_path, settle_s=0) == UNKNOWN

    bags = tmp_path / "etc/cloudstack"
    bags.mkdir(parents=True)
    (bags / "cmdline.json").write_text('{"type": "router"}')
    assert role_report.line(tmp_path, settle_s=0) == ALONE

    (bags / "cmdline.json").write_text('{"type": "router", "redundant": true}')
    assert role_report.line(tmp_path, settle_s=0) == UNKNOWN

    say(tmp_path, "MASTER")
    (tmp_path / WATCH.lstrip("/")).write_text('{"outer": ["lo"], "virtual": "127.0.0.1", "word": "PRIMARY"}')
    assert role_report.line(tmp_path, settle_s=0) == "Status: FAULT"
    assert role_report.look(tmp_path) == Seen(
        role="MASTER", runs=False, virtual="127.0.0.1", held=True, outer={"lo": True}, word="PRIMARY"
    )

    (tmp_path / WATCH.lstrip("/")).write_text(
        '{"outer": ["lo"], "virtual": "127.0.0.1", "word": "PRIMARY", "kept": ["127.0.0.1", "192.0.2.9"]}'
    )
    (tmp_path / "run/holdfast/vrrp").mkdir()
    (tmp_path / "run/holdfast/vrrp/check.log").write_text("\nsaid: no\nmore\n")
    seen = role_report.look(tmp_path)
    assert seen
    assert (seen.kept, seen.refused) == ({"127.0.0.1": True, "192.0.2.9": False}, "said: no")
    (tmp_path / WATCH.lstrip("/")).write_text('{"outer": ["lo"], "virtual": "127.0.0.1", "word": "PRIMARY"}')

    units = tmp_path / "run/systemd/units"
    units.mkdir(parents=True)
    (units / "invocation:keepalived.service").symlink_to("7f")
    assert role_report.line(tmp_path, settle_s=0) == "Status: PRIMARY"

    named = '{"outer": ["lo"], "missing": ["eth3"], "virtual": "127.0.0.1", "word": "PRIMARY"}'
    (tmp_path / WATCH.lstrip("/")).write_text(named)
    assert role_report.line(tmp_path, settle_s=0) == "Status: FAULT"

    (tmp_path / WATCH.lstrip("/")).write_text('{"outer": ["lo", "nix9"], "virtual": "127.0.0.1", "word": "PRIMARY"}')
    assert role_report.line(tmp_path, settle_s=0) == "Status: FAULT"


TRIE = """\
Main:
  +-- 0.0.0.0/0 2 0 2
     +-- 10.1.1.0/24 2 0 2
        |-- 10.1.1.0
           /24 link UNICAST
        |-- 10.1.1.11
           /32 host LOCAL
        |-- 10.1.1.255
           /32 link BROADCAST
     |-- 10.1.1.2
        /32 universe UNICAST
"""


def test_an_address_is_here_if_the_kernel_takes_it_for_its_own() -> None:
    assert role_report.is_local(TRIE, "10.1.1.11")
    assert not role_report.is_local(TRIE, "10.1.1.1")
    assert not role_report.is_local(TRIE, "10.1.1.2")  # a route to somebody else
    assert not role_report.is_local(TRIE, "10.1.1.255")


def test_the_flag_of_a_moved_role_is_taken_once_and_put_back_by_what_fails(tmp_path: Path) -> None:
    flag = tmp_path / role_report.MOVED
    flag.parent.mkdir(parents=True)
    acted: list[int] = []

    def act(code: int) -> int:
        assert not flag.exists()  # what is said from now on sets it again
        acted.append(code)
        return code

    assert cli.followed(tmp_path, lambda: act(0)) == 0
    assert acted == []

    for code, stays in ((0, False), (2, False), (5, False), (3, True), (1, True), (4, True)):
        flag.touch()
        assert cli.followed(tmp_path, lambda code=code: act(code)) == code  # type: ignore[misc]
        assert flag.exists() is stays

    def broken() -> int:
        raise OSError("no space")

    with pytest.raises(OSError, match="no space"):
        cli.followed(tmp_path, broken)
    assert flag.exists()
