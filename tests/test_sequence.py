"""A start by the management server, as a session follows it: what it does not say anew goes, at the right moment."""

import json
from pathlib import Path

import msgspec
import pytest

from fake_machine import BOOT_LINE, NICS, FakeMachine
from holdfast import agent, alerts, sequence
from holdfast.boot import Found, leave
from holdfast.boot.line import command
from holdfast.ears.start import Start
from holdfast.inbox import BOOT_LINE as BOOT_FILE
from holdfast.marks import Marks
from holdfast.scripts import version
from holdfast.sequence import ASKED, SILENCE_S, UNHEARD_S
from holdfast.session import Session
from test_bundle import HEAD, block
from test_laws import Message, address, rule, vm

TOLD = msgspec.json.decode(BOOT_LINE.document, type=dict[str, object])["cmd_line"]
assert isinstance(TOLD, dict)
LINE = " ".join(f"{key}={value}" for key, value in TOLD.items())
WEB, SSH, MAIL = (rule(number, src_port_range=[port, port]) for number, port in ((1, 80), (2, 22), (3, 25)))


class Clock:
    """The monotonic clock of the start sequence."""

    now = 1000.0

    def monotonic(self) -> float:
        return self.now


class Routed:
    """A router over a machine in memory; its disk outlives a boot, its marks do not."""

    def __init__(self, root: Path) -> None:
        self.root, self.machine, self.boots = root, FakeMachine(NICS), 0

    def boot(self, text: str = LINE, *, fresh: bool = False, code: int = 0) -> None:
        self.boots += 1
        self.session = Session(self.root, nic_wait_s=0)
        self.session.machine = self.machine  # type: ignore[assignment]  # all that a session uses of one
        self.machine.marks = self.session.sequence.marks = Marks(self.root / f"run/marks{self.boots}")
        self.line(text, fresh=fresh, code=code)

    def line(self, text: str = LINE, *, fresh: bool = False, code: int = 0) -> None:
        if not self.session.started(Found(text, "/var/cache/cloud/cmdline", fresh, 1.5)):
            return
        leave(self.session.inbox.directory / BOOT_FILE, command(text))
        assert self.session.converge("boot", booting=True).code == code

    def send(self, message: Message) -> None:
        (self.session.inbox.directory / "told.json").write_text(json.dumps(message))
        assert self.session.update("told.json").code == 0

    def bundle(self, *messages: Message, code: int = 0) -> None:
        blocks = (block(f"{at}.json", json.dumps(message).encode()) for at, message in enumerate(messages))
        path = self.root / "bundle.cfg"
        path.write_bytes(HEAD + b"".join(blocks))
        assert self.session.bundle(path).code == code

    @property
    def rules(self) -> set[int]:
        return set(agent.current(self.session.store)[0]["firewallrules"].rules)


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    clock = Clock()
    monkeypatch.setattr(sequence, "time", clock)
    return clock


@pytest.fixture
def said(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    said: list[str] = []
    monkeypatch.setattr(alerts, "note", lambda text, **_: said.append(text))
    return said


@pytest.fixture
def router(tmp_path: Path, clock: Clock, said: list[str]) -> Routed:
    del clock, said
    routed = Routed(tmp_path)
    routed.boot(fresh=True)
    routed.bundle(WEB, SSH, vm(10, 1))
    routed.send(MAIL)
    assert routed.rules == {1, 2, 3}
    return routed


def test_a_reboot_asks_nobody(router: Routed, clock: Clock) -> None:
    router.boot()
    router.bundle(WEB)
    clock.now += SILENCE_S + 1
    router.send(vm(11, 2))
    assert router.rules == {1, 2, 3}


def test_what_was_revoked_while_the_router_was_off_goes_at_the_first_command_after_the_start(
    router: Routed, said: list[str]
) -> None:
    router.boot(fresh=True)
    assert router.rules == {1, 2, 3}  # it never waits dark
    router.bundle(WEB, vm(10, 1))
    assert router.rules == {1, 2, 3}
    router.send(vm(11, 2))
    assert router.rules == {1}
    assert any("firewallrules/2" in text and "firewallrules/3" in text for text in said)
    assert set(agent.current(router.session.store)[0]["dhcpentry"].hosts) == {"02:00:1f:00:01:01", "02:00:1f:00:01:02"}


def test_it_goes_also_when_nothing_more_is_said(router: Routed, clock: Clock) -> None:
    router.boot(fresh=True)
    router.bundle(WEB)
    clock.now += SILENCE_S - 1
    router.session.converge("timer")
    assert router.rules == {1, 2, 3}
    clock.now += 2
    router.session.converge("timer")
    assert router.rules == {1}


def test_an_older_generation_still_has_what_went(router: Routed) -> None:
    before = agent.current(router.session.store)[1]
    router.boot(fresh=True)
    router.bundle(WEB)
    router.send(vm(11, 2))
    assert router.session.rollback(before).code == 0
    assert router.rules == {1, 2, 3}


def test_a_start_that_says_nothing_changes_nothing_and_is_alerted(
    router: Routed, clock: Clock, said: list[str]
) -> None:
    router.boot(fresh=True)
    clock.now += SILENCE_S + 1
    router.session.converge("timer")
    assert router.rules == {1, 2, 3}
    clock.now += UNHEARD_S
    router.session.converge("timer")
    assert router.rules == {1, 2, 3}
    assert any("told nothing" in text for text in said)
    router.bundle(WEB)
    router.send(vm(11, 2))
    assert router.rules == {1, 2, 3}  # the start is over: this is an ordinary day


def test_another_boot_line_is_a_start(router: Routed) -> None:
    router.boot(f"{LINE} mtu=1450")
    router.bundle(SSH)
    router.send(vm(11, 2))
    assert router.rules == {2}


def test_the_same_line_that_is_found_again_begins_nothing_again(router: Routed) -> None:
    router.boot(fresh=True)
    router.bundle(WEB)
    router.line(fresh=True)  # a service that waits for lines that come late finds this one
    router.send(vm(11, 2))
    assert router.rules == {1}


def test_who_asks_for_the_version_first_starts_the_router(router: Routed) -> None:
    router.boot()
    router.session.sequence.marks.write(ASKED, b"1")
    router.bundle(WEB)
    router.send(vm(11, 2))
    assert router.rules == {1}


def test_who_asks_for_the_version_later_starts_nothing(router: Routed) -> None:
    router.boot()
    router.send(vm(12, 3))
    router.session.sequence.marks.write(ASKED, b"1")
    router.bundle(WEB)
    router.send(vm(11, 2))
    assert router.rules == {1, 2, 3}


def test_the_first_start_of_all_has_nothing_to_confirm(tmp_path: Path, clock: Clock, said: list[str]) -> None:
    routed = Routed(tmp_path)
    routed.boot(fresh=True)
    routed.bundle(WEB)
    routed.line(fresh=True)
    routed.bundle(SSH)
    clock.now += SILENCE_S + 1
    routed.send(vm(11, 2))
    assert routed.rules == {1, 2}
    assert not any("start by the management server" in text for text in said)


def test_a_line_that_cannot_be_understood_revokes_nothing(router: Routed, clock: Clock) -> None:
    router.boot("type=router name=r-10-VM eth0ip=10.1.1.1 eth0mask=nonsense", fresh=True, code=5)
    router.bundle(WEB)
    clock.now += SILENCE_S + 1
    router.send(vm(11, 2))
    assert router.rules == {1, 2, 3}


def test_single_commands_alone_are_an_ordinary_day(router: Routed, clock: Clock, said: list[str]) -> None:
    """The version may be asked for after a plain reboot; what follows is then no start."""
    router.boot()
    router.session.sequence.marks.write(ASKED, b"1")
    router.send(vm(11, 2))
    clock.now += SILENCE_S + 1
    router.session.converge("timer")
    assert router.rules == {1, 2, 3}
    assert any("was no start" in text for text in said)
    assert not router.session.sequence.note.why


def test_a_start_that_fails_revokes_nothing(router: Routed, said: list[str]) -> None:
    router.boot(fresh=True)
    router.machine.refuses = {("Elements", "ingress_port"): "no"}
    router.bundle(WEB, rule(9, src_port_range=[99, 99]), code=3)
    router.machine.refuses = {}
    router.send(vm(11, 2))
    assert router.rules == {1, 2, 3}
    assert any("has failed, and with it the start" in text for text in said)


def test_who_dies_amid_the_end_of_a_start_begins_it_again(router: Routed, monkeypatch: pytest.MonkeyPatch) -> None:
    router.boot(fresh=True)
    router.bundle(WEB)

    def die(*_: object, **__: object) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as dying:
        dying.setattr(agent, "become", die)
        with pytest.raises(KeyboardInterrupt):
            router.send(vm(11, 2))
    assert router.rules == {1, 2, 3}
    router.send(vm(11, 2))
    assert router.rules == {1}


def test_what_is_only_merged_is_said_as_well(router: Routed) -> None:
    router.boot(fresh=True)
    router.bundle(WEB)
    (router.session.inbox.directory / "merged.json").write_text(json.dumps(SSH))
    assert router.session.merge("merged.json").code == 0
    router.send(vm(11, 2))
    assert router.rules == {1, 2}


def test_a_vpc_without_tiers_keeps_its_addresses_where_only_the_version_was_asked_for(
    tmp_path: Path, clock: Clock, said: list[str]
) -> None:
    """A patch may ask for it long after a reboot; the next command is then any."""
    line = LINE.replace("type=router", "type=vpcrouter")
    vpc = Routed(tmp_path)
    vpc.boot(line)
    vpc.send(address(20))
    held = agent.current(vpc.session.store)[0]["ips"]
    vpc.boot(line)
    vpc.session.sequence.marks.write(ASKED, b"1")
    vpc.send({"type": "staticroutes", "routes": []})
    clock.now += SILENCE_S + 1
    vpc.session.converge("timer")

    assert held.addresses
    assert agent.current(vpc.session.store)[0]["ips"] == held
    assert any("was no start" in text for text in said)


def test_a_vpc_without_tiers_that_was_started_loses_what_is_not_said(tmp_path: Path, clock: Clock) -> None:
    line = LINE.replace("type=router", "type=vpcrouter")
    vpc = Routed(tmp_path)
    vpc.boot(line)
    vpc.send(address(20))
    vpc.boot(line, fresh=True)
    vpc.send({"type": "staticroutes", "routes": []})
    clock.now += SILENCE_S + 1
    vpc.session.converge("timer")

    assert not agent.current(vpc.session.store)[0]["ips"].addresses


def test_the_ear_hears_that_a_start_has_ended(router: Routed, clock: Clock) -> None:
    router.boot(fresh=True)
    ear = Start(router.root, 0.0)
    ear._sequence = router.session.sequence  # noqa: SLF001 this router's marks are elsewhere
    assert not [*ear.tick(10.0)]
    router.bundle(WEB)
    clock.now += SILENCE_S + 1

    assert not [*ear.tick(12.0)], "it looks from time to time"
    assert [wish.cause for wish in ear.tick(15.0)] == ["the start has ended"]
    router.session.converge("the start has ended")
    assert router.rules == {1}
    assert not [*ear.tick(20.0)]


def test_what_get_template_version_leaves_is_what_a_start_looks_for(tmp_path: Path) -> None:
    marks = tmp_path / "run/holdfast/marks"
    for path, text in (("etc/cloudstack-release", "Holdfast 1\n"), (version.BOOTED, "")):
        (tmp_path / path).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / path).write_text(text)

    assert not sequence.StartSequence(Marks(marks)).asked
    assert version.get_template_version([], tmp_path, 0.0) == 0
    assert sequence.StartSequence(Marks(marks)).asked
    assert Session(tmp_path, nic_wait_s=0).sequence.asked
