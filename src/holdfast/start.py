"""A start by the management server, as a session goes through it: begun, followed, confirmed or called off."""

from pathlib import Path
from typing import Protocol

from holdfast import agent, alerts
from holdfast import config as bags
from holdfast.agent import Answer
from holdfast.boot import Found
from holdfast.boot import line as boot_line
from holdfast.config import Config
from holdfast.intake import Event, take
from holdfast.machine import Machine
from holdfast.sequence import ASKED, StartSequence
from holdfast.starting import begins, confirmed, lost
from holdfast.store import Store

_ASKED_FIRST = "it asked for the template's version first"


class Started(Protocol):
    """What is needed of a session.  All of it is for who holds the lock."""

    root: Path
    store: Store
    machine: Machine
    sequence: StartSequence

    def become(self, config: Config, cause: str) -> Answer:
        """Take these bags as if they were commanded now."""


def found(session: Started, line: Found) -> bool:
    """Take note if a boot line tells of a start, after which everything is said anew.

    False if this very giving of it has been taken in this boot.
    """
    config, number = agent.current(session.store)
    # Onto what is stored: a line that changes nothing there is the same one.  One that cannot be understood tells
    # nothing, and least of all that everything else was revoked.
    taken = take(config, [Event("cmd_line.json", boot_line.command(line.text))], session.machine.facts())
    told = taken.config["cmdline"]
    why = begins(config["cmdline"], told, fresh=line.fresh) if number and taken.accepted else ""
    news = session.sequence.begin(why, {**bags.EMPTY, "cmdline": told}, line.mark)
    if news and why:
        alerts.note(f"a start by the management server ({why}): what it does not say anew will go")
    return news


def step(session: Started, kind: str) -> bool:
    """Follow a step, `boot`, `bundle` or `single`; whether it is part of a start.  Where one has ended before it, what
    was left unsaid goes first; empty: only that.
    """
    config, number = agent.current(session.store)
    sequence = session.sequence
    if kind and number and sequence.asked:
        sequence.begin(_ASKED_FIRST, {**bags.EMPTY, "cmdline": config["cmdline"]}, ASKED)
    vpc = config["cmdline"].type == "vpcrouter"
    if sequence.ends(kind, vpc=vpc):
        # What guests have always comes in bundles: single commands alone are an ordinary day.  A VPC without tiers has
        # nothing for guests; where the version was asked for and no more, as anybody may, an ordinary day is likelier.
        told = sequence.note.why != _ASKED_FIRST
        if sequence.note.bundles or (told and vpc and not config["guestnetwork"].tiers):
            _confirm(session, config)
        else:
            call_off(session, "what was said after the boot was no start")
    return sequence.step(kind) if kind else False


def look_after(session: Started) -> None:
    """End a start that has fallen silent."""
    if session.sequence.unheard:
        call_off(session, "started by the management server, and told nothing since")
    step(session, "")


def call_off(session: Started, why: str) -> None:
    """What was restored stays, all of it: nobody has said enough to tell what was revoked."""
    session.sequence.over()
    alerts.alert(session.root, [f"{why}: everything stays as it was restored"])


def _confirm(session: Started, config: Config) -> None:
    """In one run: what a start has not said was revoked while this router was off."""
    then = confirmed(config, session.sequence.said, session.machine.facts())
    gone = lost(config, then)
    cause = "the start has ended"
    done = session.become(then, cause)
    if gone and not done.code:
        alerts.note(f"{cause}: gone, since it was not said anew: {', '.join(gone)}")
    session.sequence.over()  # not before: who dies amid this begins it again
