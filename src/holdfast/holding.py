"""Whether a router of a pair holds itself back: its peer serves where keepalived hears nothing of it.  Pure.

Times are the monotonic clock's, in seconds.
"""

from holdfast.peer import Hello, Peer
from holdfast.verdict import MASTER, TWO_MASTERS_S

HOLD_S = 120.0
"""The longest that a router holds itself back, unless its peer serves: this one would, too."""
SILENT_S = 5.0
"""How long a router that holds itself back waits for a peer that fell silent: longer than an agent takes to start
anew.  One that hangs takes ten seconds more, but then who lost its peer on other ground would be that late."""


def apart(own: Hello, other: Hello) -> bool:
    """Whether the two elect on different ground, where keepalived hears nothing of the other, and neither moves."""
    moving = own.moving or other.moving or other.release
    return bool(own.ground and other.ground) and own.ground != other.ground and not moving


def outranks(own: Hello, other: Hello) -> bool:
    """Whether this router is the one to serve where both would: what decides is known to both alike."""
    return (own.term, own.name) > (other.term, other.name)


def released(own: Hello, held_s: float, silent_s: float, heard: Peer | None) -> bool:
    """Whether a router that has held itself back for `held_s` seconds may stand for election again.

    `own`: as it would say itself.  While `own.moving` a run is still taking it to other ground; where that run ended
    without it, killed or taken back, the peer is met on the old ground.  `silent_s`: since when no peer is heard.
    """
    if held_s >= HOLD_S and (heard is None or heard.hello.role != MASTER):
        return True
    if own.moving:
        return False
    if heard is None:
        return silent_s >= SILENT_S
    other = heard.hello
    if apart(own, other):  # both hold back: whatever has brought them there, one is to serve
        return other.hold and outranks(own, other)
    nowhere = not own.ground or (not other.ground and other.role != MASTER)
    return nowhere or other.release or other.ground == own.ground


class Holding:
    """Whether this router holds itself back: its peer serves on other ground, and neither hears the other's adverts."""

    def __init__(self, now: float) -> None:
        self._held = 0.0
        self._heard = now
        self._both = 0.0

    def step(self, own: Hello, heard: Peer | None, now: float) -> bool:
        """Whether it is to hold itself back.  `own`: as it would say itself, `own.hold` what is so by now."""
        self._heard = now if heard else self._heard
        self._held = (self._held or now) if own.hold else 0.0
        if own.hold:
            self._both = 0.0
            return not released(own, now - self._held, now - self._heard, heard)
        serves = heard is not None and heard.hello.role == MASTER and not heard.hello.hold and apart(own, heard.hello)
        self._both = (self._both or now) if serves and own.role == MASTER else 0.0
        if own.role != MASTER:
            return serves
        return serves and now - self._both >= TWO_MASTERS_S and heard is not None and outranks(heard.hello, own)
