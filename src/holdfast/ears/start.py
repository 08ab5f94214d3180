"""The ear for the end of a start: the management server has fallen silent, and what it did not say anew goes."""

from collections.abc import Iterator
from pathlib import Path

from holdfast.ears import Wish
from holdfast.marks import Marks
from holdfast.sequence import StartSequence

LOOK_S = 5.0


class Start:
    """Looks at the start sequence from time to time; most of a router's life there is none."""

    def __init__(self, root: Path, now: float) -> None:
        self._sequence = StartSequence(Marks(root / "run/holdfast/marks", sealed=True))
        self._due = now

    def fileno(self) -> int:
        """Return -1: silence cannot be waited for."""
        return -1

    def ready(self, now: float) -> Iterator[Wish]:
        """Nothing is ever read."""
        del now
        yield from ()

    def tick(self, now: float) -> Iterator[Wish]:
        """Wish, once a start has ended or will never be one: the run that follows draws the line."""
        if now < self._due:
            return
        self._due = now + LOOK_S
        if self._sequence.ends("", vpc=True) or self._sequence.unheard:
            yield Wish("the start has ended")

    def due(self) -> float:
        """Return when it looks next."""
        return self._due

    def close(self) -> None:
        """Nothing is open."""
