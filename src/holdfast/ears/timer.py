"""The ear that hears time pass: what has drifted without any other sign is put right."""

from collections.abc import Iterator

from holdfast.ears import Wish

DRIFT_S = 300.0


class Timer:
    """Wishes for a convergence every `every_s` seconds, first so long after `now`."""

    def __init__(self, now: float, every_s: float = DRIFT_S) -> None:
        self._every_s = every_s
        self._due = now + every_s

    def fileno(self) -> int:
        """Return -1: there is nothing to wait for but time."""
        return -1

    def ready(self, now: float) -> Iterator[Wish]:
        """Nothing is ever read."""
        del now
        yield from ()

    def tick(self, now: float) -> Iterator[Wish]:
        """Wish, if it is time."""
        if now >= self._due:
            self._due = now + self._every_s
            yield Wish("drift")

    def due(self) -> float:
        """Return when it is time."""
        return self._due

    def close(self) -> None:
        """Nothing is open."""
