"""The planned change of roles: the peer is made ready and asked first, and only then this router yields."""

import time
from pathlib import Path

from holdfast import pairing, role_report
from holdfast.errors import Failed

READY_S = 0.6
"""How long the peer has to say that it is ready."""
YIELDS_S = 0.5
"""How long a router that serves no more goes on forwarding at most."""
SERVES_S = 1.0
"""How long it has, after this router has yielded, to say that it serves."""


def hand_over(root: Path) -> str:
    """Hand over to the peer; returns why that was not possible, empty if it serves now."""
    if role_report.word(root) != "MASTER":
        return "this router does not serve"
    heard = pairing.peer(root)
    if not heard:
        return "no peer is heard"
    if heard.get("role") != "BACKUP" or not heard.get("able") or heard.get("hold"):
        return f"the peer {heard.get('name', '')} cannot take over: it is {heard.get('role') or 'in no role'}"
    try:
        pairing.leave(root, pairing.LEAVING, f"{time.monotonic()}\n")
        pairing.poke(root)
        # Without its boost it takes over as well, only later.
        pairing.wait(lambda: bool(pairing.peer(root).get("boost")), READY_S)
        pairing.track(root, "fault", 1)
        if not pairing.wait(lambda: pairing.peer(root).get("role") == "MASTER", SERVES_S):
            return "the peer has not taken over"
    finally:
        pairing.track(root, "fault", 0)
        (root / pairing.LEAVING).unlink(missing_ok=True)
        pairing.poke(root)
    return ""


def until_served(root: Path) -> None:
    """Wait, if this router still forwards, until the peer serves: what comes meanwhile is not lost."""
    seen = role_report.look(root)
    if seen and any(seen.outer.values()) and pairing.peer(root):
        pairing.wait(lambda: pairing.peer(root).get("role") == "MASTER", YIELDS_S)


def ordered(root: Path) -> None:
    """`holdfast handover`: hand over, or Failed with the reason."""
    if why := hand_over(root):
        raise Failed(why)
