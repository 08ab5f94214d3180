"""What getRouterMonitorResults.sh prints: names of checks that fail, and all results as text in JSON.  Pure."""

import json
import re
from typing import Any

from holdfast.health import BEFORE, FAILED

_RELEASE = re.compile(r"(\d+)\.(\d+)")
_WORDS_SINCE = (4, 22)


def says_words(release: str) -> bool:
    """Whether a server of this release reads SUCCESS and FAILED; those before 4.22 read true and false."""
    found = _RELEASE.search(release)
    return not found or (int(found[1]), int(found[2])) >= _WORDS_SINCE


def results(held: dict[str, Any], *, words: bool) -> str:
    """Two sections.  `held`: by kind and check `success`, `lastUpdate`, `lastRunDuration`, `message`, and `lastRun`."""
    failing = [name for checks in held.values() for name, one in checks.items() if one.get("success") == FAILED]
    told = {kind: {name: _told(one) for name, one in checks.items()} for kind, checks in held.items()}
    shown = told if words else {kind: _older(checks) for kind, checks in told.items()}
    lines = ["FAILING CHECKS:", *([",".join(failing)] if failing else []), "MONITOR RESULTS:", json.dumps(shown)]
    return "".join(f"{line}\n" for line in lines)


def _told(one: dict[str, Any]) -> dict[str, Any]:
    return {field: value for field, value in one.items() if field != BEFORE}


def _older(checks: dict[str, Any]) -> dict[str, Any]:
    return {
        name: {**one, "success": "false" if one["success"] == FAILED else "true"} if "success" in one else one
        for name, one in checks.items()
    }
