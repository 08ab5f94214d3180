"""Moving a pair to other ground, the nic and the rhythm that they elect over, without both serving or neither.

Two routers that speak over different nics do not hear each other, and both would serve.  So who is told first moves and
holds itself back; who is told last waits until the other serves there, and follows.  The decision and its times:
DECISIONS of the pair, `docs/features/redundancy.md`.
"""

import json
import os
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from holdfast import pairing, role_report
from holdfast.handover import hand_over

TOLD_S = 0.4
"""How long the serving router waits to hear whether its peer was told at the same moment."""
ARRIVES_S = 10.0
"""How long it then waits for the peer to be there."""
FALLS_S = 1.0
"""How long who holds itself back waits until it serves no more."""
GRACE_S = 1.5
"""What an election takes beyond keepalived's own time."""
_MISSED = 3


@contextmanager
def agreed(root: Path, ground: str) -> Iterator[None]:
    """Before a run that moves this router to other ground: agree with the peer, or hold back.  Else nothing happens.

    `ground`: where the run will take it, empty if it ends the pair.  Where no peer is heard there is nobody to agree
    with.  Never fails: at worst an election comes of it.
    """
    now = str(pairing.pair(root).get("ground", ""))
    if not now or not ground or now == ground or not pairing.peer(root):
        yield
        return
    try:
        if _last(root, ground):
            _follow(root, ground)
        elif not _serves(root) or not hand_over(root):
            _hold(root, ground)
        yield
    finally:
        (root / pairing.MOVING).unlink(missing_ok=True)
        (root / pairing.LEAVING).unlink(missing_ok=True)
        pairing.track(root, "fault", 0)
        pairing.poke(root)


def _serves(root: Path) -> bool:
    return role_report.word(root) == "MASTER"


def _last(root: Path, ground: str) -> bool:
    """Whether the peer is there already, or was told at the same moment and goes first, since it does not serve."""
    if not _serves(root):
        return bool(pairing.peer(root).get("ground") == ground)
    _say(root, ground, release=False)

    def told() -> bool:
        return ground in (pairing.peer(root).get("ground"), pairing.peer(root).get("moving"))

    return pairing.wait(told, TOLD_S)


def _follow(root: Path, ground: str) -> None:
    """Wait for the peer there, let it serve, and leave when it does."""
    _say(root, ground, release=False)
    pairing.wait(lambda: pairing.peer(root).get("ground") == ground, ARRIVES_S)
    _say(root, ground, release=True)
    advert_s = float(ground.rpartition(" ")[2])
    if pairing.wait(lambda: pairing.peer(root).get("role") == "MASTER", (_MISSED + 1) * advert_s + GRACE_S):
        # Not only when this run comes to keepalived's text: until then both would serve.
        pairing.leave(root, pairing.LEAVING, f"{time.monotonic()}\n")
        pairing.track(root, "fault", 1)


def _hold(root: Path, ground: str) -> None:
    _say(root, ground, release=False)
    pairing.track(root, "hold", 1)
    pairing.wait(lambda: not _serves(root), FALLS_S)


def _say(root: Path, ground: str, *, release: bool) -> None:
    pairing.leave(root, pairing.MOVING, json.dumps({"to": ground, "release": release, "by": os.getpid()}))
    pairing.poke(root)
