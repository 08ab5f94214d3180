"""Routes that tenants of a VPC asked for: through a private gateway, or by a next hop in a tier."""

from collections.abc import Iterator, Mapping

from holdfast.addresses import inside, overlap
from holdfast.errors import Rejected
from holdfast.feature import Claim, Command, Feature, Item, Merged, Pending, Refusal
from holdfast.interface import Interface
from holdfast.router import Router
from holdfast.shared import Data
from holdfast.state import Route
from holdfast.texts import canonical, is_ipv4, is_network


class RouteItem(Item, frozen=True, kw_only=True):
    """One route; `ip_address` is the private gateway's own, absent for a plain next hop (WIRE 5.17)."""

    revoke: bool
    network: str
    gateway: str
    ip_address: str | None = None


class StaticRoutes(Command, frozen=True, kw_only=True, tag="staticroutes"):
    """All routes of the VPC."""

    routes: tuple[RouteItem, ...]


class Routes(Data, frozen=True, kw_only=True):
    """Gateways by destination network."""

    routes: dict[str, str] = {}


def merge(bag: Routes, command: StaticRoutes, router: Router) -> Merged[Routes]:
    """The list is complete: what it does not hold, or revokes, goes; a refused route keeps its last good form."""
    routes: dict[str, str] = {}
    kept: dict[str, str] = {}
    refused = []
    for index, item in enumerate(command.routes):
        if item.revoke:
            continue
        target = canonical(item.network) if is_network(item.network) else ""
        try:
            _check(item, target, routes, router)
        except Rejected as why:
            refused.append(Refusal(f"routes[{index}].{why.path}", item.network, why.reason))
            if target in bag.routes:
                kept[target] = bag.routes[target]
        else:
            routes[target] = item.gateway
    # In the order of their networks: a message sent again must leave the same bytes, whatever it had refused.
    return Merged(Routes(routes=dict(sorted({**kept, **routes}.items()))), tuple(refused))


def _check(item: RouteItem, target: str, routes: Mapping[str, str], router: Router) -> None:
    if "/" not in item.network or not target:
        raise Rejected(f"{item.network!r} is not an IPv4 network", "network")
    if target.endswith("/0"):
        raise Rejected(f"{target} is everything: the default route is not the tenants'", "network")
    if face := _covered(target, router):
        raise Rejected(f"{target} is connected to {face.device or face.nic}", "network")
    if not is_ipv4(item.gateway):
        raise Rejected(f"{item.gateway!r} is not an IPv4 address", "gateway")
    if router.holder(item.gateway):
        raise Rejected(f"{item.gateway} is the router's own address", "gateway")
    if routes.get(target, item.gateway) != item.gateway:
        raise Rejected(f"{target} goes by {routes[target]} already", "gateway")


def _covered(target: str, router: Router) -> Interface | None:
    """The interface whose own route this one would replace; a part of the control network is never led away either."""
    for face in router.interfaces:
        for net in face.networks:
            part = face.purpose == "control" and overlap(_whole(target), net) and _length(target) > _length(net)
            if _whole(target) == net or part:
                return face
    return None


def _whole(target: str) -> str:
    return target if "/" in target else f"{target}/32"


def _length(target: str) -> int:
    return int(_whole(target).partition("/")[2])


def contribute(bag: Routes, router: Router) -> Iterator[Claim]:
    """Each route in the main table; policy tables leave its destination to the main table."""
    for target, gateway in bag.routes.items():
        origin, destination = f"staticroutes/{target}", _whole(target)
        face = next((face for face in router.interfaces if face.device and inside(gateway, face.networks)), None)
        # What came later may have taken the network or the gateway's address: the route waits until it goes.
        if other := _covered(target, router):
            yield Claim(origin, Pending(f"route {target}", f"{other.device or other.nic} to leave that network"))
            continue
        if router.holder(gateway):
            yield Claim(origin, Pending(f"route {target}", f"{gateway} to be another's address"))
            continue
        if face is None:
            yield Claim(origin, Pending(f"route {target}", f"a nic in the network of {gateway}"))
            continue
        if router.up(face):
            yield Claim(origin, Route(destination, gateway=gateway, device=face.device))
        for policy in (*router.of("public"), *router.of("private")):
            yield Claim(origin, Route(destination, policy.table, kind="throw"))


FEATURE = Feature("staticroutes", (StaticRoutes,), Routes, merge, contribute, units="routes")
