"""Connections of a pair: what conntrackd is told once each time that the role changes, or that it starts anew."""

from collections.abc import Callable, Iterable, Iterator, Sequence
from pathlib import Path

import msgspec
from msgspec import Struct

from holdfast import pair_files
from holdfast.converge import Failure
from holdfast.marks import Marks
from holdfast.run import run as run_program
from holdfast.state import Change, Handover, Resource, State

UNIT = "conntrackd.service"
TO_SERVE = (("-f",), ("-R",), ("-B",))
"""Forget what was learnt before; learn from the kernel, where the peer's connections are; tell it everything."""
TO_STAND_BY = (("-f", "internal"), ("-n",))
"""Forget what was served, or its end in this kernel would be told to the peer, which ends it there; ask for everything.

Never `-t`: a minute later it would destroy all that a promotion lives on.
"""
TO_TELL_AGAIN = (("-R",), ("-B",))
"""Look for what was missed, and tell all: with that, what the peer holds does not run out."""
TO_FORGET = (("-F",), ("-n",))
"""Take all that is not this router's own out of the kernel, and ask for it anew."""
TIMEOUT_S = 15.0
"""For one request; learning 100,000 connections from the kernel takes half a second."""
_MARK = "handover"


class Note(Struct, frozen=True):
    """The mark: the role that was handed over, which run of conntrackd (by invocation id) was told so, and after which
    word of keepalived's: who was backup for a moment has missed what the peer did then.
    """

    role: str
    daemon: str
    word: str = ""


def ask(requests: Sequence[Sequence[str]], run: Callable[..., str] = run_program) -> None:
    """Ask conntrackd, one request after the other; CommandFailed at the first that it does not take."""
    for request in requests:
        run(["conntrackd", *request], timeout_s=TIMEOUT_S)


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
        """Tell and note; what failed is told again, from the first request on."""
        for change in changes:
            if not isinstance(change.after, Handover):
                self.marks.forget(_MARK)
                continue
            daemon, word = self._daemon(), self._word()  # before: what comes meanwhile is told again
            try:
                if daemon:
                    ask(TO_SERVE if change.after.role == "MASTER" else TO_STAND_BY, self.run)
                    pair_files.note_synced(self.root)
            except OSError as error:
                yield Failure(change.key, str(error))
                continue
            self.marks.write(_MARK, msgspec.json.encode(Note(change.after.role, daemon, word)))

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
