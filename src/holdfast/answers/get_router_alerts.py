"""What getRouterAlerts.sh prints: alerts after a given second, joined by the two characters backslash and n.  Pure."""

import re
from collections.abc import Iterable

NONE = "No Alerts"
SEPARATOR = "\\n"
LONGEST = 64 * 1024
"""Characters: older alerts are left out beyond it; the newest are those that somebody should read."""
_LINE = re.compile(r"(\d{4}-\d\d-\d\d \d\d:\d\d:\d\d),")
_SINCE = re.compile(r"\d{4}-\d\d-\d\d \d\d:\d\d:\d\d", re.ASCII)


def is_since(text: str) -> bool:
    """A second as the reader writes it."""
    return _SINCE.fullmatch(text) is not None


def alerts(log: Iterable[str], since: str, now: str) -> str:
    """Alerts of seconds after `since` and before `now`, oldest first.

    The reader remembers the second of the last one and asks for what comes after: an alert of the second that is not
    over yet waits for the next question, so none is left out and none is told twice.
    """
    found: list[str] = []
    size = 0
    for line in reversed(list(log)):
        stamp = _LINE.match(line)
        if not stamp or not since < stamp[1] < now:
            continue
        text = line.strip().replace("\\n", " ")
        size += len(text) + len(SEPARATOR)
        if size > LONGEST and found:
            break
        found.append(text[:LONGEST])
    # The clock may have been set back: the last one's second is what counts for the reader.
    found.reverse()
    return SEPARATOR.join(sorted(found, key=lambda text: text[:19])) or NONE
