"""Whom the router itself asks for names."""

from collections.abc import Iterator

from holdfast import dnsmasq
from holdfast.feature import Claim, Feature
from holdfast.router import Router
from holdfast.state import File

RESOLV = "/etc/resolv.conf"


def contribute(_bag: None, router: Router) -> Iterator[Claim]:
    """The boot line's servers, the zone's inner ones first.  Without any the C library asks this machine."""
    boot = router.boot
    if boot.type:
        servers = dnsmasq.resolv((*boot.internal_dns, *boot.dns))
        yield Claim("cmdline/dns", File(RESOLV, f"# Written by holdfast.\n{servers}"))


FEATURE = Feature("resolver", (), None, None, contribute)
