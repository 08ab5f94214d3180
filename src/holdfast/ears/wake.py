"""The ear for pokes: a FIFO into which keepalived's hook, or anybody, writes when there is something to look at."""

import os
import stat
from collections.abc import Iterator
from pathlib import Path

from holdfast.ears import Wish
from holdfast.pairing import WAKE
from holdfast.role_report import MOVED

LOOK_S = 5.0
"""How often the flag of a moved role is looked at without a poke: whoever set it may have found no FIFO."""
SOON_S = 0.02
"""When it is looked at again after a poke that came before the flag."""
ROLE = "role"
"""The cause of a wish to follow keepalived's word."""
_MUCH = 65536


class Wake:
    """Listens at the FIFO; makes it if it is not there.  OSError if that cannot be done.

    Who pokes must open it for reading and writing (`echo 1<>wake`): that never blocks, even when nobody listens.
    """

    def __init__(self, root: Path) -> None:
        self._moved = root / MOVED
        path = root / WAKE
        path.parent.mkdir(mode=0o755, parents=True, exist_ok=True)
        if not (path.exists() and stat.S_ISFIFO(path.lstat().st_mode)):
            path.unlink(missing_ok=True)
            os.mkfifo(path, 0o600)
        # For writing as well: with no writer left it would be readable for ever.
        self._handle = os.open(path, os.O_RDWR | os.O_NONBLOCK | os.O_CLOEXEC | os.O_NOFOLLOW)
        self._due = 0.0

    def fileno(self) -> int:
        """Return the FIFO's descriptor."""
        return self._handle

    def ready(self, now: float) -> Iterator[Wish]:
        """A poke: every ear looks at its files at once, and a role that has moved is followed."""
        os.read(self._handle, _MUCH)
        yield Wish("", urgent=True)
        yield from self.tick(now)
        self._due = now + SOON_S

    def tick(self, now: float) -> Iterator[Wish]:
        """Look at the flag."""
        self._due = now + LOOK_S
        if self._moved.exists():
            yield Wish(ROLE)

    def due(self) -> float:
        """Return when to look again."""
        return self._due

    def close(self) -> None:
        """Stop listening; the FIFO stays."""
        os.close(self._handle)
