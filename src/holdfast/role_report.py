"""Which of a pair this router is: keepalived's last word, and what the machine itself shows.  Imports little."""

import socket
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from holdfast.answers.checkrouter import ALONE, CHECK_LOG, UNKNOWN, WATCH, Seen, misfits, pair
from holdfast.link_flags import UP, link_flags

WORD = "run/holdfast/role"
MOVED = "run/holdfast/role.moved"
WORDS = ("MASTER", "BACKUP", "FAULT")
SETTLE_S = 2.0
"""How long what does not fit together may be a change of role under way."""
_LOOK_S = 0.05
_USAGE = 2
_MUCH = 4096


def word(root: Path) -> str:
    """The word that keepalived's hook wrote last; empty where there is none, or none that keepalived says."""
    try:
        said = (root / WORD).read_bytes().decode(errors="replace").strip()
    except OSError:
        return ""
    return said if said in WORDS else ""


def look(root: Path) -> Seen | None:
    """What one of a pair looks like now; None if nobody has said where to look, as before the first run."""
    watch = _document(root / WATCH.lstrip("/"))
    if watch is None:
        return None
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as asked:
        outer = {device: is_up(asked, device) for device in watch["outer"]}
    trie = Path("/proc/net/fib_trie").read_text()
    return Seen(
        role=word(root),
        # The link that systemd keeps for its journal while a unit is active.
        runs=(root / "run/systemd/units/invocation:keepalived.service").is_symlink(),
        virtual=watch["virtual"],
        held=bool(watch["virtual"]) and is_local(trie, watch["virtual"]),
        outer=outer,
        word=watch["word"],
        missing=tuple(watch.get("missing", ())),  # an earlier version has not said it
        kept={address: is_local(trie, address) for address in watch.get("kept", ())},
        refused=_refused(root),
    )


def _refused(root: Path) -> str:
    """Why keepalived has refused its text at the last reload; empty where it has taken it."""
    try:
        said = (root / CHECK_LOG.lstrip("/")).read_bytes()[:_MUCH].decode(errors="replace")
    except OSError:
        return ""
    return next((line.strip() for line in said.splitlines() if line.strip()), "")


def _document(path: Path) -> dict[str, Any] | None:
    import json  # noqa: PLC0415 not for the commands that want the word alone; msgspec would take twice as long

    try:
        document = json.loads(path.read_bytes())
    except (OSError, ValueError):
        return None
    return document if isinstance(document, dict) else None


def is_local(trie: str, address: str) -> bool:
    """Whether an address is this machine's own, from /proc/net/fib_trie: a leaf, and `/32 host LOCAL` below it."""
    _, *leaves = trie.split(f"|-- {address}\n")
    return any("/32 host LOCAL" in leaf.partition("|--")[0].partition("+--")[0] for leaf in leaves)


def is_up(asked: socket.socket, device: str) -> bool:
    """Whether a link is set up, with a carrier or not; `asked`: any socket of its network namespace."""
    try:
        return bool(link_flags(asked, device) & UP)
    except OSError:
        return False  # it was unplugged


def line(root: Path, settle_s: float = SETTLE_S) -> str:
    """The answer to management servers.  What does not fit together is looked at again for `settle_s` seconds."""
    boot = _document(root / "etc/cloudstack/cmdline.json")
    if boot is None:
        return UNKNOWN
    if not boot.get("redundant"):
        return ALONE
    until = time.monotonic() + settle_s
    while (seen := look(root)) and misfits(seen) and time.monotonic() < until:
        time.sleep(_LOOK_S)
    return pair(seen) if seen else UNKNOWN


def checkrouter(argv: Sequence[str]) -> int:
    """checkrouter.sh: print one line; some hypervisors pass the word `null` for no argument."""
    if argv and argv != ["null"]:
        sys.stderr.write("usage: checkrouter.sh   which of a pair this router is\n")
        return _USAGE
    sys.stdout.write(f"{line(Path('/'))}\n")
    return 0
