"""What a start by the management server confirms: what it no longer says was revoked meanwhile.  Pure.

A router restores what it was as soon as it has power.  Where the management server started it, everything is sent anew,
and what is not sent any more must not stay.  So the start's messages are merged once more, from nothing, beside the
ordinary way; when the start has ended, what they made is what holds.
"""

from collections.abc import Iterator, Mapping
from typing import Any

import msgspec

from holdfast.config import REFUSED, Config, forgetting
from holdfast.router import Facts, Router
from holdfast.shared import BootLine

SURVIVES = ("vmpassword", REFUSED)
"""What a start does not send again: passwords that wait for their VMs, and what was refused and answered."""


def begins(stored: BootLine, told: BootLine, *, fresh: bool) -> str:
    """Why a boot is a start by the management server; empty if the router came up by itself.

    `fresh`: the line was given to this machine since it has power.  A hypervisor gives it anew at each start, with the
    same bytes or not; whoever just reboots finds the old one.
    """
    if stored != told:
        return "the boot line is another one"
    return "the boot line was given anew" if fresh else ""


def confirmed(now: Config, said: Config, facts: Facts) -> Config:
    """Return the bags that hold when a start has ended: `now` as restored and told, `said` by the start alone.

    What survives without being said goes with the VM or the network that it was for.
    """
    result = {**said, **{name: now[name] for name in SURVIVES}}
    return forgetting(result, Router(now, facts))


def lost(now: Config, then: Config) -> tuple[str, ...]:
    """Name what is in `now` and not in `then`, as `firewallrules/1009`: what the start has not confirmed."""
    return tuple(
        f"{name}/{key}" if key else name
        for name in sorted(now)
        if name not in SURVIVES and now[name] != then[name]
        for key in _gone(msgspec.structs.asdict(now[name]), msgspec.structs.asdict(then[name]))
    )


def _gone(now: Mapping[str, Any], then: Mapping[str, Any]) -> Iterator[str]:
    for field, value in now.items():
        if isinstance(value, dict):
            yield from sorted(str(key) for key in value.keys() - then[field].keys())
        elif value and not then[field]:
            yield field
