"""The usage table: changed in place, so that what was counted is never lost to a change of ours."""

import re
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path

import msgspec
from msgspec import Struct

from holdfast import usage_totals
from holdfast.converge import Failure
from holdfast.drivers.ruleset import generation, listed
from holdfast.marks import Marks
from holdfast.run import CommandFailed, run
from holdfast.state import Change, Resource, State
from holdfast.usage import Usage, program
from holdfast.usage_table import NOTE, TABLE, Count

_COUNTER = re.compile(r"^\tcounter (\S+) \{\n.*?^\t\}\n\n?", re.MULTILINE | re.DOTALL)


class Note(Struct, frozen=True):
    """What was there when last seen; `generation` 0 means look again, an empty `listing` that there is no table."""

    generation: int = 0
    listing: str = ""
    usage: Usage | None = None


class Usages:
    """Keeps the one table; `root` is where the totals that outlive a reboot are."""

    kinds: tuple[type[Resource], ...] = (Usage,)

    def __init__(self, marks: Marks, root: Path = Path("/")) -> None:
        self.marks = marks
        self.root = root

    def observe(self, desired: State) -> Iterator[Usage]:  # noqa: ARG002 the whole table is ours
        """Yield what is counted; starts no program while the ruleset's generation is the one remembered."""
        note = self._seen()
        if note.listing:
            # A table that is there and that we know nothing of is none of the wanted ones.
            yield note.usage or Usage((), ("unknown",))

    def check(self, changes: Sequence[Change]) -> Iterable[Failure]:  # noqa: ARG002
        """Ask nothing: a transaction that is refused has changed nothing."""
        return ()

    def apply(self, changes: Sequence[Change]) -> Iterator[Failure]:
        """Carry out the one change there can be, in one transaction; the counters count on meanwhile."""
        for change in changes:
            try:
                if isinstance(change.after, Usage):
                    self._count(change.after)
                else:
                    run(["nft", "delete", "table", "inet", TABLE])
                    self._remember(Note())
            except OSError as error:
                yield Failure(change.key, str(error))

    def _count(self, wanted: Usage) -> None:
        note = self._seen()
        if note.usage and _shape(note.usage) == _shape(wanted):
            self._remember(msgspec.structs.replace(note, usage=wanted))  # who has which address is for the scripts
            return
        with usage_totals.locked(self.root):
            there = usage_totals.read_counters()
            # What there is in the kernel is newer than what was written down.
            seeds = usage_totals.saved(self.root, lasting=wanted.lasting) if not there else {}
            try:
                self._commit(program(wanted, there, seeds))
            except CommandFailed:
                # A chain or a set of that name has another shape here, as after an upgrade: the table anew, whole.
                kept: dict[str, Count] = {**seeds, **usage_totals.read_counters()}
                self._commit(f"add table inet {TABLE}\ndelete table inet {TABLE}\n{program(wanted, (), kept)}")
        before = generation()
        self._remember(Note(before, _blank(listed(TABLE)), wanted))
        if generation() != before:
            self._remember(Note())

    def _commit(self, text: str) -> None:
        run(["nft", "-f", "-"], text)

    def _remember(self, note: Note) -> None:
        self.marks.write(NOTE, msgspec.json.encode(note))

    def _seen(self) -> Note:
        """Return what is there: as remembered if nobody has written since, else by looking."""
        try:
            note = msgspec.json.decode(self.marks.read(NOTE) or b"{}", type=Note)
        except msgspec.DecodeError:
            note = Note()
        before = generation()
        if note.generation == before:
            return note
        listing = _blank(listed(TABLE))
        usage = note.usage if listing == note.listing else None
        seen = Note(before if generation() == before else 0, listing, usage)
        self._remember(seen)
        return seen


def _shape(usage: Usage) -> Usage:
    """What the table depends on."""
    nics = tuple(msgspec.structs.replace(counted, addresses=()) for counted in usage.nics)
    return msgspec.structs.replace(usage, nics=nics)


def _blank(listing: str) -> str:
    """Take the counters out of a listing: those of nics that have left stay, and are no difference."""
    return _COUNTER.sub("", listing)
