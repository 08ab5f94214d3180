"""Announcements: after each promotion the neighbours are told once where the addresses live now."""

from collections.abc import Callable, Iterable, Iterator, Sequence
from pathlib import Path

import msgspec
from msgspec import Struct

from holdfast.announce import announce
from holdfast.converge import Failure
from holdfast.marks import Marks
from holdfast.state import Announcement, Change, Resource, State

_MARK = "announced"


class Note(Struct, frozen=True):
    """The mark: addresses by device that were announced, and after which word of keepalived's."""

    word: str = ""
    addresses: dict[str, tuple[str, ...]] = {}


class Announcements:
    """Announces what is new on a device, and everything anew after each word of keepalived's.

    The level behind the announcements that the agent makes at the moment itself, and that keepalived makes of its own.
    """

    kinds: tuple[type[Resource], ...] = (Announcement,)

    def __init__(
        self, marks: Marks, root: Path = Path("/"), tell: Callable[[str, Iterable[str]], None] = announce
    ) -> None:
        self.marks = marks
        self.root = root
        self.tell = tell

    def observe(self, desired: State) -> Iterator[Announcement]:  # noqa: ARG002 the note is all there is
        """What was announced since keepalived's last word."""
        for device, addresses in self._noted().items():
            yield Announcement(device, addresses)

    def check(self, changes: Sequence[Change]) -> Iterable[Failure]:
        """Nothing can be told before."""
        del changes
        return ()

    def apply(self, changes: Sequence[Change]) -> Iterable[Failure]:
        """Announce the addresses that are new, and note: a neighbour that missed it asks, or hears it again."""
        word, noted = self._word(), self._noted()  # the word before: one that comes meanwhile is announced again
        for change in changes:
            if isinstance(change.after, Announcement):
                known = noted.get(change.after.device, ())
                self.tell(change.after.device, [one for one in change.after.addresses if one not in known])
                noted[change.after.device] = change.after.addresses
            elif isinstance(change.before, Announcement):
                noted.pop(change.before.device, None)
        self.marks.write(_MARK, msgspec.json.encode(Note(word, noted)))
        return ()

    def _noted(self) -> dict[str, tuple[str, ...]]:
        try:
            note = msgspec.json.decode(self.marks.read(_MARK), type=Note)
        except (OSError, ValueError):
            return {}
        return dict(note.addresses) if note.word == self._word() else {}

    def _word(self) -> str:
        """What tells keepalived's last word from an equal one before; the hook leaves it."""
        try:
            return (self.root / "run/holdfast/role.by").read_text("ascii", "replace")
        except OSError:
            return ""
