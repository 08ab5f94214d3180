"""Recorded stories of redundant routers: each step to the router that it names, and what both answer and become."""

import re
import time
from collections.abc import Callable, Iterator
from typing import Any

import pytest
from by_mac import by_mac, difference
from pair import lab_of
from recorded import Player, Step, story
from replay import Nics, Site, said
from slack import SLACK

from holdfast.lab.lab import Lab
from holdfast.lab.network import Segment

pytestmark = pytest.mark.lab

SEGMENT = "guests"
CONTROLS = ("control1", "control2")
CASES: dict[str, tuple[tuple[Nics, Nics], str]] = {
    "S1R": (
        (
            ((SEGMENT, "02:00:70:02:00:1e"), (CONTROLS[0], "0e:00:a9:fe:3c:3c"), ("public", "1e:00:50:00:00:80")),
            ((SEGMENT, "02:00:70:02:00:1f"), (CONTROLS[1], "0e:00:a9:fe:3d:3d"), ("public", "1e:00:50:00:00:80")),
        ),
        "10.2.2.1",
    ),
    "S3": ((((CONTROLS[0], "0e:00:a9:fe:0e:06"),), ((CONTROLS[1], "0e:00:a9:fe:c9:2c"),)), "10.10.1.1"),
}
"""Nics at power-on of both routers, and the gateway that the one that serves has."""
SAMPLE = 6
"""Every so many commands one is sent twice, and both routers are asked."""
ROLE_S = SLACK * 3.0
SERVES_S = 15.0
_STATUS = re.compile(r"Status: (PRIMARY|BACKUP|FAULT)\n")


@pytest.fixture
def lab() -> Iterator[Lab]:
    with lab_of("pairreplay") as lab:
        yield lab


class Member(Player):
    """One of the pair.  `late`: after how many commands its role was still moving, so that there was something left."""

    def __init__(self, made: Site, gateway: str) -> None:
        super().__init__(made, lambda count: count % SAMPLE == 0)
        self.gateway = gateway
        self.fixed = len(made.router.ports)
        self.peer: Member = self
        self.late = 0
        self.answers: list[str] = []

    def segment(self, mac: str) -> Segment:
        """Of one network both routers' nics differ in the last byte at most."""
        return self.site.lab.segment(mac.replace(":", "")[2:-2])

    def state(self) -> dict[str, Any]:
        """Everything that must be the same after a power cut."""
        return by_mac(self.site.state(), {nic: port.mac for nic, port in self.site.router.ports.items()})

    @property
    def serves(self) -> bool:
        """Whether it has the gateway's address."""
        router = self.site.router
        return router.running and f" {self.gateway}/" in router.shell(["ip", "-4", "-oneline", "address"]).text

    @property
    def elects(self) -> bool:
        """Whether keepalived runs."""
        return self.site.router.running and self.site.router.active("keepalived.service")

    def planned(self, where: str) -> dict[str, Any]:
        """Nothing is left to do, once a role that has just moved is acted upon."""
        plan = self.site.plan()
        if plan["changes"]:
            self.late += 1
            self.idle(where)
            plan = self.site.plan()
        if self.commands % SAMPLE == 0 and self.peer.site.router.running:
            self.peer.idle(where)
        return plan

    def idle(self, where: str) -> None:
        """Nothing is left to do, soon."""
        end = time.monotonic() + ROLE_S
        while changes := self.site.plan()["changes"]:
            assert time.monotonic() < end, f"{where}: {self.site.router.name} has something left to do: {changes}"

    def again(self, step: Step, event: tuple[str, ...], where: str) -> None:
        """Send the same again, not while an election is under way."""
        if self.elects:
            self.site.router.eventually(self._elected, "one of the pair serves", SERVES_S)
            self.idle(where)
        super().again(step, event, where)

    def _elected(self) -> bool:
        return [self.serves, self.peer.serves].count(True) == 1

    def asked(self, step: Step, event: tuple[str, ...]) -> None:
        """The question for the role and keepalived's stop and start, with what they mean to a pair; or any other."""
        where = f"step {step.number}, {step.story}: {' '.join(event[1:])}"
        if event[1] == "checkrouter.sh":
            self.site.router.eventually(self._elected, "one of the pair serves", SERVES_S)
            done = self.site.router.run(event[1])
            assert done.code == 0, f"{where}: {said(done)}"
            parsed = _STATUS.fullmatch(done.text)
            assert parsed, f"{where}: {done.text!r}"
            assert (parsed[1] == "PRIMARY") == self.serves, where
            self.answers.append(f"{step.number} {parsed[1]}")
        elif event[1] == "manage_service.sh":
            self._service(event, where)
        else:
            super().asked(step, event)

    def _service(self, event: tuple[str, ...], where: str) -> None:
        done = self.site.router.run(*event[1:])
        assert done.code == 0, f"{where}: {said(done)}"
        assert self.elects == (event[2] == "start"), where
        self.site.router.eventually(self._elected, f"{where}: one of the pair serves", SERVES_S)
        if event[2] == "stop":
            assert self.peer.serves, where
            drift = self.site.router.shell(["/usr/sbin/holdfast", "converge"])
            assert drift.code == 0, f"{where}: {said(drift)}"
            assert not self.elects, f"{where}: a wish is no drift"
        self.idle(where)
        self.answers.append(f"{where.partition(',')[0]} {event[2]}: {done.text.strip()}")

    def start(self, step: Step) -> None:
        """Boot with the step's line; nics that were plugged come later again."""
        if self.site.router.running:
            self.site.router.power_cut()
            for nic in sorted(self.site.router.ports)[self.fixed :]:
                self.site.router.unplug(nic)
            self.starting = True
        assert step.boot_line
        booted = self.site.boot(step.boot_line)
        assert booted.code == 0, said(booted)


def members(lab: Lab, scenario: str) -> tuple[Member, Member]:
    nics, gateway = CASES[scenario]
    first, second = (Member(Site(lab, nics[n], f"r{n + 1}"), gateway) for n in range(2))
    first.peer, second.peer = second, first
    return first, second


def settled(pair: tuple[Member, Member]) -> tuple[Member, Member]:
    """Master and backup, both with nothing left to do."""
    pair[0].site.router.eventually(lambda: [one.serves for one in pair].count(True) == 1, "one serves", SERVES_S)
    for one in pair:
        one.idle("at the end")
    master, backup = sorted(pair, key=lambda one: not one.serves)
    assert [_STATUS.fullmatch(one.site.router.run("checkrouter.sh").text) for one in (master, backup)]
    return master, backup


@pytest.mark.parametrize("scenario", CASES)
def test_every_step_leaves_nothing_to_do_on_either_and_a_power_cut_of_both_changes_nothing(
    lab: Lab, scenario: str, tell: Callable[[str], None]
) -> None:
    began = time.monotonic()
    pair = members(lab, scenario)
    steps = story("4.22", scenario)
    called = {name: pair[at] for at, name in enumerate(dict.fromkeys(step.router for step in steps))}
    for step in steps:
        member = called[step.router]
        if step.boot_line and any(event[1] == "cmdline" for event in step.events):
            member.start(step)
        elif not any(event[1] == "bootArgs.txt" for event in step.events):
            member.play(step)
    commands = sum(member.commands for member in pair)
    # Every kind of message has come by; a story without its commands would prove nothing.
    assert commands > (100 if scenario == "S3" else 14)
    master, backup = settled(pair)
    lived = [member.state() for member in (master, backup)]
    told = time.monotonic() - began

    for member in (master, backup):
        member.site.router.power_cut()
    # The one that served first, so that the roles are the same again.
    master.site.router.boot()
    master.site.router.eventually(lambda: master.serves, "serves", SERVES_S)
    backup.site.router.boot()
    assert settled(pair) == (master, backup)
    again = [member.state() for member in (master, backup)]
    assert [difference(*states) for states in zip(lived, again, strict=True)] == [{}, {}]
    assert again == lived
    for member in pair:
        member.asking.told_and_kept_secret()
    tell(
        f"{scenario}: {commands} commands in {told:.0f} s, {time.monotonic() - began:.0f} s in all; the role still"
        f" moved after {sum(member.late for member in pair)}\n    answers: {[member.answers for member in pair]}"
        f"\n    scripts: {[len(member.asking.answers) for member in pair]} in"
        f" {sum(member.asking.seconds for member in pair):.0f} s"
    )
