"""manage_service.sh: stop a service for a while, or let it run again."""

import sys
from collections.abc import Sequence
from pathlib import Path

from holdfast import wishes
from holdfast.session import Session

_USAGE, _FAILED = 2, 3
_ACTIONS = ("start", "stop", "restart", "status")


def main(argv: Sequence[str], root: Path = Path("/")) -> int:
    """manage_service.sh ACTION SERVICE: start, stop, restart or status of a service that Holdfast keeps.

    Returns 0, or what a convergence returns, 3 if the service is not as it was asked to be; for `status` 0 if it runs
    and 3 if not, as systemctl.  What is no such action or service is refused with 2: no other name reaches systemd.
    """
    if len(argv) != 2 or argv[0] not in _ACTIONS or argv[1] not in wishes.SERVICES:  # noqa: PLR2004 action and service
        asked = bool(argv) and argv[0] in ("-h", "--help")
        usage = f"usage: manage_service.sh {'|'.join(_ACTIONS)} {'|'.join(wishes.SERVICES)}\n"
        (sys.stdout if asked else sys.stderr).write(usage)
        return 0 if asked else _USAGE
    action, service = argv
    if action == "status":
        return _status(root, service)
    if action in ("stop", "restart"):
        wishes.wish_stopped(root, service)
    if action in ("start", "restart"):
        wishes.wish_started(root, service)
    session = Session(root)
    answer = session.converge(f"manage_service.sh {action} {service}")
    for fault in answer.faults:
        sys.stderr.write(f"not as wanted: {fault}\n")
    # An older fault to the convergence, and just what was asked for here.
    return answer.code or (_FAILED if any(wishes.SERVICES[service] in fault for fault in answer.faults) else 0)


def _status(root: Path, service: str) -> int:
    # The link that systemd keeps for its journal while a unit is active.
    runs = (root / f"run/systemd/units/invocation:{wishes.SERVICES[service]}").is_symlink()
    kept = " (stopped by command)" if wishes.SERVICES[service] in wishes.stopped(root) else ""
    sys.stdout.write(f"{service} {'runs' if runs else f'does not run{kept}'}\n")
    return 0 if runs else 3
