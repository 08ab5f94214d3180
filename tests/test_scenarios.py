"""Every directory under scenarios/ is a case: messages in, and what must come out of them, byte for byte.

`HOLDFAST_GOLDEN=write` rewrites what is expected; docs/scenarios.md tells how to read and add a case.
"""

import os
import shutil
from collections.abc import Iterator, Sequence
from pathlib import Path

import msgspec
import pytest

from fake_machine import FakeMachine
from holdfast import agent, alerts, boot, config
from holdfast.agent import Answer
from holdfast.boot import line as boot_line
from holdfast.bundle import UPDATE, steps
from holdfast.converge import observe, plan
from holdfast.desired import Desired, desired
from holdfast.inbox import BOOT_LINE
from holdfast.intake import Event
from holdfast.marks import Marks
from holdfast.report import describe
from holdfast.router import Facts, Nic, Role
from holdfast.session import Session
from holdfast.state import Elements, File, Link, Resource, Ruleset, State, Sysctl, Unit

SCENARIOS = Path(__file__).parent / "scenarios"
CASES = sorted(path.parent for path in SCENARIOS.rglob("facts.json"))
WRITE = os.environ.get("HOLDFAST_GOLDEN") == "write"
ORDER = ("Link", "Address", "Route", "PolicyRule", "Unit", "Sysctl")
ROLES = {"MASTER", "PRIMARY", "BACKUP", "FAULT", "redundant_state", "redundant_master", "redundant_primary"}
"""Whose place is no bag: who serves is keepalived's to say."""
WITH_PROGRAM = SCENARIOS / "cmdline" / "plain"
"""The one case that shows the firewall's constant program and the kernel parameters."""


class FactsFile(msgspec.Struct, forbid_unknown_fields=True):
    """The nics as `name: MAC`, the role, the serials of passwords that guests have acknowledged, PPP, names."""

    nics: dict[str, str]
    role: Role = Role.ALONE
    acknowledged: dict[str, int] = {}
    ppp: bool = True
    names: dict[str, tuple[str, ...]] = {}


def read_facts(path: Path) -> Facts:
    given = msgspec.json.decode(path.read_bytes(), type=FactsFile)
    nics = tuple(Nic(mac, name) for name, mac in given.nics.items())
    return Facts(nics, given.role, given.acknowledged, ppp=given.ppp, names=given.names)


class Stage:
    """One case being played: a session with the real store, on a machine in memory."""

    def __init__(self, case: Path, root: Path) -> None:
        self.session = Session(root, nic_wait_s=0)
        self.machine = FakeMachine(())
        self.machine.marks = Marks(root / "run/holdfast")
        self.session.machine = self.machine  # type: ignore[assignment]  # everything of it that a session uses
        self.see(case / "facts.json")
        self.after_boot: State = {}

    def see(self, path: Path) -> None:
        facts = read_facts(path)
        for nic in set(self.machine.nics) - set(facts.nics):
            self.machine.unplug(nic.name)
        self.machine.nics, self.machine.role = facts.nics, facts.role
        self.machine.acknowledged, self.machine.ppp = facts.acknowledged, facts.ppp
        self.machine.names = facts.names

    def send(self, path: Path) -> Answer:
        """Hand in one file the way it would come: a boot line at boot, a bundle, the nics' change, or a message."""
        if path.suffix == ".txt":
            boot.leave(self.session.inbox.directory / BOOT_LINE, boot_line.command(path.read_text()))
            return self.session.converge("boot", booting=True)
        if path.suffix == ".cfg":
            return self.session.bundle(path)
        if path.name.endswith("-facts.json"):
            self.see(path)
            return self.handle([])
        return self.handle([Event(path.name, path.read_bytes())])

    def handle(self, events: Sequence[Event]) -> Answer:
        return agent.handle(events, self.session.store, self.machine, cause="scenario")

    def wanted(self) -> State:
        return self.meaning().state

    def meaning(self) -> Desired:
        now, _ = agent.current(self.session.store)
        return desired(now, self.machine.facts())


def messages(case: Path) -> list[Path]:
    return sorted(path for path in case.iterdir() if path.is_file() and path.name[0].isdigit())


@pytest.mark.parametrize("case", CASES, ids=lambda case: str(case.relative_to(SCENARIOS)))
def test_scenario(case: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(alerts, "note", lambda *_, **__: None)
    stage = Stage(case, tmp_path)
    answers = []
    for path in messages(case):
        answer = stage.send(path)
        answers.append((path.name, answer))
        assert plan(stage.machine.drivers, stage.wanted()) == [], f"{path.name}: not verified"
        before = dict(stage.machine.held)
        again = stage.send(path)
        assert (again.changes, again.generation) == ((), answer.generation), f"{path.name}: sent again"
        assert stage.machine.held == before
        stage.after_boot = stage.after_boot or stage.wanted()
    assert_path_forgotten(stage)
    assert_only_known_texts(stage)

    compare(case / "expected", dict(expectations(case, stage, answers)))


def assert_path_forgotten(stage: Stage) -> None:
    """A machine that has seen nothing of the way, given the bags alone, ends the same."""
    fresh = FakeMachine(stage.machine.nics, stage.machine.role)
    fresh.ppp, fresh.names = stage.machine.ppp, stage.machine.names
    agent.handle([], stage.session.store, fresh, cause="restore")

    assert observe(fresh.drivers, stage.wanted()) == observe(stage.machine.drivers, stage.wanted())


def assert_only_known_texts(stage: Stage) -> None:
    """What is stored reads back as it was written, no bag holds a role, and no conflict hides behind a good answer."""
    held = stage.session.store.load()
    if held:
        told = {word for document in held.documents.values() for word in strings(msgspec.json.decode(document))}
        assert told.isdisjoint(ROLES)
        assert config.dump(config.load(held.documents)) == held.documents
    assert stage.meaning().conflicts == ()


def strings(document: object) -> Iterator[str]:
    """Every key and every text in a document."""
    if isinstance(document, str):
        yield document
    elif isinstance(document, dict | list):
        yield from (key for key in document if isinstance(document, dict))
        for value in document.values() if isinstance(document, dict) else document:
            yield from strings(value)


def expectations(case: Path, stage: Stage, answers: list[tuple[str, Answer]]) -> Iterator[tuple[str, str]]:
    """What is to be compared, as relative path and text."""
    state, booted = stage.wanted(), stage.after_boot if len(answers) > 1 else {}
    yield "answers.txt", "".join(line for name, answer in answers for line in answer_lines(name, answer))
    yield "state.txt", "".join(state_lines(state, sysctls=case == WITH_PROGRAM))
    yield "ruleset.nft", "".join(f"{line}\n" for line in sorted(element_lines(state)))
    if case == WITH_PROGRAM:
        yield "program.nft", next(r.text for r in state.values() if isinstance(r, Ruleset))
    for key, resource in state.items():
        if isinstance(resource, File) and booted.get(key) != resource:
            yield f"files{resource.path}", resource.text
    pending = [f"{part.what} waits for {part.waits_for}\n" for _, part in stage.meaning().pending]  # type: ignore[union-attr]
    if pending:
        yield "pending.txt", "".join(pending)


def answer_lines(name: str, answer: Answer) -> Iterator[str]:
    yield f"{name}: exit {answer.code}{f', {answer.reason}' if answer.reason else ''}\n"
    for what in ("refused", "stored", "unknown", "pending", "awaits", "conflicts", "faults"):
        for text in getattr(answer, what):
            yield f"  {what}: {text}\n"


def state_lines(state: State, *, sysctls: bool) -> Iterator[str]:
    for kind in ORDER:
        found = [r for key, r in state.items() if key[0] == kind and (sysctls or not isinstance(r, Sysctl))]
        yield from sorted(f"{words(resource)}\n" for resource in found)


def words(resource: Resource) -> str:
    text = describe(resource)
    if isinstance(resource, Link):
        return f"{text} {'up' if resource.up else 'down'}{f' mtu {resource.mtu}' if resource.mtu else ''}"
    if isinstance(resource, Unit):
        return f"{text} {'running' if resource.running else 'stopped'}"
    return f"{text} = {resource.value}" if isinstance(resource, Sysctl) else text


def element_lines(state: State) -> Iterator[str]:
    for resource in state.values():
        if isinstance(resource, Elements):
            for key, value in resource.entries.items():
                yield f"{resource.set} {{ {key}{f' : {value}' if value else ''} }}"


def compare(place: Path, expected: dict[str, str]) -> None:
    if WRITE:
        shutil.rmtree(place, ignore_errors=True)
        for name, text in expected.items():
            (place / name).parent.mkdir(parents=True, exist_ok=True)
            (place / name).write_text(text)
    stored = {str(path.relative_to(place)): path.read_text() for path in place.rglob("*") if path.is_file()}
    assert expected == stored


def test_there_are_cases() -> None:
    assert len(CASES) > 50
    assert all(messages(case) for case in CASES)


def test_bundles_in_cases_name_what_they_bring() -> None:
    for path in (path for case in CASES for path in messages(case) if path.suffix == ".cfg"):
        assert any(step.script == UPDATE for step in steps(path.read_bytes()))
