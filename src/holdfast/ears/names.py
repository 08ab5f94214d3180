"""The ear for peers that are known by a name: which address each has now, as the router's resolver tells.

A resolver may be silent for seconds, and whoever asks it waits: so another process does, one name after the other.
"""

import os
from collections.abc import Iterator
from math import inf
from pathlib import Path

import msgspec

from holdfast import alerts, names, pair_files, pairing
from holdfast.ears import Wish
from holdfast.run import Begun

EVERY_S, SOON_S = 60.0, 5.0
"""How often names are asked for, and so long as one of them has no address."""
LOOK_S = 2.0
LIMIT_S = 15.0
"""How often it is looked whether other names are wanted; how long an answer may take."""
FOUND = "the address of a VPN's peer"
_MOST = 65536


class Names:
    """Asks for what the last run has left in `names.WANTED`; leaves what it finds in `names.FOUND`.

    A name that cannot be found keeps the address that it had: a resolver that fails ends no tunnel.
    """

    def __init__(self, root: Path) -> None:
        self.root = root
        self._file = pair_files.Watched(root / names.WANTED)
        self._wanted: tuple[str, ...] = ()
        self._found = names.found(root)
        self._turn: list[str] = []
        self._asked: Begun | None = None
        self._name, self._said, self._until = "", b"", inf
        self._next, self._look = inf, 0.0

    def fileno(self) -> int:
        """Return where the answer comes from, -1 while nothing is asked."""
        return self._asked.fileno() if self._asked else -1

    def ready(self, now: float) -> Iterator[Wish]:
        """Read what the resolver says; at its end the next name is asked for."""
        data = os.read(self.fileno(), _MOST)
        if data and len(self._said) < _MOST:
            self._said += data
        else:
            yield from self._answered(now)

    def tick(self, now: float) -> Iterator[Wish]:
        """Begin with other names at once, with the same ones when it is time; wait for no answer for ever."""
        self._look = now + LOOK_S
        if self._file.changed():
            self._wanted = names.wanted(self.root)
            self._turn, self._next = [], now
            self._learn({})
        if self._asked and now >= self._until:
            yield from self._answered(now)
        if not self._asked and now >= self._next:
            self._turn, self._next = [*self._wanted], inf
            self._ask(now)

    def due(self) -> float:
        """Return when there is somebody to ask, or to give up."""
        return min(self._look, self._until if self._asked else self._next)

    def close(self) -> None:
        """Let go of the answer; whoever was asked ends by himself."""
        if self._asked:
            self._asked.let_go()

    def _ask(self, now: float) -> None:
        if not self._turn:
            unknown = any(name not in self._found for name in self._wanted)
            if self._wanted:  # others may be wanted by now, and then at once
                self._next = min(self._next, now + (SOON_S if unknown else EVERY_S))
            return
        self._name, self._said, self._until = self._turn.pop(), b"", now + LIMIT_S
        try:
            self._asked = Begun(["getent", "ahostsv4", self._name])
        except OSError as error:
            alerts.note(f"{self._name}: no resolver can be asked: {error}")
            self._turn, self._next = [], now + EVERY_S

    def _answered(self, now: float) -> Iterator[Wish]:
        """Take the answer, whole or none, and go on."""
        asked, self._asked = self._asked, None
        assert asked is not None  # noqa: S101 there is an answer
        asked.end()
        found = names.addresses(self._said)
        learned = self._learn({self._name: found} if found else {})
        self._ask(now)
        if learned:
            yield Wish(FOUND)

    def _learn(self, addresses: dict[str, tuple[str, ...]]) -> bool:
        """Leave these beside what was known of others; whether anything is new.  What nobody wants is forgotten."""
        before = self._found
        self._found = {name: held for name, held in (before | addresses).items() if name in self._wanted}
        if self._found == before:
            return False
        try:
            pairing.leave(self.root, names.FOUND, msgspec.json.encode(self._found).decode())
        except OSError as error:
            self._found = before
            alerts.note(f"{names.FOUND} cannot be written: {error}", urgent=True)
            return False
        return True
