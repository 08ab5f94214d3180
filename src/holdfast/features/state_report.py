"""Where to look to tell whether one of a pair serves: left for checkrouter.sh, which must answer at once.  Pure."""

from collections.abc import Iterator

import msgspec

from holdfast.answers.checkrouter import WATCH
from holdfast.feature import Claim, Feature
from holdfast.router import Router
from holdfast.shared import BootLine, Ips
from holdfast.state import File

_NEWER_KEYS = frozenset({"authorized_key", "logrotatefrequency"})
"""What boot lines of servers say that call the serving router PRIMARY, and those of 4.6.1 do not."""


def contribute(_bag: None, router: Router) -> Iterator[Claim]:
    """The nics that only the serving router has up, the address that it alone has, and the server's word for it."""
    if not router.boot.redundant:
        return
    outer = sorted(face.device for face in (*router.of("public"), *router.of("private")))
    watch = {
        "outer": outer,
        "virtual": router.segment.virtual if router.segment else "",
        "word": _word(router.boot, router.config["ips"]),
    }
    yield Claim("cmdline/redundant_state", File(WATCH, msgspec.json.encode(watch).decode()))


def _word(boot: BootLine, ips: Ips) -> str:
    """PRIMARY, or MASTER for servers before 4.16.  The second router's line says BACKUP in either age: there other keys
    tell.
    """
    said = boot.other.get("redundant_state", "PRIMARY")
    if said in ("PRIMARY", "MASTER"):
        return said
    newer = boot.public_mtu or boot.private_mtu or _NEWER_KEYS & boot.other.keys()
    return "PRIMARY" if newer or any(held.mtu for held in ips.addresses.values()) else "MASTER"


FEATURE = Feature("state_report", (), None, None, contribute)
