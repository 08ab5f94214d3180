"""The files under /run by which runs, the agent's ears and keepalived tell each other of a pair."""

import json
import os
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from holdfast import whole

PAIR = "run/holdfast/pair.json"
"""What this router is in its pair, left by the configuration."""
PEER = "run/holdfast/peer.json"
"""What was last heard of the other router, left by the agent."""
WAKE = "run/holdfast/wake"
"""The pipe by which anybody makes the agent look and speak at once."""
LEAVING = "run/holdfast/leaving"
"""There while this router asks its peer to take over; its age is its life."""
MOVING = "run/holdfast/moving"
"""`{"to": ground, "release": bool, "by": pid}` while that run waits to meet the peer on other ground."""
VRRP = "run/holdfast/vrrp"
"""Where the files are that keepalived watches: term, boost, hold, fault."""
FRESH_S = 1.5
"""How old what was heard of the peer may be to count."""
_LOOK_S = 0.02


def pair(root: Path) -> dict[str, Any]:
    """What this router is in its pair; empty if it has none."""
    return _document(root / PAIR)


def peer(root: Path, fresh_s: float = FRESH_S) -> dict[str, Any]:
    """What was heard of the other router within the last `fresh_s` seconds; empty if nothing was."""
    heard = _document(root / PEER)
    age = time.monotonic() - float(heard.get("heard") or 0)
    return heard if heard and 0 <= age <= fresh_s else {}


def _document(path: Path) -> dict[str, Any]:
    try:
        document = json.loads(path.read_bytes())
    except (OSError, ValueError):
        return {}
    return document if isinstance(document, dict) else {}


def leave(root: Path, name: str, text: str, mode: int = 0o600) -> None:
    """Write one of the files whole, by rename: whoever watches it never sees a part."""
    path = root / name
    path.parent.mkdir(parents=True, exist_ok=True)
    whole.put(path, text.encode(), mode, lasting=False)


def track(root: Path, name: str, number: int) -> None:
    """Write one of the numbers that keepalived watches, in place: it follows the file, and so does whoever reads it."""
    path = root / VRRP / name
    path.parent.mkdir(parents=True, exist_ok=True)
    handle = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_NOFOLLOW, 0o644)
    try:
        os.pwrite(handle, b"%d\n" % number, 0)
        os.ftruncate(handle, len(b"%d\n" % number))
    finally:
        os.close(handle)


def tracked(root: Path, name: str) -> int:
    """The number in such a file, 0 if there is none."""
    try:
        return int((root / VRRP / name).read_bytes() or b"0")
    except (OSError, ValueError):
        return 0


def poke(root: Path) -> None:
    """Make the agent look and speak at once; where none runs, nothing happens."""
    try:
        handle = os.open(root / WAKE, os.O_WRONLY | os.O_NONBLOCK)
    except OSError:
        return
    try:
        os.write(handle, b"!")
    except OSError:
        return  # so many pokes wait there that one more says nothing new
    finally:
        os.close(handle)


def wait(true: Callable[[], bool], timeout_s: float) -> bool:
    """Look again and again until it is so, or the time is over; the last answer."""
    until = time.monotonic() + timeout_s
    while not (answer := true()) and time.monotonic() < until:
        time.sleep(_LOOK_S)
    return answer
