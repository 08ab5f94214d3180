"""The counters as they are, and as they were last told: kept, where they must outlive a reboot.  Imports little."""

import fcntl
import json
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

from holdfast import whole
from holdfast.run import CommandFailed, run
from holdfast.usage_table import TABLE, Count, counts

PATH = "var/lib/holdfast/usage.json"
"""Totals by counter, `[packets, bytes]`: what a table that is made anew begins with."""
PASSING = "run/holdfast/usage.json"
"""The same where totals must not outlive a reboot."""
LOCK = "run/holdfast/usage.lock"
_NFT = ("nft", "-j", "list", "counters", "table", "inet", TABLE)


def read_counters() -> dict[str, Count]:
    """All counters of the kernel's table; empty if there is no table.  OSError if nft cannot tell."""
    try:
        said = run(_NFT)
    except CommandFailed as error:
        if "No such file or directory" in str(error):
            return {}
        raise
    try:
        return counts(json.loads(said))
    except (ValueError, KeyError, TypeError) as error:
        raise OSError(f"nft: not a list of counters: {error}") from error


def reset(counters: Iterable[str]) -> None:
    """Let these counters begin at zero.  OSError."""
    lines = [f"reset counter inet {TABLE} {name}\n" for name in counters]
    if lines:
        run(["nft", "-f", "-"], "".join(lines))


def saved(root: Path, *, lasting: bool) -> dict[str, Count]:
    """What was last told; empty if nothing was, or what is written there is not ours."""
    try:
        held = json.loads(_place(root, lasting=lasting).read_bytes())
        return {name: Count(int(packets), int(size)) for name, (packets, size) in held.items()}
    except (OSError, ValueError, TypeError, AttributeError):
        return {}


def save(root: Path, totals: Mapping[str, Count], *, lasting: bool) -> None:
    """Write totals down, so that a power cut leaves these or those before.  OSError."""
    place = _place(root, lasting=lasting)
    place.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
    whole.put(place, json.dumps({name: list(count) for name, count in sorted(totals.items())}).encode())
    whole.sync(place.parent)


def _place(root: Path, *, lasting: bool) -> Path:
    return root / (PATH if lasting else PASSING)


@contextmanager
def locked(root: Path) -> Iterator[None]:
    """One at a time: what was told last is what is written down last."""
    place = root / LOCK
    place.parent.mkdir(parents=True, exist_ok=True)
    with place.open("a") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        yield
