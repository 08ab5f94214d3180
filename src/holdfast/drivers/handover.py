"""Connections of a pair: what conntrackd is told once each time that the role changes, or that it starts anew."""

from collections.abc import Callable, Iterable, Iterator, Sequence
from pathlib import Path

import msgspec
from msgspec import Struct

from holdfast.converge import Failure
from holdfast.marks import Marks
from holdfast.run import run as run_program
from holdfast.state import Change, Handover, Resource, State

UNIT = "conntrackd.service"
TO_SERVE = ("-c", "-f", "-R", "-B")
"""Put the peer's connections into the kernel; forget both caches; learn from the kernel; tell the peer everything."""
TO_STAND_BY = ("-t", "-n")
"""Let what is in the kernel go a minute later, unless this router serves again by then; ask the peer for everything.

Where conntrackd put the peer's connections straight into the kernel (`DisableExternalCache On`), `-t` would destroy all
that a promotion lives on: its text must say `off`.
"""
TIMEOUT_S = 15.0
"""For one request; committing 10,000 connections takes a tenth of a second."""
_MARK = "handover"


class Note(Struct, frozen=True):
    """The mark: the role that was handed over, which run of conntrackd (by invocation id) was told so, and after which
    word of keepalived's: who was backup for a moment has missed what the peer did then.
    """

    role: str
    daemon: str
    word: str = ""


class Handovers:
    """Tells conntrackd what the role asks for.  While it does not run there is nothing to tell: it knows no connection.

    Whether it should run is its unit's matter.  Once it runs, also after it ended by itself, it is told then: a new run
    has forgotten everything.
    """

    kinds: tuple[type[Resource], ...] = (Handover,)

    def __init__(self, marks: Marks, root: Path = Path("/"), run: Callable[..., str] = run_program) -> None:
        self.marks = marks
        self.root = root
        self.run = run

    def observe(self, desired: State) -> Iterator[Handover]:  # noqa: ARG002 the note is all there is
        """The role that the present run of conntrackd was told; nothing if it was told none."""
        note = self._noted()
        if note and (note.daemon, note.word) == (self._daemon(), self._word()):
            yield Handover(note.role)

    def check(self, changes: Sequence[Change]) -> Iterable[Failure]:  # noqa: ARG002 nothing can be told before
        """Nothing to ask."""
        return ()

    def apply(self, changes: Sequence[Change]) -> Iterator[Failure]:
        """Tell, one request after the other, and note.  What is not committed must not be forgotten: the first failure
        ends it.
        """
        for change in changes:
            if not isinstance(change.after, Handover):
                self.marks.forget(_MARK)
                continue
            daemon, word = self._daemon(), self._word()  # before: what comes meanwhile is told again
            try:
                for request in self._requests(change.after.role) if daemon else ():
                    self.run(["conntrackd", request], timeout_s=TIMEOUT_S)
            except OSError as error:
                yield Failure(change.key, str(error))
                continue
            self.marks.write(_MARK, msgspec.json.encode(Note(change.after.role, daemon, word)))

    @staticmethod
    def _requests(role: str) -> tuple[str, ...]:
        return TO_SERVE if role == "MASTER" else TO_STAND_BY

    def _daemon(self) -> str:
        """Invocation id of the running unit, empty if it does not run: the link that systemd keeps for its journal."""
        try:
            return str((self.root / "run/systemd/units" / f"invocation:{UNIT}").readlink())
        except OSError:
            return ""

    def _word(self) -> str:
        """What tells keepalived's last word from an equal one before; the hook leaves it."""
        try:
            return (self.root / "run/holdfast/role.by").read_text("ascii", "replace")
        except OSError:
            return ""

    def _noted(self) -> Note | None:
        try:
            return msgspec.json.decode(self.marks.read(_MARK), type=Note)
        except (OSError, ValueError):
            return None
