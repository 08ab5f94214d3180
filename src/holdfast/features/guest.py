"""Tiers: the guest networks of a VPC, which come and go on nics that are plugged at run time."""

from collections.abc import Iterator

from holdfast.addresses import inside, network, overlap, prefix_length
from holdfast.errors import Rejected
from holdfast.feature import Claim, Command, Feature, Ipv4, Mac, Merged, Pending
from holdfast.nft import Element, key, quoted
from holdfast.router import Router
from holdfast.shared import Tier, Tiers
from holdfast.state import MTU, Address, Flows, Link, Route
from holdfast.texts import is_host_name, is_ipv4

IPV6 = (
    "cidr6", "dns6", "router_guest_ip6", "router_guest_ip6_gateway", "router_guest_ip6_cidr", "router_ip6",
    "router_ip6_gateway", "router_ip6_cidr",
)  # fmt: skip


class GuestNetwork(Command, frozen=True, kw_only=True, tag="guestnetwork"):
    """One tier, put up or torn down (WIRE 5.2)."""

    add: bool
    mac_address: Mac
    device: str
    router_guest_ip: Ipv4 | None = None
    router_guest_netmask: Ipv4 | None = None
    router_guest_gateway: str | None = None
    cidr: str | None = None
    dns: str | None = None
    domain_name: str | None = None
    cidr6: str | None = None
    dns6: str | None = None
    router_guest_ip6: str | None = None
    router_guest_ip6_gateway: str | None = None
    router_guest_ip6_cidr: str | None = None
    router_ip6: str | None = None
    router_ip6_gateway: str | None = None
    router_ip6_cidr: str | None = None
    is_vr_guest_gateway: bool = True
    network_id: int = 0
    mtu: int | None = None


def merge(bag: Tiers, command: GuestNetwork, router: Router) -> Merged[Tiers]:
    """Put or remove one tier.  A changed gateway, DNS or MTU applies; a network that is back on another nic moves."""
    nic = router.nic(command.mac_address, command.device, trusted=True)
    tiers = {
        other: tier
        for other, tier in bag.tiers.items()
        if other != nic and not (command.network_id and tier.network_id == command.network_id)
    }
    if not command.add:
        return Merged(Tiers(tiers=tiers))
    wanted = _tier(command)
    for other, tier in tiers.copy().items():
        if overlap(tier.network, wanted.network):
            if router.facts.device(other):
                raise Rejected(f"{wanted.network} overlaps {tier.network} of {other}", "router_guest_ip")
            del tiers[other]  # its nic has left: the network has come back on this one
    for face in router.interfaces:
        taken = next((net for net in face.networks if overlap(wanted.network, net)), "")
        if taken and face.nic != nic and face.purpose != "tier":
            raise Rejected(f"{wanted.network} overlaps {taken} of {face.device or face.nic}", "router_guest_ip")
    # In the place that it had: what is older wins where two claim one thing, and a change is not a new tier.
    order = [other for other in bag.tiers if other == nic or other in tiers]
    return Merged(Tiers(tiers={other: tiers.get(other, wanted) for other in dict.fromkeys([*order, nic])}))


def _tier(command: GuestNetwork) -> Tier:
    address, netmask = command.router_guest_ip, command.router_guest_netmask
    prefix = prefix_length(netmask) if netmask else None
    if not address:
        raise Rejected("the router has no address in the tier", "router_guest_ip")
    if not prefix:
        raise Rejected(f"{netmask!r} is not a netmask", "router_guest_netmask")
    gateway = command.router_guest_gateway or address
    if not is_ipv4(gateway) or not inside(gateway, [network(address, prefix)]):
        raise Rejected(f"{gateway!r} is no address in {network(address, prefix)}", "router_guest_gateway")
    dns = tuple(part for part in (command.dns or "").split(",") if part)
    for part in dns:
        if not is_ipv4(part):
            raise Rejected(f"{part!r} is not an IPv4 address", "dns")
    if command.mtu is not None and not 576 <= command.mtu <= 65535:  # noqa: PLR2004 RFC 791's smallest, IPv4's largest
        raise Rejected(f"{command.mtu} is no MTU between 576 and 65535 bytes", "mtu")
    if command.domain_name and not is_host_name(command.domain_name):
        raise Rejected(f"{command.domain_name!r} is not a domain", "domain_name")
    return Tier(
        address=address,
        prefix=prefix,
        gateway=gateway,
        network_id=command.network_id,
        dns=dns,
        domain=command.domain_name or "",
        mtu=command.mtu or 0,
        is_gateway=command.is_vr_guest_gateway,
        ipv6={name: value for name in IPV6 if (value := getattr(command, name))},
    )


def contribute(bag: Tiers, router: Router) -> Iterator[Claim]:
    """Link and address of each tier, and its connections: they go when it goes."""
    for nic, older in router.rivals.items():
        yield Claim(f"guestnetwork/{nic}", Pending(f"tier {bag.tiers[nic].network}", f"{older} to leave that network"))
    for nic, tier in router.tiers.items():
        origin, device = f"guestnetwork/{nic}", router.facts.device(nic)
        if not device:
            yield Claim(origin, Pending(f"tier {tier.network}", f"nic {nic}"))
            continue
        yield Claim(origin, Link(device, up=True, mtu=tier.mtu or MTU))
        yield Claim(origin, Route(tier.network, device=device, source=tier.address))
        yield Claim(origin, Address(device, f"{tier.address}/{tier.prefix}", announce=True))
        if router.boot.redundant and tier.gateway != tier.address:
            yield Claim(origin, Address(device, f"{tier.gateway}/{tier.prefix}", keeper="keepalived"))
        yield Claim(origin, Flows(tier.network))
        for own in dict.fromkeys((tier.address, tier.gateway)):
            yield Claim(origin, Element("acl_gateway", key(quoted(device), own)))


FEATURE = Feature("guestnetwork", (GuestNetwork,), Tiers, merge, contribute)
