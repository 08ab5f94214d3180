"""The ear for the pair's connections: when the peer has to hear of all again, or this router to ask anew."""

from collections.abc import Iterator
from pathlib import Path

from holdfast import conntrackd, pair_files, pairing, role_report
from holdfast.ears import Wish
from holdfast.ears.clocked import Clocked

LOOK_S = 5.0
TELL = "connections are told again"
REFILL = "connections are asked for anew"


class Connections(Clocked):
    """Compares how many connections the kernels of both hold; wishes for no convergence but for these two errands."""

    def __init__(self, root: Path, now: float) -> None:
        super().__init__(now)
        self.root = root
        self._done = now

    def tick(self, now: float) -> Iterator[Wish]:
        """Wish, if it is time for either."""
        if now < self._due:
            return
        self._due = now + LOOK_S
        heard = pairing.peer(self.root)
        roles = role_report.word(self.root), heard.get("role")
        own, told = pair_files.flows(), int(heard.get("flows") or 0)
        if roles == ("MASTER", "BACKUP") and conntrackd.resync_due(own, told, now - self._done):
            self._done = now
            yield Wish(TELL)
        elif roles == ("BACKUP", "MASTER") and conntrackd.refill_due(own, told, now - self._done):
            self._done = now
            yield Wish(REFILL)
