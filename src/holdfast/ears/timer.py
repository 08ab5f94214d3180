"""The ear that hears time pass: what has drifted without any other sign is put right."""

from collections.abc import Iterator

from holdfast.ears import Wish
from holdfast.ears.clocked import Clocked

DRIFT_S = 300.0


class Timer(Clocked):
    """Wishes for a convergence every `every_s` seconds, first so long after `now`."""

    def __init__(self, now: float, every_s: float = DRIFT_S) -> None:
        super().__init__(now + every_s)
        self._every_s = every_s

    def tick(self, now: float) -> Iterator[Wish]:
        """Wish, if it is time."""
        if now >= self._due:
            self._due = now + self._every_s
            yield Wish("drift")
