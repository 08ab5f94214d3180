"""Services that somebody wants stopped for a while: a wish with a life, not drift.

A management server stops keepalived around a clean-up and starts it again; if it never does, the wish ends by itself.
"""

import time
from pathlib import Path

from holdfast.run import run

DIRECTORY = "run/holdfast/wishes"
"""One file a unit; gone after a reboot, as the wish is."""
LIFE_S = 1800.0
SERVICES = {
    "conntrackd": "conntrackd.service",
    "dnsmasq": "dnsmasq.service",
    "haproxy": "haproxy.service",
    "keepalived": "keepalived.service",
}
"""What may be stopped, by the name that management servers use."""
_STOP_TIMEOUT_S = 100.0  # systemd itself gives up after 90


def stopped(root: Path, now_s: float | None = None) -> frozenset[str]:
    """The units that somebody wants stopped now; `now_s` is the monotonic clock's."""
    now = time.monotonic() if now_s is None else now_s
    alive = set()
    for unit in SERVICES.values():
        try:
            since = float((root / DIRECTORY / unit).read_text("ascii"))
        except (OSError, ValueError):
            continue
        if 0 <= now - since < LIFE_S:
            alive.add(unit)
    return frozenset(alive)


def wish_stopped(root: Path, service: str) -> None:
    """Stop a service and keep it so until `wish_started`, a reboot or half an hour; OSError if systemd would not."""
    unit = SERVICES[service]
    directory = root / DIRECTORY
    directory.mkdir(parents=True, exist_ok=True)
    (directory / unit).write_text(f"{time.monotonic()}\n", "ascii")  # first: who converges meanwhile must not start it
    run(["systemctl", "stop", "--", unit], timeout_s=_STOP_TIMEOUT_S)


def wish_started(root: Path, service: str) -> None:
    """End the wish; whether the service runs is the configuration's matter again."""
    (root / DIRECTORY / SERVICES[service]).unlink(missing_ok=True)
