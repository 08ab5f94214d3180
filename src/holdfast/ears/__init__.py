"""What wakes the agent: each ear turns an outside event into a wish, and decides nothing."""

from collections.abc import Iterable
from typing import NamedTuple, Protocol


class Wish(NamedTuple):
    """`Converge, for this reason.`  The reason is a few plain words: it becomes the cause in the journal.

    `urgent`: every other ear is ticked at once as well, since what they say or write may have changed.
    """

    cause: str
    urgent: bool = False


class Ear(Protocol):
    """Something that the agent's loop listens to.  Times are the monotonic clock's, in seconds.

    None of these calls may wait for anything: while one runs, nobody is heard.
    """

    def fileno(self) -> int:
        """Return the descriptor to wait for; -1 if this ear has only its clock.  It may change at any call."""

    def ready(self, now: float) -> Iterable[Wish]:
        """Read what there is to read; called when the descriptor is readable."""

    def tick(self, now: float) -> Iterable[Wish]:
        """Do what is due; called when `due` is over, and also before, whenever something urgent was heard."""

    def due(self) -> float:
        """Return when `tick` wants to be called next; infinity for never."""

    def close(self) -> None:
        """Stop listening.  A child calls it as well, so it must not undo anything that others can see."""
