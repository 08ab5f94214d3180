"""The ear for a word of keepalived's that is no longer so: it says each once, and repeats none that is lost."""

from collections import Counter
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from holdfast import pair_files, pairing, role_report
from holdfast.answers.checkrouter import Seen
from holdfast.ears import Wish
from holdfast.ears.clocked import Clocked
from holdfast.pair_files import Watched

LOOK_S = 1.0
GONE = "keepalived does not come back"
AWAY = "its word is MASTER, and it has no address"
HERE = "its word is not MASTER, and it has the address"
LOOKS = {GONE: 8, AWAY: 3, HERE: 6}
"""So many looks have to find each; one after a crash takes four seconds to come back."""


def amiss(seen: Seen | None, peer: Mapping[str, Any]) -> str:
    """Return which of the three is so, empty for none.  `peer`: peer.json, empty where nobody is heard.

    Without a peer that serves, a router whose keepalived is gone is better than nobody.  BACKUP and FAULT look alike.
    """
    if seen is None or not seen.virtual:
        return ""
    master, served = seen.role == "MASTER", peer.get("role") == "MASTER"
    if not seen.runs:
        return GONE if master and served else ""
    if master:
        # Not one of them: the election's alone may be missing where it has just become another.
        return "" if seen.held or any(seen.kept.values()) else AWAY
    return HERE if seen.held and not served else ""


def look(root: Path) -> str:
    """Return what is amiss now; nothing while a run moves to other ground: word and address part for a while."""
    return "" if pair_files.moving(root) else amiss(role_report.look(root), pairing.peer(root))


class Observed(Clocked):
    """Looks whether keepalived's last word still is what the router shows."""

    def __init__(self, root: Path, now: float) -> None:
        super().__init__(now)
        self._root = root
        self._found: Counter[str] = Counter()
        self._word = Watched(root / role_report.WORD)

    def tick(self, now: float) -> Iterator[Wish]:
        """Wish for the word that is right, once the wrong one has lasted."""
        if now < self._due:
            return
        self._due = now + LOOK_S
        if self._word.changed():
            self._found.clear()  # what was found was found of another word
        found = self._look()
        # One that starts and dies again and again runs for a moment each time: that only counts against it.
        gone = self._found[GONE] - 1 if found != GONE else self._found[GONE]
        self._found = Counter({GONE: max(0, gone), found: self._found[found]})
        self._found[found] += 1
        if found and self._found[found] >= LOOKS[found]:
            self._found.clear()
            yield Wish(found)

    def _look(self) -> str:
        try:
            return look(self._root)
        except (OSError, ValueError, KeyError, TypeError, AttributeError):
            return ""  # whatever lies there, the agent goes on
