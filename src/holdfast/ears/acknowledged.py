"""Acknowledged passwords, from router to router: none is given to a guest again after a change of roles."""

from collections.abc import Iterator, Mapping, Sequence
from math import inf
from pathlib import Path

import msgspec

from holdfast import alerts, pair_files, pairing, receipts
from holdfast.acknowledgements import Acknowledgements, merged
from holdfast.ears import Wish

GATHER_S, LONGEST_S = 2.0, 64.0
"""How often at most what the peer tells is written down: at a start it tells thousands, some at a time.  Where the disk
takes nothing the pause doubles, up to this."""
KEEP = "keep what the peer's guests have acknowledged"
TOLD = "run/holdfast/peer-acknowledged.json"
"""What the peer has told so far, for the errand: a disk is waited for, and an ear waits for nothing."""


def keep(root: Path) -> None:
    """Bring what the ear has left to the disk, in a child; OSError if the disk would not take it."""
    heard = msgspec.json.decode((root / TOLD).read_bytes(), type=dict[str, int])
    pair_files.remember_there(root, merged(pair_files.acknowledged_there(root), heard))


def told(serial: int, known: Sequence[int]) -> int:
    """Return what the peer is told of an acknowledged password: with its tag, if that is known."""
    return next((number for number in known if receipts.serial_of(number) == serial), receipts.taken(serial, 0))


class Passwords:
    """What this router's guests have acknowledged, for the peer; and what the peer's have, for this router's disk."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self._here = pair_files.Watched(root / receipts.PATH.lstrip("/"))
        self._turns = Acknowledgements()
        self._there = pair_files.acknowledged_there(root)
        self._unsaved = False
        self._saved = -inf
        self._pause_s = GATHER_S
        self._asked: dict[str, int] | None = None
        self._known: Mapping[str, Sequence[int]] = {}

    def hear(self, acknowledged: Mapping[str, int], known: Mapping[str, Sequence[int]]) -> None:
        """Take in what the peer tells.  `known`: this router's passwords with their tags."""
        if any(serial > self._there.get(address, 0) for address, serial in acknowledged.items()):
            before, self._there = self._there, merged(self._there, acknowledged, known)
            self._unsaved = self._unsaved or self._there != before

    def keep(self, now: float, known: Mapping[str, Sequence[int]]) -> Iterator[Wish]:
        """Look at what was acknowledged here, have what was there written down; the guest service's view follows from
        both.  Asked for again until the disk has it.  `known`: this router's passwords with their tags.
        """
        if self._here.changed() or known is not self._known:
            self._known = known
            here = pair_files.acknowledged_here(self.root)
            self._turns.learn({address: told(serial, known.get(address, ())) for address, serial in here.items()})
        if now < self.due():
            return
        self._saved = now
        kept = pair_files.acknowledged_there(self.root)
        if all(serial <= kept.get(address, 0) for address, serial in self._there.items()):
            self._unsaved, self._pause_s, self._asked = False, GATHER_S, None
            return
        if self._there == self._asked:
            self._pause_s = min(self._pause_s * 2, LONGEST_S)
        self._asked = self._there
        try:
            pairing.leave(self.root, TOLD, msgspec.json.encode(self._there).decode())
        except OSError as error:
            alerts.note(f"{TOLD} cannot be written: {error}", urgent=True)
            return
        yield Wish(KEEP)
        yield Wish("passwords acknowledged at the peer")

    def next(self, most: int) -> dict[str, int]:
        """Up to `most` of those acknowledged here."""
        return self._turns.next(most)

    def due(self) -> float:
        """When there is something to write down."""
        return self._saved + self._pause_s if self._unsaved else inf
