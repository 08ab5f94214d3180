"""The nics: their addresses, their routes, and the way back out for what came in."""

from collections.abc import Iterator

from msgspec.structs import replace

from holdfast.addresses import inside, network, overlap, prefix_length
from holdfast.errors import Rejected
from holdfast.feature import Claim, Command, Feature, Ipv4, Item, Mac, Merged, Pending, Refusal
from holdfast.interface import Interface
from holdfast.nft import Element, key, quoted
from holdfast.nft import mark as nft_mark
from holdfast.router import WAY_MASK, Router
from holdfast.shared import IpAddress, Ips
from holdfast.state import MTU, Address, File, Link, PolicyRule, Route

MAIN = 254
PRIORITY_MARK, PRIORITY_SOURCE = 1000, 1100


class Association(Item, frozen=True, kw_only=True):
    """One address to hold or to give up.  `source_nat` is true on many that are none (WIRE 5.1)."""

    public_ip: Ipv4
    add: bool
    netmask: Ipv4 | None = None
    gateway: Ipv4 | None = None
    vif_mac_address: Mac | None = None
    nic_dev_id: int | None = None
    nw_type: str | None = None
    is_private_gateway: bool = False
    source_nat: bool = False
    mtu: int | None = None
    one_to_one_nat: bool = False
    first_i_p: bool = False
    new_nic: bool = False


class IpAssociations(Command, frozen=True, kw_only=True, tag="ips"):
    """Some addresses of one public network: never all of them."""

    ip_address: tuple[Association, ...]


def merge(bag: Ips, command: IpAssociations, router: Router) -> Merged[Ips]:
    """Add, replace or remove each address by itself; an address lives on one nic at a time."""
    addresses = dict(bag.addresses)
    refused = []
    for index, unit in enumerate(command.ip_address):
        if not unit.add:
            addresses.pop(unit.public_ip, None)
            continue
        try:
            wanted = _accept(unit, router)
        except Rejected as why:
            refused.append(Refusal(f"ip_address[{index}].{why.path}", unit.public_ip, why.reason))
            continue
        if addresses.get(unit.public_ip) != wanted:
            addresses.pop(unit.public_ip, None)
            addresses[unit.public_ip] = wanted
        if wanted.mtu:
            # A nic has one MTU, the newest: kept with each of its addresses, so that no order of theirs matters.
            for other, held in addresses.items():
                if held.nic == wanted.nic and held.mtu != wanted.mtu:
                    addresses[other] = replace(held, mtu=wanted.mtu)
    return Merged(Ips(addresses=addresses), tuple(refused))


def _accept(unit: Association, router: Router) -> IpAddress:
    prefix = prefix_length(unit.netmask) if unit.netmask else None
    if prefix is None or prefix == 0:
        raise Rejected(f"{unit.netmask!r} is not a netmask", "netmask")
    gateway = unit.gateway if unit.gateway not in (None, "0.0.0.0") else ""  # noqa: S104 an absent gateway, not a bind
    if gateway and not inside(gateway, [network(unit.public_ip, prefix)]):
        raise Rejected(f"{gateway} is not in {network(unit.public_ip, prefix)}", "gateway")
    if unit.mtu is not None and not 576 <= unit.mtu <= 65535:  # noqa: PLR2004 RFC 791's smallest, IPv4's largest
        raise Rejected(f"{unit.mtu} is no MTU between 576 and 65535 bytes", "mtu")
    nic, here = _nic(unit, router), network(unit.public_ip, prefix)
    for face in router.of("tier"):
        if face.nic != nic and any(overlap(here, net) for net in face.networks):
            raise Rejected(f"{here} overlaps {', '.join(face.networks)} of {face.device}", "public_ip")
    return IpAddress(
        nic=nic,
        prefix=prefix,
        gateway=gateway or "",
        mtu=unit.mtu or 0,
        kind=(unit.nw_type or "public").lower(),
        private_gateway=unit.is_private_gateway,
        source_nat=unit.source_nat,
    )


def _nic(unit: Association, router: Router) -> str:
    """Which nic is meant.  The MAC, where it is present or the message is new enough to be trusted with it;
    4.6.1 invents a MAC per address, so there the number decides (recognised by the absent `nw_type`).
    """
    device = "" if unit.nic_dev_id is None else f"eth{unit.nic_dev_id}"
    nic = router.nic(unit.vif_mac_address or "", device, trusted=unit.nw_type is not None)
    if not nic:
        raise Rejected("neither a MAC nor a number tells which nic is meant", "vif_mac_address")
    return nic


def contribute(bag: Ips, router: Router) -> Iterator[Claim]:
    """Links, addresses, the main default route, and for every public nic its policy table and marks."""
    names = []
    for face in router.interfaces:
        if face.purpose == "tier":
            names += [f"{face.table}\tTable_{face.device}"] if face.device else []
            continue
        if not face.device:
            for address, prefix in face.addresses:
                yield Claim(_origin(bag, address, router), Pending(f"address {address}/{prefix}", f"nic {face.nic}"))
            continue
        names.append(f"{face.table}\tTable_{face.device}")
        yield from _carried(bag, face, router)
        if face.purpose in ("public", "private"):
            yield from _policy(bag, face, router)
    yield from _default(router)
    yield from _management(router)
    if names:
        yield Claim("ips/tables", File("/etc/iproute2/rt_tables.d/holdfast.conf", "\n".join([*sorted(names), ""])))


def _origin(bag: Ips, address: str, router: Router) -> str:
    if address in bag.addresses:
        return f"ips/{address}"
    alias = next((number for number, alias in router.aliases.items() if alias.address == address), "")
    return f"ipaliases/{alias}" if alias else f"cmdline/{address}"


def _carried(bag: Ips, face: Interface, router: Router) -> Iterator[Claim]:
    for address, prefix in face.addresses:
        origin = _origin(bag, address, router)
        told, first = face.purpose != "control", address == face.addresses[0][0]
        yield Claim(origin, Address(face.device, f"{address}/{prefix}", announce=told, first=first))
        if face.purpose == "public" and not router.is_vpc:
            yield Claim(origin, Element("public_address", address))
        if face.purpose == "private":
            yield Claim(origin, Element("acl_gateway", key(quoted(face.device), address)))
    # The kernel has a route to each connected network too, but with the address that came first; this one is said.
    # A link that is down carries none.
    for net in face.networks if router.up(face) else ():
        up = (other for other in router.interfaces if other.device and net in other.networks and router.up(other))
        if next(up) is not face:
            continue  # two nics in one network: the first of them speaks to it
        source = next(address for address, prefix in face.addresses if network(address, prefix) == net)
        yield Claim(_origin(bag, source, router), Route(net, device=face.device, source=source))
    mtu = face.mtu or (0 if face.purpose == "control" else MTU)
    yield Claim(f"ips/{face.device}", Link(face.device, up=router.up(face), mtu=mtu))
    if face.virtual:
        yield from _virtual(face)


def _virtual(face: Interface) -> Iterator[Claim]:
    """The address that guests of a pair use: keepalived gives it to the router that serves."""
    prefix = face.addresses[0][1]
    yield Claim("cmdline/guestgw", Address(face.device, f"{face.virtual}/{prefix}", keeper="keepalived"))


def _policy(bag: Ips, face: Interface, router: Router) -> Iterator[Claim]:
    origin = _origin(bag, face.addresses[0][0], router)
    table, mark = face.table, router.ways[face.nic]
    yield Claim(origin, PolicyRule(PRIORITY_MARK + face.number, table, mark=mark, mask=WAY_MASK))
    yield Claim(origin, Element("way_in", f'"{face.device}"', nft_mark(mark)))
    for connected in face.networks:
        yield Claim(origin, PolicyRule(PRIORITY_SOURCE + face.number, table, source=connected))
    if face.gateway and router.up(face):
        yield Claim(origin, _by_default(face, router, table))
    # What is connected is never sent to the gateway: the lookup goes on to the main table.
    near = [other for other in router.interfaces if other.device and (other is face or other.purpose != "public")]
    for net in sorted({net for other in near for net in other.networks}):
        yield Claim(origin, Route(net, table, kind="throw"))


def _by_default(face: Interface, router: Router, table: int = MAIN, *, gateway: str = "") -> Route:
    """A default route.  It names the address by which the router speaks: the order of addresses must not decide."""
    source = router.leaving(face) if face.purpose == "public" else ""
    source = source if source in dict(face.addresses) else ""
    return Route("default", table, gateway=gateway or face.gateway, device=face.device, source=source)


def _default(router: Router) -> Iterator[Claim]:
    """The boot line's gateway; else that of the home nic; a VPC without a public network leaves by a tier."""
    gateways = [router.boot.gateway, router.home.gateway if router.home else ""]
    if not router.boot.has_public_network:
        gateways += [tier.gateway for tier in sorted(router.tiers.values(), key=lambda tier: tier.network_id)]
    gateway = next(filter(None, gateways), "")
    for face in router.interfaces:
        here = face.device and router.up(face) and inside(gateway, face.networks) if gateway else False
        if here and gateway not in dict(face.addresses):
            yield Claim("cmdline/gateway", _by_default(face, router, gateway=gateway))
            return


def _management(router: Router) -> Iterator[Claim]:
    for face in router.of("control"):
        if router.boot.localgw:
            for cidr in router.boot.mgmtcidr:
                address, _, length = cidr.partition("/")
                route = Route(network(address, int(length or 32)), gateway=router.boot.localgw, device=face.device)
                yield Claim("cmdline/mgmtcidr", route)


FEATURE = Feature("ips", (IpAssociations,), Ips, merge, contribute, units="ip_address")
