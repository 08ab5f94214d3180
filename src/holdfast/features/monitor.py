"""Which services are watched and which health checks are asked for; systemd watches, and checks only look."""

import re
from collections.abc import Iterator

import msgspec

from holdfast.errors import Rejected
from holdfast.feature import Claim, Command, Feature, Merged, Service
from holdfast.health import PLACE, Asked, Watched
from holdfast.router import Router
from holdfast.shared import Data
from holdfast.state import File

TIMER = "holdfast-health.timer"
UNITS = {
    "dhcp": "dnsmasq.service",
    "loadbalancing": "haproxy.service",
    "ssh": "ssh.service",
    "webserver": "holdfast-guest.service",
}
"""What serves each section of the list; process names and pid files of other agents' services say nothing here."""
_ENTRY = re.compile(
    r"\[([a-z0-9_-]{1,32})\]:processname=([\w.+-]{1,64}):servicename=([\w.@+-]{1,64}):pidfile=([\w./+-]{1,200}):",
    re.ASCII,
)
_CHECK = re.compile(r"[\w.-]{1,64}", re.ASCII)
_LONGEST_MIN = 7 * 24 * 60


class MonitorService(Command, frozen=True, kw_only=True, tag="monitorservice"):
    """Which services are watched, and the data of the health checks (WIRE 5.18)."""

    config: str | None = None
    disable_monitoring: str | None = None
    health_checks_enabled: bool | None = None
    health_checks_basic_run_interval: int | None = None
    health_checks_advanced_run_interval: int | None = None
    excluded_health_checks: str | None = None
    health_checks_config: dict[str, str] | None = None


class Monitor(Data, frozen=True, kw_only=True):
    """Sections that are watched, and whether they are; which checks run, how often in minutes, with what data."""

    sections: tuple[str, ...] = ()
    watching: bool = False
    checking: bool = False
    basic_min: int = 0
    advanced_min: int = 0
    excluded: tuple[str, ...] = ()
    data: dict[str, str] = {}


def merge(bag: Monitor, command: MonitorService, _router: Router) -> Merged[Monitor]:
    """Take what a message says; what it leaves out stays: the periodic one says nothing of services.

    `disable_monitoring` is there only where monitoring is off, and then it says `false` (WIRE 10, trap 11).
    """
    sections, watching = bag.sections, bag.watching
    warnings: list[str] = []
    if command.config is not None:
        sections, watching = _sections(command.config), True
        warnings = [f"nothing here serves {name!r}: it is not watched" for name in sections if name not in UNITS]
    if command.disable_monitoring is not None:
        watching = False
    intervals = {
        "basic_min": _minutes(command.health_checks_basic_run_interval, bag.basic_min, "basic"),
        "advanced_min": _minutes(command.health_checks_advanced_run_interval, bag.advanced_min, "advanced"),
    }
    checking, data = command.health_checks_enabled, command.health_checks_config
    after = Monitor(
        sections=sections,
        watching=watching,
        checking=bag.checking if checking is None else checking,
        excluded=bag.excluded if command.excluded_health_checks is None else _excluded(command.excluded_health_checks),
        data=bag.data if data is None else dict(sorted(data.items())),
        **intervals,
    )
    return Merged(after, warnings=tuple(warnings))


def _sections(config: str) -> tuple[str, ...]:
    entries = [entry for entry in config.split(",") if entry.strip()]
    for entry in entries:
        if not _ENTRY.fullmatch(entry.strip()):
            raise Rejected(f"{entry[:100]!r} is no entry of a service list", "config")
    return tuple(sorted({entry.strip()[1:].partition("]")[0] for entry in entries}))


def _excluded(text: str) -> tuple[str, ...]:
    names = [name.strip() for name in text.split(",") if name.strip()]
    for name in names:
        if not _CHECK.fullmatch(name):
            raise Rejected(f"{name[:100]!r} is no name of a check", "excluded_health_checks")
    return tuple(sorted(set(names)))


def _minutes(told: int | None, held: int, which: str) -> int:
    if told is None:
        return held
    if not 0 <= told <= _LONGEST_MIN:
        raise Rejected(f"{told} is no number of minutes up to a week", f"health_checks_{which}_run_interval")
    return told


def contribute(bag: Monitor, router: Router) -> Iterator[Claim]:
    """What the checks look for, and the timer by which they run."""
    if bag == Monitor():
        return
    wanted = bag.watching or (bag.checking and bool(bag.basic_min or bag.advanced_min))
    yield Claim("monitorservice", Service(TIMER, wanted=wanted))
    asked = Asked(
        services=tuple(Watched(name, UNITS[name], _is_to_run(name, router)) for name in bag.sections if name in UNITS),
        watching=bag.watching,
        checking=bag.checking,
        basic_min=bag.basic_min,
        advanced_min=bag.advanced_min,
        excluded=bag.excluded,
        serving=router.serving,
        data=bag.data,
    )
    yield Claim("monitorservice", File(PLACE, msgspec.json.encode(asked._asdict()).decode(), mode=0o600))


def _is_to_run(section: str, router: Router) -> bool:
    """Whether this router, in its role and with its networks, is to have the service."""
    if section == "ssh":
        return bool(router.of("control"))
    if section == "loadbalancing":
        return bool(router.config["loadbalancer"].configuration)
    return router.serving and bool(router.served) and router.boot.type != "ilbvm"


FEATURE = Feature("monitorservice", (MonitorService,), Monitor, merge, contribute)
