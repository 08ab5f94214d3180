"""The ear for the end of a start: the management server has fallen silent, and what it did not say anew goes."""

from collections.abc import Iterator
from pathlib import Path

from holdfast.ears import Wish
from holdfast.ears.clocked import Clocked
from holdfast.marks import Marks
from holdfast.sequence import StartSequence

LOOK_S = 5.0


class Start(Clocked):
    """Looks at the start sequence from time to time; most of a router's life there is none."""

    def __init__(self, root: Path, now: float) -> None:
        self._sequence = StartSequence(Marks(root / "run/holdfast/marks", sealed=True))
        super().__init__(now)

    def tick(self, now: float) -> Iterator[Wish]:
        """Wish, once a start has ended or will never be one: the run that follows draws the line."""
        if now < self._due:
            return
        self._due = now + LOOK_S
        if self._sequence.ends("", vpc=True) or self._sequence.unheard:
            yield Wish("the start has ended")
