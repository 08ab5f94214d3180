"""Acknowledged passwords as hellos tell of them: which go into the next one, and what of those heard is kept.  Pure."""

from collections.abc import Iterable, Mapping, Sequence
from heapq import nlargest

from holdfast import receipts
from holdfast.addresses import inside
from holdfast.peer import HIGHEST_TAKEN, Face
from holdfast.texts import is_ipv4

_NONE: Mapping[str, Sequence[int]] = {}


class Acknowledgements:
    """Which acknowledged passwords the next hello tells of: new ones in four hellos each, the rest in turn."""

    def __init__(self) -> None:
        self._known: dict[str, int] = {}
        self._new: dict[str, int] = {}
        self._turn: list[str] = []

    def learn(self, acknowledged: Mapping[str, int]) -> None:
        """Take in the newest by guest address (`receipts.taken`)."""
        new = {address: _REPEATS for address, serial in acknowledged.items() if self._known.get(address) != serial}
        self._known = dict(acknowledged)
        older = {address: left for address, left in self._new.items() if address in self._known and address not in new}
        self._new = new | older

    def next(self, most: int) -> dict[str, int]:
        """Up to `most` of them: first those that were told least often."""
        chosen = nlargest(most, self._new, key=self._new.__getitem__)
        for address in chosen:
            self._new[address] -= 1
            if not self._new[address]:
                del self._new[address]
        for _ in range(min(most, len(self._known)) - len(chosen)):
            self._turn = self._turn or [*self._known]
            chosen.append(self._turn.pop())
        return {address: self._known[address] for address in chosen if address in self._known}


_REPEATS = 4


def merged(
    known: Mapping[str, int], heard: Mapping[str, int], held: Mapping[str, Sequence[int]] = _NONE
) -> dict[str, int]:
    """Passwords by guest address, the higher of each; what is no guest's address, or no password, means nothing.

    `held`: this router's own with those before them, newest first.  The tag that names the newest stays: the peer may
    have given another one since, which this router missed, and would give the one that it holds once more.
    """
    found = dict(known)
    for address, number in heard.items():
        before = found.get(address, 0)
        if before < number <= HIGHEST_TAKEN and is_ipv4(address):
            over = receipts.tag_of(before)
            newest = receipts.tag_of(next(iter(held.get(address, ())), 0))
            found[address] = receipts.taken(receipts.serial_of(number), over) if over and over == newest else number
    return found


def in_networks(acknowledged: Mapping[str, int], faces: Iterable[Face]) -> dict[str, int]:
    """Those whose guest may be in one of these networks.  Tenants may know the key: whoever else is named would be kept
    for ever, each costing room and time.
    """
    here = [face.network for face in faces]
    return {address: serial for address, serial in acknowledged.items() if is_ipv4(address) and inside(address, here)}
