"""Whom the router asks for the time."""

from collections.abc import Iterator

from holdfast.feature import Claim, Feature, Service
from holdfast.router import Router
from holdfast.state import File
from holdfast.texts import is_host_name

TIMESYNCD = "systemd-timesyncd.service"
CONFIGURATION = "/etc/systemd/timesyncd.conf.d/holdfast.conf"


def contribute(_bag: None, router: Router) -> Iterator[Claim]:
    """The boot line's servers and the service that asks them; a line without any leaves the image's own alone."""
    told = router.boot.other.get("ntpserverlist", "").split(",")
    servers = [name for name in told if is_host_name(name) and name not in ("null", "None")]  # Java's words for none
    if servers:
        text = f"# Written by holdfast.\n[Time]\nNTP={' '.join(dict.fromkeys(servers))}\n"
        yield Claim("cmdline/ntpserverlist", File(CONFIGURATION, text, restart=TIMESYNCD))
        yield Claim("cmdline/ntpserverlist", Service(TIMESYNCD, wanted=True))


FEATURE = Feature("clock", (), None, None, contribute)
