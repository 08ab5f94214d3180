"""IPv4 routes: ours are those that carry our protocol number."""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any

import msgspec

from holdfast import ip_words
from holdfast.converge import Failure
from holdfast.ip_words import PROTOCOL
from holdfast.iproute import IpRoute, Order, as_wanted
from holdfast.state import Change, Key, Resource, Route, State

MAIN = 254

_KINDS = ("unicast", "throw")
# rtnetlink(7)'s types by number; ip(8) prints the number and understands the name alone.
_TYPES = (
    *("unspec", "unicast", "local", "broadcast", "anycast", "multicast"),
    *("blackhole", "unreachable", "prohibit", "throw", "nat", "xresolve"),
)
_KNOWN = frozenset({"type", "dst", "gateway", "dev", "table", "scope", "flags", "protocol", "prefsrc"})
_PART_OF_THE_KEY = ("tos", "metric")  # to the kernel, but never to us


def parse_routes(text: str, desired: Mapping[Key, Resource]) -> list[Route]:
    """Understand what `ip -N -j route show table all` printed.

    A route with anything that we never write gets that into its `kind` (`unicast metric 50`, `unicast +via`), so
    that it equals nothing wanted; such ones come last and so stand for their key.
    """
    routes = [_route(item, desired) for item in msgspec.json.decode(text or "[]", type=list[dict[str, Any]])]
    return sorted(routes, key=lambda route: " " in route.kind)


def _route(item: Mapping[str, Any], desired: Mapping[Key, Resource]) -> Route:
    number = int(item.get("type", 1))
    odd = [f"{name} {item[name]}" for name in _PART_OF_THE_KEY if name in item]
    odd += [f"+{name}" for name in sorted(item.keys() - _KNOWN - set(_PART_OF_THE_KEY))]
    odd += ["+onlink"] if "onlink" in item.get("flags", ()) else []
    kind = " ".join([_TYPES[number], *odd])
    destination = item["dst"]
    spellings = [destination] if "/" in destination or destination == "default" else [f"{destination}/32", destination]
    table = int(item.get("table", MAIN))
    way = (item.get("gateway", ""), item.get("dev", ""), item.get("prefsrc", ""))
    return as_wanted([Route(one, table, kind, *way) for one in spellings], desired)


class Routes:
    """Keeps the IPv4 routes of protocol 77 in all tables; IPv6 will be a second question of the same shape."""

    kinds: tuple[type[Resource], ...] = (Route,)

    def __init__(self, ip: IpRoute) -> None:
        self.ip = ip

    def observe(self, desired: State) -> Iterator[Route]:
        """Read all routes of ours; CommandFailed if ip(8) cannot tell."""
        argv = ["ip", "-N", "-j", "route", "show", "table", "all", "proto", PROTOCOL]
        yield from parse_routes(self.ip.run(argv), desired)

    def check(self, changes: Sequence[Change]) -> Iterable[Failure]:
        """Refuse kinds of routes that are none."""
        for change in changes:
            if isinstance(change.after, Route) and change.after.kind not in _KINDS:
                yield Failure(change.key, f"no such kind of route: {change.after.kind}")

    def apply(self, changes: Sequence[Change]) -> Iterable[Failure]:
        """Take and give in bulk; those without a gateway first, since a gateway may be reached by one of them."""
        wanted = sorted(changes, key=lambda change: bool(getattr(change.after, "gateway", "")))
        failures = self.ip.change([order for change in wanted for order in _orders(change)])
        return list({failure.key: failure for failure in failures}.values())


def _orders(change: Change) -> Iterator[Order]:
    before, after = change.before, change.after
    if isinstance(before, Route) and (after is None or " " in before.kind):
        kind, *odd = before.kind.split()
        exact = [word for word in odd if not word.startswith("+")]
        where = (before.destination, "table", str(before.table), "proto", PROTOCOL, *exact)
        gone = ("No such process", "FIB table does not exist", "Cannot find device")
        yield Order(before.key, ("route", "del", kind, *where), gone)
    if isinstance(after, Route):
        yield Order(after.key, ip_words.route(after))
