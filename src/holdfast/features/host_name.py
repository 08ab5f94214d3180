"""The router's own name: in its kernel, its files, and among the names that it knows."""

from collections.abc import Iterator

from holdfast import dnsmasq
from holdfast.feature import Claim, Feature
from holdfast.router import Router
from holdfast.state import File, Sysctl


def contribute(_bag: None, router: Router) -> Iterator[Claim]:
    """The name itself, and the base lines of /etc/hosts where nobody is served by it."""
    boot = router.boot
    if not boot.type:
        return
    name = dnsmasq.own_name(boot.name)
    yield Claim("cmdline/name", File("/etc/hostname", f"{name}\n"))
    yield Claim("cmdline/name", Sysctl("kernel/hostname", name))
    # Where guests are served, dhcpentry writes the file: they are answered from it.
    if boot.type == "ilbvm" or not router.served:
        yield Claim("cmdline/name", File(dnsmasq.NAMES, dnsmasq.names({}, name)))


FEATURE = Feature("host_name", (), None, None, contribute)
