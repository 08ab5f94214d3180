"""getRouterAlerts.sh: what an operator must hear of, since the last question."""

import sys
import time
from collections.abc import Sequence
from pathlib import Path

from holdfast.answers.get_router_alerts import alerts, is_since
from holdfast.scripts import failed, read, refuse, words

LOG = "var/log/routerServiceMonitor.log"
_TAIL = 1 << 20


def get_router_alerts(argv: Sequence[str], root: Path = Path("/")) -> int:
    """Print the alerts after `YYYY-MM-DD HH:MM:SS`, or `No Alerts`."""
    since = " ".join(words(argv))
    if since and not is_since(since):
        return refuse("getRouterAlerts.sh [YYYY-MM-DD HH:MM:SS]   alerts after that second")
    try:
        lines = [line for name in (f"{LOG}.1", LOG) for line in _lines(root / name)]
    except OSError as error:
        return failed(error)
    sys.stdout.write(f"{alerts(lines, since, time.strftime('%Y-%m-%d %H:%M:%S'))}\n")
    return 0


def _lines(path: Path) -> list[str]:
    """The end of a log, a bounded part of it; OSError if it is there and cannot be read."""
    try:
        return read(path, -_TAIL).decode(errors="replace").splitlines()
    except FileNotFoundError:
        return []
