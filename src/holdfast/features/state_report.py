"""Where to look to tell whether one of a pair serves: left for checkrouter.sh, which must answer at once.  Pure."""

from collections.abc import Iterator

import msgspec

from holdfast.answers.checkrouter import WATCH
from holdfast.feature import Claim, Feature
from holdfast.interface import missing
from holdfast.router import Router
from holdfast.state import File


def contribute(_bag: None, router: Router) -> Iterator[Claim]:
    """The nics that only the serving router has up, the addresses that it alone has, and the server's word for it."""
    if not router.boot.redundant:
        return
    outer = sorted(face.device for face in (*router.of("public"), *router.of("private")))
    watch = {
        "outer": outer,
        "missing": missing(router.interfaces),
        "virtual": router.segment.virtual if router.segment else "",
        "kept": sorted(face.virtual for face in router.interfaces if face.device and face.virtual),
        "word": _word(router),
    }
    yield Claim("cmdline/redundant_state", File(WATCH, msgspec.json.encode(watch).decode()))


def _word(router: Router) -> str:
    """PRIMARY, or MASTER for servers before 4.16: an address message with an MTU tells a newer one as well."""
    newer = any(held.mtu for held in router.config["ips"].addresses.values())
    return "MASTER" if router.boot.older and not newer else "PRIMARY"


FEATURE = Feature("state_report", (), None, None, contribute)
