"""What an operator must hear of: the alerts log that management servers read, and the journal."""

import syslog
import time
from collections.abc import Iterable
from pathlib import Path

LOG = "var/log/routerServiceMonitor.log"
LARGEST = 1 << 20
"""Bytes of the log; the one before is kept beside it as `.1`, and nothing older."""


def alert(root: Path, texts: Iterable[str]) -> None:
    """Append one line per text, `YYYY-MM-DD HH:MM:SS,mmm text`; a full disk must not fail the command."""
    now = time.time()
    stamp = f"{time.strftime('%Y-%m-%d %H:%M:%S', time.localtime(now))},{int(now % 1 * 1000):03d}"
    lines = [f"{stamp} {_plain(text)}\n" for text in texts]
    try:
        path = root / LOG
        path.parent.mkdir(parents=True, exist_ok=True)
        if path.exists() and path.stat().st_size > LARGEST:
            path.replace(path.with_name(f"{path.name}.1"))
        with path.open("a", encoding="utf-8") as log:
            log.writelines(lines)
    except OSError as error:
        note(f"alerts cannot be written: {error}", urgent=True)
    for line in lines:
        note(line[len(stamp) + 1 :].rstrip(), urgent=True)


def note(text: str, *, urgent: bool = False) -> None:
    """Write one line to the journal."""
    syslog.syslog(syslog.LOG_WARNING if urgent else syslog.LOG_INFO, f"holdfast: {_plain(text)}")


def _plain(text: str) -> str:
    """One line in which nothing commands a terminal, whoever the text is from: controls, marks of direction, halves."""
    return "".join(letter if letter.isprintable() else "?" for letter in " ".join(text.split()))
