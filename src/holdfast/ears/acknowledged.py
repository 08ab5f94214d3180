"""Acknowledged passwords, from router to router: none is given to a guest again after a change of roles."""

from collections.abc import Iterator, Mapping
from math import inf
from pathlib import Path

from holdfast import alerts, pair_files, peer, receipts
from holdfast.ears import Wish

GATHER_S = 2.0
"""How often at most what the peer tells is written down: at a start it tells thousands, some at a time."""


class Passwords:
    """What this router's guests have acknowledged, for the peer; and what the peer's have, for this router's disk."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self._here = pair_files.Watched(root / receipts.PATH.lstrip("/"))
        self._turns = peer.Acknowledgements()
        self._there = pair_files.acknowledged_there(root)
        self._unsaved = False
        self._saved = -inf
        self._complained = False

    def hear(self, acknowledged: Mapping[str, int]) -> None:
        """Take in what the peer tells."""
        if any(serial > self._there.get(address, 0) for address, serial in acknowledged.items()):
            before, self._there = self._there, peer.merged(self._there, acknowledged)
            self._unsaved = self._unsaved or self._there != before

    def keep(self, now: float) -> Iterator[Wish]:
        """Look at what was acknowledged here, write down what was there; the guest service's view follows from both."""
        if self._here.changed():
            self._turns.learn(pair_files.acknowledged_here(self.root))
        if now < self.due():
            return
        self._saved = now
        try:
            pair_files.remember_there(self.root, self._there)
        except OSError as error:
            if not self._complained:
                alerts.note(f"what the peer's guests have acknowledged cannot be kept: {error}", urgent=True)
            self._complained = True
            return
        self._unsaved = self._complained = False
        yield Wish("passwords acknowledged at the peer")

    def next(self, most: int) -> dict[str, int]:
        """Up to `most` of those acknowledged here."""
        return self._turns.next(most)

    def due(self) -> float:
        """When there is something to write down."""
        return self._saved + GATHER_S if self._unsaved else inf
