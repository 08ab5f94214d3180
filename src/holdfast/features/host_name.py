"""The router's own name: in its kernel, its files, and among the names that it knows."""

from collections.abc import Iterator

from holdfast import dnsmasq
from holdfast.feature import Claim, Feature
from holdfast.router import Router
from holdfast.state import File, Sysctl

UNNAMED = "router"
"""What a router is called whose name no host can have."""


def contribute(_bag: None, router: Router) -> Iterator[Claim]:
    """The name itself, and the base lines of /etc/hosts where nobody is served by it."""
    boot = router.boot
    if not boot.type:
        return
    name = dnsmasq.host_name(boot.name) or UNNAMED
    yield Claim("cmdline/name", File("/etc/hostname", f"{name}\n"))
    yield Claim("cmdline/name", Sysctl("kernel/hostname", name))
    # Where guests are served the same lines stand at the head of their names.
    if boot.type == "ilbvm" or not router.served:
        yield Claim("cmdline/name", File(dnsmasq.NAMES, dnsmasq.names({}, name, ())))


FEATURE = Feature("host_name", (), None, None, contribute)
