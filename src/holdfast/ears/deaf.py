"""The ear for a keepalived that takes no new text: the process that reads it hangs, and the one that elects lives on.

systemd's watchdog is told of the one that elects alone.  Of the other it can only be seen that a signal waits for it.
"""

import signal
from collections.abc import Iterator
from pathlib import Path

from holdfast.ears import Wish
from holdfast.ears.clocked import Clocked

LOOK_S = 5.0
DEAF = "keepalived hangs"
PID = "run/keepalived.pid"
_LOOKS = 3
"""So many in a row have to find the signal: counted, since time also passes where all of the router stands still."""


def unheard(status: str) -> bool:
    """Return whether SIGHUP waits for a process.  `status`: its `/proc/PID/status`, see proc(5) for `ShdPnd`."""
    waiting = next((line.split()[1] for line in status.splitlines() if line.startswith("ShdPnd:")), "0")
    return bool(int(waiting, 16) >> (signal.SIGHUP - 1) & 1)


def hangs(root: Path, proc: Path = Path("/proc")) -> int:
    """Return the process id of the keepalived that SIGHUP waits for; 0 where there is none."""
    try:
        pid = int((root / PID).read_text("ascii"))
        return pid if unheard((proc / str(pid) / "status").read_text("utf-8", "replace")) else 0
    except (OSError, ValueError):
        return 0


class Deaf(Clocked):
    """Looks whether keepalived has heard that there is a new text."""

    def __init__(self, root: Path, now: float, proc: Path = Path("/proc")) -> None:
        super().__init__(now)
        self._root, self._proc = root, proc
        self._found = (0, 0)

    def tick(self, now: float) -> Iterator[Wish]:
        """Wish for its end, once it has not heard for ten seconds."""
        if now < self._due:
            return
        self._due = now + LOOK_S
        pid, looks = self._found
        found = hangs(self._root, self._proc)
        self._found = (found, looks + 1 if found == pid else 1)
        if found and self._found[1] >= _LOOKS:
            self._found = (0, 0)
            yield Wish(DEAF)
