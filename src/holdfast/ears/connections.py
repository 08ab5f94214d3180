"""The ear for the pair's connections: when the peer has to hear of all again, or this router to ask anew."""

from collections.abc import Iterator
from pathlib import Path

from holdfast import conntrackd, pair_files, pairing, role_report
from holdfast.ears import Wish
from holdfast.ears.clocked import Clocked

LOOK_S = 1.0
TELL = "connections are told again"
MISSED = "connections that came and went too fast are looked for"
REFILL = "connections are asked for anew"


class Connections(Clocked):
    """Compares how many connections the kernels of both hold; wishes for no convergence but for these errands."""

    def __init__(self, root: Path, now: float) -> None:
        super().__init__(now)
        self.root = root
        self._done = now
        self._unheard = pair_files.unheard()
        self._missed = False

    def tick(self, now: float) -> Iterator[Wish]:
        """Wish, if it is time for one of them."""
        if now < self._due:
            return
        self._due = now + LOOK_S
        heard = pairing.peer(self.root)
        roles = role_report.word(self.root), heard.get("role")
        if self._quiet_again(*roles):
            self._done = now
            yield Wish(MISSED)
            return
        own, told = pair_files.flows(), int(heard.get("flows") or 0)
        if roles == ("MASTER", "BACKUP") and conntrackd.resync_due(own, told, now - self._done):
            self._done = now
            yield Wish(TELL)
        elif roles == ("BACKUP", "MASTER") and conntrackd.refill_due(own, told, now - self._done):
            self._done = now
            yield Wish(REFILL)

    def _quiet_again(self, own: str, peers: str | None) -> bool:
        """Whether conntrackd missed events, and none since the last look: amid a burst it would only miss more.

        What who serves has missed is kept in mind until there is a peer to tell.
        """
        before, self._unheard = self._unheard, pair_files.unheard()
        more = self._unheard > before
        over = self._missed and not more and (own, peers) == ("MASTER", "BACKUP")
        self._missed = own == "MASTER" and (self._missed or more) and not over
        return over
