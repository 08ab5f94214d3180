"""Port forwarding and static NAT: public addresses that lead to one VM."""

from collections.abc import Iterator
from typing import NamedTuple

from holdfast.errors import Rejected
from holdfast.feature import Claim, Command, Feature, Ipv4, Item, Merged, Pending, Refusal
from holdfast.intervals import Span, disjoint
from holdfast.nft import Element, key, mark, ports, quoted
from holdfast.router import Router
from holdfast.shared import Data
from holdfast.texts import canonical, is_network

MAX_PORT = 65535


class ForwardItem(Item, frozen=True, kw_only=True):
    """One port forward; ranges as `first:last` (WIRE 5.6)."""

    revoke: bool
    protocol: str
    source_ip_address: Ipv4
    source_port_range: str
    destination_ip_address: Ipv4
    destination_port_range: str
    source_cidr_list: str = ""


class StaticItem(Item, frozen=True, kw_only=True):
    """One static NAT; with a protocol it is the older form that covers some ports only (WIRE 5.7)."""

    revoke: bool
    source_ip_address: Ipv4
    destination_ip_address: Ipv4
    source_port_range: str = "0:0"
    protocol: str | None = None


class ForwardRules(Command, frozen=True, kw_only=True, tag="forwardrules"):
    """Port forwards of some public addresses."""

    rules: tuple[ForwardItem, ...]


class StaticNatRules(Command, frozen=True, kw_only=True, tag="staticnatrules"):
    """Static NATs that change."""

    rules: tuple[StaticItem, ...]


class Forward(Data, frozen=True, kw_only=True):
    """`address`:`first`-`last` leads to `to`:`to_first` and on, one to one; or all of it to one port."""

    address: str
    protocol: str
    first: int
    last: int
    to: str
    to_first: int
    to_last: int
    sources: tuple[str, ...] = ()


class Forwarding(Data, frozen=True, kw_only=True):
    """Port forwards by public side (`203.0.113.7 tcp 80:81`), static NATs as public -> VM address; oldest first."""

    ports: dict[str, Forward] = {}
    static: dict[str, str] = {}


class _Unit(NamedTuple):
    """A unit of either message: where it stands, what it is called, and what it wants."""

    path: str
    name: str
    revoke: bool
    item: ForwardItem | StaticItem


def merge(bag: Forwarding, command: ForwardRules | StaticNatRules, _router: Router) -> Merged[Forwarding]:
    """Revokes first, so that a port that changes its owner within one message is free by then."""
    ports_now, static = dict(bag.ports), dict(bag.static)
    items: tuple[ForwardItem | StaticItem, ...] = command.rules
    units = [_Unit(f"rules[{i}]", _name(item), item.revoke, item) for i, item in enumerate(items)]
    for unit in units:
        if unit.revoke:
            (static if _is_whole(unit.item) else ports_now).pop(unit.name, None)
    refused = []
    for unit in units:
        if unit.revoke:
            continue
        try:
            if _is_whole(unit.item):
                static[unit.name] = unit.item.destination_ip_address
            else:
                _put(ports_now, unit.name, _forward(unit.item))
        except Rejected as why:
            refused.append(Refusal(f"{unit.path}.{why.path}", unit.name, why.reason))
    return Merged(Forwarding(ports=ports_now, static=static), tuple(refused))


def _is_whole(item: ForwardItem | StaticItem) -> bool:
    return isinstance(item, StaticItem) and item.protocol is None


def _name(item: ForwardItem | StaticItem) -> str:
    if _is_whole(item):
        return item.source_ip_address
    return f"{item.source_ip_address} {(item.protocol or '').lower()} {item.source_port_range}"


def _forward(item: ForwardItem | StaticItem) -> Forward:
    protocol = (item.protocol or "").lower()
    if protocol not in ("tcp", "udp"):
        raise Rejected(f"{item.protocol!r} is neither tcp nor udp", "protocol")
    first, last = _range(item.source_port_range, "source_port_range")
    to_first, to_last = first, last
    sources: tuple[str, ...] = ()
    if isinstance(item, ForwardItem):
        to_first, to_last = _range(item.destination_port_range, "destination_port_range")
        sources = tuple(part.strip() for part in item.source_cidr_list.split(",") if part.strip())
    if to_last - to_first not in (last - first, 0):
        raise Rejected(f"{last - first + 1} ports do not lead to {to_last - to_first + 1}", "destination_port_range")
    for source in sources:
        if not is_network(source):
            raise Rejected(f"{source!r} is not an IPv4 network", "source_cidr_list")
    return Forward(
        address=item.source_ip_address, protocol=protocol, first=first, last=last, to=item.destination_ip_address,
        to_first=to_first, to_last=to_last, sources=sources,
    )  # fmt: skip


def _range(text: str, path: str) -> tuple[int, int]:
    first, _, last = text.partition(":")
    last = last or first
    digits = all(end.isascii() and end.isdigit() and len(end) <= 5 for end in (first, last))  # noqa: PLR2004 as 65535 has
    if not digits:
        raise Rejected(f"{text!r} is not a range of ports as 80:90", path)
    if not 1 <= int(first) <= int(last) <= MAX_PORT:
        raise Rejected(f"{text!r} does not go upwards within 1 to {MAX_PORT}", path)
    return int(first), int(last)


def _put(ports_now: dict[str, Forward], name: str, wanted: Forward) -> None:
    known = ports_now.get(name)
    if known == wanted:
        return
    if known is None:
        for other in ports_now.values():
            same = other.address == wanted.address and other.protocol == wanted.protocol
            if same and other.first <= wanted.last and wanted.first <= other.last:
                raise Rejected(
                    f"{name} overlaps {other.first}:{other.last}, which is forwarded already", "source_port_range"
                )
    ports_now[name] = wanted


def contribute(bag: Forwarding, router: Router) -> Iterator[Claim]:
    """Entries of the NAT maps, and of the sets by which an old connection is judged again."""
    if not router.forwards:
        return
    targets: list[tuple[str, str, Span]] = []
    for name, forward in bag.ports.items():
        origin = f"forwardingrules/{name}"
        face = router.holder(forward.address)
        if face is None or not face.device:
            # An address that is not here is not judged either: what leads on from it would be open to everybody.
            yield Claim(origin, Pending(f"port forward {name}", f"address {forward.address}"))
            continue
        for element in _public_side(forward):
            yield Claim(origin, element)
        span = Span(forward.to, forward.to_first, forward.to_last, origin)
        targets.append((forward.to, forward.protocol, span))
    yield from _targets(targets)
    for address, vm in bag.static.items():
        yield from _static(address, vm, router)


def _public_side(forward: Forward) -> Iterator[Element]:
    def public(text: str) -> str:
        return key(forward.address, forward.protocol, text)

    span = ports(forward.first, forward.last)
    yield Element("forwarded", key(public(span), forward.to))
    if forward.sources:
        yield Element("forward_restricted", public(span))
        for piece in disjoint(Span(canonical(source), forward.first, forward.last, "") for source in forward.sources):
            who = key(forward.address, forward.protocol, piece.prefix, ports(piece.first, piece.last))
            yield Element("forward_source", who)
    if forward.first != forward.last and (forward.first, forward.last) == (forward.to_first, forward.to_last):
        yield Element("range_forward", public(span), forward.to)
        return
    for port in range(forward.first, forward.last + 1):
        to = forward.to_first + (port - forward.first if forward.to_last != forward.to_first else 0)
        yield Element("port_forward", public(str(port)), key(forward.to, str(to)))


def _targets(targets: list[tuple[str, str, Span]]) -> Iterator[Claim]:
    for protocol in ("tcp", "udp"):
        for span in disjoint(span for _, kind, span in targets if kind == protocol):
            target = key(span.prefix, protocol, ports(span.first, span.last))
            yield Claim(span.origin, Element("forward_target", target))


def _static(address: str, vm: str, router: Router) -> Iterator[Claim]:
    origin = f"forwardingrules/{address}"
    face = router.holder(address)
    if face is None or not face.device:
        yield Claim(origin, Pending(f"static NAT {address}", f"address {address}"))
        return
    yield Claim(origin, Element("static_nat", address, vm))
    yield Claim(origin, Element("static_public", key(address, vm)))
    yield Claim(origin, Element("static_private", vm))
    yield Claim(origin, Element("static_source", key(quoted(face.device), vm), address))
    if face.nic in router.ways:
        for guest in router.served:
            way = mark(router.ways[face.nic])
            yield Claim(origin, Element("way_out", key(quoted(guest.device), vm), way))


FEATURE = Feature("forwardingrules", (ForwardRules, StaticNatRules), Forwarding, merge, contribute, units="rules")
