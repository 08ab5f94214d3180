"""What ip(8) is told so that a link, a route or a neighbour is as wanted.  Pure."""

from holdfast.state import Link, Route

PROTOCOL = "77"
"""The number that tells our routes from others'."""


def link(wanted: Link) -> tuple[str, ...]:
    """The words that set a device's MTU and state; saying them twice does no harm."""
    mtu = ("mtu", str(wanted.mtu)) if wanted.mtu else ()
    return ("link", "set", "dev", wanted.device, *mtu, "up" if wanted.up else "down")


def route(wanted: Route) -> tuple[str, ...]:
    """The words that make a route, or put it in the place of another; saying them twice does no harm."""
    gateway = ("via", wanted.gateway) if wanted.gateway else ()
    device = ("dev", wanted.device) if wanted.device else ()
    source = ("src", wanted.source) if wanted.source else ()
    where = (wanted.destination, *gateway, *device, *source, "table", str(wanted.table), "proto", PROTOCOL)
    return ("route", "replace", wanted.kind, *where)


def neighbour(address: str, mac: str, device: str) -> tuple[str, ...]:
    """The words that set a neighbour's MAC: used at once, and asked for at once by unicast (ip-neighbour(8))."""
    return ("neighbor", "replace", address, "lladdr", mac, "dev", device, "nud", "probe")
