"""A boot, as a session goes through it: its line left and noted, and what is stored restored whatever else fails."""

from collections.abc import Callable, Sequence
from typing import Protocol

from msgspec.structs import replace

from holdfast import agent, alerts, boot, start
from holdfast.agent import Answer
from holdfast.boot import Found
from holdfast.boot import line as boot_line
from holdfast.errors import Failed, Partial, Rejected
from holdfast.inbox import BOOT_LINE, Inbox
from holdfast.intake import Event, take


class Booted(start.Started, Protocol):
    """What is needed of a session.  All of it is for who holds the lock."""

    inbox: Inbox


def event(text: str) -> Event:
    """Return the message that a boot line is."""
    return Event(BOOT_LINE, boot_line.command(text))


def left(session: Booted, found: Found) -> bool:
    """Leave a boot line for the next run; False if this very giving of it has been taken in this boot.

    First left and then noted: where someone dies between the two it is found again.
    """
    if found.mark in session.sequence.note.begun:
        return False
    try:
        boot.leave(session.inbox.directory / BOOT_LINE, event(found.text).document)
    except OSError as error:  # what is stored is restored all the same
        alerts.alert(session.root, [f"the boot line is not taken: {error}"])
        return True
    return start.found(session, found)


def another(session: Booted, text: str) -> bool:
    """Whether a boot line says something else than what is stored."""
    config, _ = agent.current(session.store)
    taken = take(config, [event(text)], session.machine.facts())
    return taken.accepted and taken.config["cmdline"] != config["cmdline"]


def restored(events: Sequence[Event], handle: Callable[[Sequence[Event]], Answer]) -> Answer:
    """A boot line that cannot be understood, or stored, is no reason to stay dark: what is stored still holds."""
    try:
        answer = handle(events)
    except Failed as error:
        answer = Answer(code=Failed.exit_code, reason=str(error))
    if answer.code not in (Rejected.exit_code, Failed.exit_code):
        return answer
    code = Partial.exit_code if answer.code == Rejected.exit_code else answer.code
    return replace(handle([]), code=code, reason=answer.reason, refused=answer.refused)
