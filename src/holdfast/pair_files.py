"""What the ear for the peer reads and writes on this router: role, numbers for keepalived, acknowledged passwords."""

import fcntl
import os
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from math import isfinite
from pathlib import Path
from typing import Any, NamedTuple

import msgspec

from holdfast import conntrackd, pairing, receipts, role_report, whole
from holdfast.acknowledgements import merged
from holdfast.peer import HIGHEST_TERM, Pair

BY = "run/holdfast/role.by"
ROLE_LOCK = "run/holdfast/role.lock"
"""Held by keepalived's hook from the term to the word."""
UNABLE = "run/holdfast/unable"
"""There while this router's convergence as master has failed on what guests need."""
PEER_TERM = "peer_term"
THERE = "var/lib/holdfast/peer-passwords.json"
FLOWS = Path("/proc/sys/net/netfilter/nf_conntrack_count")
SYNCED = "run/holdfast/synced"
"""When conntrackd was last told, or asked for, all connections, by the monotonic clock."""
LISTENERS = Path("/proc/net/netlink")


class Own(NamedTuple):
    """This router as its files tell, see `holdfast.peer.Hello`.

    `leaving_since`: when it was asked to hand over, by the monotonic clock; 0 where it was not.
    """

    role: str = ""
    said: str = ""
    term: int = 0
    peer_term: int = 0
    moving: str = ""
    release: bool = False
    hold: bool = False
    fault: bool = False
    boost: int = 0
    leaving_since: float = 0.0
    unable: bool = False


def own(root: Path) -> Own:
    """Read all of them: hold before the move, which a run writes first, so that it is never seen without its reason."""
    hold = pairing.tracked(root, "hold") != 0
    move = moving(root)
    return Own(
        role=role_report.word(root),
        said=_text(root / BY),
        term=_term(pairing.tracked(root, "term")),
        peer_term=_term(pairing.tracked(root, PEER_TERM)),
        moving=str(move.get("to", "")),
        release=move.get("release") is True,
        hold=hold,
        fault=pairing.tracked(root, "fault") != 0,
        boost=pairing.tracked(root, "boost"),
        leaving_since=_seconds(_text(root / pairing.LEAVING)),
        unable=(root / UNABLE).exists(),
    )


def moving(root: Path) -> Mapping[str, Any]:
    """Where a run is taking this router: `to`, `release`, `by`; empty where none does, or it was killed over it."""
    move = _document(root / pairing.MOVING)
    return move if Path(f"/proc/{move.get('by', '')}").exists() else {}


def _term(number: int) -> int:
    return number if 0 <= number <= HIGHEST_TERM else 0


def _text(path: Path) -> str:
    try:
        return path.read_bytes()[:255].decode("utf-8", "replace").strip()
    except OSError:
        return ""


def _seconds(text: str) -> float:
    with suppress(ValueError):
        return float(text) if isfinite(float(text)) else 0.0
    return 0.0


def _document(path: Path) -> dict[str, Any]:
    with suppress(OSError, ValueError, RecursionError):
        return msgspec.json.decode(path.read_bytes(), type=dict[str, Any])
    return {}


def flows() -> int:
    """How many connections the kernel knows; 0 where it does not count them."""
    return int(_seconds(_text(FLOWS)))


def unheard() -> int:
    """How many events of connections nobody heard, see `conntrackd.unheard`; 0 where the kernel does not tell."""
    try:
        return conntrackd.unheard(LISTENERS.read_text("ascii"))
    except OSError:
        return 0


def note_synced(root: Path) -> None:
    """Note that conntrackd has just told the peer of all connections, or asked it for them."""
    with suppress(OSError):  # it is for people to see
        pairing.leave(root, SYNCED, f"{time.monotonic():.3f}\n")


def synced_s(root: Path) -> int | None:
    """How many seconds ago that was; None if it was not yet."""
    at = _seconds(_text(root / SYNCED))
    return max(0, int(time.monotonic() - at)) if at else None


@contextmanager
def role_held(root: Path) -> Iterator[bool]:
    """Keep keepalived's hook from changing term and role meanwhile; False, at once, where it is at it."""
    handle = os.open(root / ROLE_LOCK, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW, 0o600)
    try:
        fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        yield True
    except BlockingIOError:
        yield False
    finally:
        os.close(handle)


class Watched:
    """A file that is read anew when it is another one, or has changed."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self._seen: tuple[int, int, int] | None = None

    def changed(self) -> bool:
        """Whether it came, went or changed since the last call."""
        try:
            stat = self.path.stat()
            seen = (stat.st_mtime_ns, stat.st_ino, stat.st_size)
        except OSError:
            seen = None
        before, self._seen = self._seen, seen
        return seen != before


def pair(root: Path) -> Pair | None:
    """What this router is in its pair; None if it has none, or if what is written cannot be understood."""
    try:
        found = msgspec.json.decode((root / pairing.PAIR).read_bytes(), type=Pair)
        bytes.fromhex(found.key)
    except (OSError, ValueError, RecursionError):
        return None
    return found


def acknowledged_here(root: Path) -> dict[str, int]:
    """Serials by guest address, as the guest service has written them down."""
    try:
        written = (root / receipts.PATH.lstrip("/")).read_bytes()
    except FileNotFoundError:
        return {}
    return receipts.parse(written).acknowledged


def acknowledged_there(root: Path) -> dict[str, int]:
    """Passwords by guest address (`receipts.taken`), as the peer has told; a file that is damaged says nothing."""
    with suppress(OSError, ValueError, RecursionError):
        return merged({}, msgspec.json.decode((root / THERE).read_bytes(), type=dict[str, int]))
    return {}


def remember_there(root: Path, acknowledged: Mapping[str, int]) -> None:
    """Keep what the peer has told, so that no crash forgets it; OSError if the disk would not take it."""
    path = root / THERE
    path.parent.mkdir(parents=True, exist_ok=True)
    whole.put(path, msgspec.json.encode(acknowledged))
    whole.sync(path.parent)
