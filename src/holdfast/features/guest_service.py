"""The guest service: metadata and passwords for VMs, each its own, at the gateway that it knows."""

from collections.abc import Iterator, Mapping

import msgspec
from msgspec import Struct

from holdfast.addresses import network
from holdfast.feature import Claim, Feature, Pending, Service
from holdfast.interface import Interface
from holdfast.nft import Element, key, quoted
from holdfast.router import Router
from holdfast.state import File

VIEW = "/run/holdfast/guest/view.json"
GROUP = "holdfast-guest"
UNITS = ("holdfast-guest.socket", "holdfast-guest.service")
PORTS = ("80", "443", "8080")
"""http, https and passwords, as guests know them."""


class Seen(Struct, frozen=True, kw_only=True, omit_defaults=True):
    """What the service may tell one guest, and the router's addresses at which that guest may ask."""

    at: tuple[str, ...]
    metadata: dict[str, str] = {}
    userdata: str | None = None
    password: str = ""
    serial: int = 0


class View(Struct, frozen=True):
    """All that the service knows, by the guest's address."""

    guests: dict[str, Seen]
    schema: int = 1


def contribute(_bag: None, router: Router) -> Iterator[Claim]:
    """The view, the service, and the firewall's way to it: only from nics where guests are, each as itself."""
    serves = router.boot.type != "ilbvm" and bool(router.served)
    for unit in UNITS:
        yield Claim("guest_service", Service(unit, wanted=serves and router.serving))
    places = _places(router)
    for address in sorted((router.metadata.keys() | router.passwords.keys()) - places.keys()):
        yield Claim(f"vmdata/{address}", Pending(f"metadata of {address}", "a network that it is in"))
    if not serves:
        return
    yield Claim("vmdata", File(VIEW, _view(router, places), mode=0o640, secret=True, group=GROUP))
    if router.serving:
        for face in router.served:
            yield from _openings(face, _own(face, router))
        for mac, host in router.vms.items():
            if host.address in places:
                yield from _gate(mac, host.address, places[host.address])


def _own(face: Interface, router: Router) -> tuple[str, ...]:
    """Every address that guests of this nic may know the router by."""
    tier = router.tiers.get(face.nic)
    gateway = (tier.gateway,) if tier and tier.is_gateway and tier.gateway else ()
    shared = (face.virtual,) if face.virtual else ()
    return tuple(dict.fromkeys((*(address for address, _ in face.addresses), *gateway, *shared)))


def _places(router: Router) -> Mapping[str, Interface]:
    """The nic that each guest of ours is on."""
    networks = {net: face for face in router.served for net in face.networks}
    lengths = {int(net.partition("/")[2]) for net in networks}
    wanted = {*router.metadata, *router.passwords, *(host.address for host in router.vms.values())}
    return {
        address: face
        for address in wanted
        for length in lengths
        if (face := networks.get(network(address, length))) is not None
    }


def _view(router: Router, places: Mapping[str, Interface]) -> str:
    at = {face.nic: _own(face, router) for face in router.served}
    there = router.facts.acknowledged_there  # what guests have acknowledged here the service knows by itself
    guests = {}
    for address in sorted((router.metadata.keys() | router.passwords.keys()) & places.keys()):
        told, secret = router.metadata.get(address), router.passwords.get(address)
        guests[address] = Seen(
            at=at[places[address].nic],
            metadata=told.metadata if told else {},
            userdata=told.userdata if told else None,
            password=secret.password if secret and not secret.is_over(there.get(address, 0)) else "",
            serial=secret.serial if secret else 0,
        )
    return msgspec.json.encode(View(guests)).decode()


def _openings(face: Interface, own: tuple[str, ...]) -> Iterator[Claim]:
    device = quoted(face.device)
    for address in own:
        yield Claim("guest_service", Element("guest_proxy", key(device, address)))
    for port in PORTS:
        yield Claim("guest_service", Element("guest_service", key(device, "tcp", port)))
    for net in face.networks:
        yield Claim("guest_service", Element("guest_source", key(device, net)))


def _gate(mac: str, address: str, face: Interface) -> Iterator[Claim]:
    """Whoever is known speaks from its own nic: an address that another nic takes gets no word out of the service."""
    yield Claim(f"dhcpentry/{mac}", Element("guest_known", address))
    yield Claim(f"dhcpentry/{mac}", Element("guest_nic", key(quoted(face.device), mac, address)))


FEATURE = Feature("guest_service", (), None, None, contribute)
