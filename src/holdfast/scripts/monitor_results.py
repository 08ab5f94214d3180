"""getRouterMonitorResults.sh and the timer behind it: run the health checks, each within its time, and tell."""

import fcntl
import json
import os
import signal
import sys
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from types import FrameType
from typing import Any

from holdfast.answers.get_router_monitor_results import results, says_words
from holdfast.health import (
    ADVANCED,
    BASIC,
    BEFORE,
    FAILED,
    PLACE,
    RESULTS,
    SUCCESS,
    UNKNOWN,
    WARNING,
    Asked,
    Outcome,
    asked,
)
from holdfast.scripts import failed, read, refuse
from holdfast.scripts.version import RELEASE, SETTING, first_line

EACH_S = 5.0
"""How long one check may take."""
TURN_S = 30.0
"""How long a question waits for a run that is under way."""
GRAIN_S = 30.0
"""The timer's: a run that is due within half of its interval is due now."""
_STAMP = "%Y-%m-%d %H:%M:%S"
_LOCK = "run/holdfast/health.lock"


def get_router_monitor_results(argv: Sequence[str], root: Path = Path("/")) -> int:
    """getRouterMonitorResults.sh true|false: print the last results; `true`: run the checks before."""
    if list(argv) not in (["true"], ["false"]):
        return refuse("getRouterMonitorResults.sh true|false   results of the health checks, fresh or as they are")
    try:
        if argv[0] == "true":
            with _turn(root, TURN_S) as mine:
                if mine:
                    wanted = _asked(root)
                    _run(wanted, _kinds(wanted) if wanted.checking else [], root)
        release = first_line(root / SETTING) or first_line(root / RELEASE)
        sys.stdout.write(results(_held(root), words=says_words(release)))
    except (OSError, ValueError, TypeError) as error:
        return failed(error)
    return 0


def health(argv: Sequence[str], root: Path = Path("/")) -> int:
    """holdfast-health: what the timer calls; runs what is due, and nothing while another run is under way."""
    if argv:
        return refuse("holdfast-health   run the health checks that are due")
    try:
        with _turn(root, 0) as mine:
            if mine:
                wanted = _asked(root)
                _run(wanted, _due(wanted, _held(root)), root)
    except (OSError, ValueError, TypeError) as error:
        return failed(error)
    return 0


def _asked(root: Path) -> Asked:
    try:
        return asked(json.loads(read(root / PLACE.lstrip("/"))))
    except FileNotFoundError:
        return Asked()


def _held(root: Path) -> dict[str, Any]:
    try:
        held = json.loads(read(root / RESULTS))
    except (OSError, ValueError):
        return {BASIC: {}, ADVANCED: {}}
    return held if isinstance(held, dict) else {BASIC: {}, ADVANCED: {}}


def _kinds(wanted: Asked) -> list[str]:
    return [kind for kind, minutes in ((BASIC, wanted.basic_min), (ADVANCED, wanted.advanced_min)) if minutes]


def _due(wanted: Asked, held: dict[str, Any]) -> list[str]:
    minutes = {BASIC: wanted.basic_min, ADVANCED: wanted.advanced_min}
    due = []
    for kind in _kinds(wanted) if wanted.checking else []:
        last = held.get(kind, {}).get("lastRun", {}).get("start", "")
        try:
            ago = time.time() - time.mktime(time.strptime(last, _STAMP))
        except ValueError:
            ago = -1.0
        if ago < 0 or ago >= minutes[kind] * 60 - GRAIN_S:
            due.append(kind)
    return due


def _run(wanted: Asked, kinds: list[str], root: Path) -> None:
    """Run some kinds of checks; services are looked at each time: systemd has already done what there is to do."""
    from holdfast.scripts.health_checks import CHECKS, service  # noqa: PLC0415 not for who only asks for results

    before = _held(root)
    kept = _kinds(wanted) if wanted.checking else []
    after = {kind: dict(before.get(kind, {})) if kind in kept else {} for kind in (BASIC, ADVANCED)}
    for kind in kinds:
        began = time.time()
        found = {
            name: one
            for name, check in CHECKS[kind].items()
            if name not in wanted.excluded and (one := _boxed(lambda check=check: check(wanted, root)))
        }
        after[kind] = found | {"lastRun": _last(began)}
    basic = {name: one for name, one in after[BASIC].items() if not name.endswith(".service")}
    for watched in wanted.services if wanted.watching else ():
        if one := _boxed(lambda watched=watched: service(watched)):
            basic[f"{watched.section}.service"] = one
    after[BASIC] = basic
    _remember(before, after)
    _write(root / RESULTS, after)
    _alert(before, after, root)


def _boxed(check: Any) -> dict[str, str] | None:
    """One result; None if the check does not apply.  Whatever goes wrong in it is said, and stops no other."""
    from holdfast.scripts.health_checks import unknown  # noqa: PLC0415 as above

    began = time.monotonic()
    try:
        with _within(EACH_S):
            outcome: Outcome | None = check()
    except (_LateError, Exception) as error:  # noqa: BLE001 a check that breaks must not hide the others
        outcome = unknown(error if isinstance(error, _LateError) else f"{type(error).__name__}: {error}")
    if outcome is None:
        return None
    return {
        "success": outcome.success,
        "lastUpdate": str(int(time.time() * 1000)),
        "lastRunDuration": f"{(time.monotonic() - began) * 1000:.1f}",
        "message": " ".join(outcome.message.split())[:1000],
    }


class _LateError(BaseException):
    """A check has had its time.  No `Exception`: what a check does about errors of its own must not swallow it."""


@contextmanager
def _within(seconds: float) -> Iterator[None]:
    def ring(_number: int, _frame: FrameType | None) -> None:
        raise _LateError(f"no result within {seconds:.0f} s")

    before = signal.signal(signal.SIGALRM, ring)
    signal.setitimer(signal.ITIMER_REAL, seconds)
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)


def _last(began: float) -> dict[str, str]:
    start, end = (time.strftime(_STAMP, time.localtime(at)) for at in (began, time.time()))
    return {"start": start, "end": end, "duration": f"{time.time() - began:.3f}"}


def _alert(before: dict[str, Any], after: dict[str, Any], root: Path) -> None:
    """Tell of what has begun to fail and of what has ceased to, once each; what cannot be found out is neither."""
    from holdfast.alerts import alert  # noqa: PLC0415 as above

    was = _told(before)
    texts = []
    for name, one in ((name, one) for checks in after.values() for name, one in checks.items() if "success" in one):
        if one["success"] == FAILED and was.get(name) != FAILED:
            texts.append(f"health check {name}: {one['message']}")
        elif one["success"] in (SUCCESS, WARNING) and was.get(name) == FAILED:
            texts.append(f"health check {name}: well again, {one['message']}")
    if texts:
        alert(root, texts)


def _told(held: dict[str, Any]) -> dict[str, str]:
    """What was last found of each check, whatever could not be found out since."""
    return {name: one.get(BEFORE, one.get("success", "")) for checks in held.values() for name, one in checks.items()}


def _remember(before: dict[str, Any], after: dict[str, Any]) -> None:
    """Keep with each result that tells nothing what was found before it."""
    was = _told(before)
    for name, one in ((name, one) for checks in after.values() for name, one in checks.items()):
        if one.get("success") == UNKNOWN and was.get(name):
            one[BEFORE] = was[name]


def _write(path: Path, held: dict[str, Any]) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    fresh = path.with_name(f".{path.name}.{os.getpid()}")
    fresh.write_text(json.dumps(held))
    fresh.replace(path)


@contextmanager
def _turn(root: Path, patience_s: float) -> Iterator[bool]:
    """One run at a time; False if another one has not ended in time."""
    place = root / _LOCK
    place.parent.mkdir(parents=True, exist_ok=True)
    until = time.monotonic() + patience_s
    with place.open("a") as file:
        while True:
            try:
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                if time.monotonic() >= until:
                    yield False
                    return
                time.sleep(0.05)
            else:
                yield True
                return
