"""What ears have in common that hear nothing but time pass."""

from collections.abc import Iterator

from holdfast.ears import Wish


class Clocked:
    """An ear without a descriptor; `tick` sets `_due` anew."""

    def __init__(self, due: float) -> None:
        self._due = due

    def fileno(self) -> int:
        """Return -1: there is nothing to wait for but time."""
        return -1

    def ready(self, now: float) -> Iterator[Wish]:
        """Nothing is ever read."""
        del now
        yield from ()

    def due(self) -> float:
        """Return when it is time."""
        return self._due

    def close(self) -> None:
        """Nothing is open."""
