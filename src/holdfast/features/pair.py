"""What this router is in its pair: left for the agent's ears, which tell the other router of it."""

import re
from collections.abc import Iterable, Iterator, Mapping
from operator import itemgetter
from typing import Any

import msgspec
from msgspec import Struct
from msgspec.structs import replace

from holdfast import apart, peer
from holdfast.addresses import network, number
from holdfast.feature import Claim, Feature
from holdfast.interface import Interface, missing
from holdfast.peer import Face, Pair
from holdfast.router import Router
from holdfast.shared import BootLine, Data
from holdfast.state import File

PATH = "/run/holdfast/pair.json"
_OWN = ("guest", "tier", "control")
_NOT_SHARED = frozenset({"cmdline", "guestnetwork", "networkacl", "monitorservice"})
"""Bags that are compared in parts, or that tell of one router alone."""
_GUESSED = frozenset({"passwords", "psk", "userdata"})
"""Fields that may hold what a listener finds by trying, where tenants can derive the pair's key."""
_GUESTS = frozenset({"dhcpentry", "vmdata", "vmpassword"})
"""Bags that are long, and say nothing of routers."""


def contribute(_bag: None, router: Router) -> Iterator[Claim]:
    """The file, on routers of a pair alone."""
    if router.boot.redundant:
        text = msgspec.json.encode(_pair(router)).decode()
        yield Claim("redundancy", File(PATH, text, mode=0o600, secret=True))


def _pair(router: Router) -> Pair:
    digests, keys = _digests(router, router.boot.pair_key)
    faces = [Face(face.networks[0], face.device, *face.addresses[0]) for face in router.served]
    outer = sorted((*router.of("public"), *router.of("private")), key=lambda face: face.number)
    return Pair(
        key=router.boot.pair_key.hex(),
        name=router.boot.name,
        ground=router.ground,
        segment=router.segment.device if router.segment else "",
        advert_s=router.advert_s,
        faces=tuple(sorted(faces, key=lambda face: number(face.address))),
        outer=tuple(face.device for face in outer),
        missing=missing(router.interfaces),
        announce=router.announced,
        gateways=_gateways(outer),
        # A private gateway's far end is its owner's: that it is silent says nothing of this router.
        probed=_gateways(router.of("public")) if router.facts.settings.gateway_probe else (),
        digests=digests,
        keys=keys,
        nics={face.network: face.device for face in faces},
        passwords={address: held.known for address, held in router.passwords.items()},
    )


def _gateways(faces: Iterable[Interface]) -> tuple[tuple[str, str], ...]:
    return tuple((face.device, face.gateway) for face in faces if face.gateway)


def _digests(router: Router, key: bytes) -> tuple[dict[str, str], dict[str, dict[str, str]]]:
    """What both should know alike, by name, and by name and key.  What differs by nature is left out, and what is this
    router's own address, MAC or name within it stands for itself.
    """
    own, secret = _own(router), router.boot.pair_is_secret
    found, keys = dict[str, str](), dict[str, dict[str, str]]()
    for name, alike in sorted(_alike(router), key=itemgetter(0)):
        mine, known = [] if name in _GUESTS else own, alike if secret else _without_guessed(alike)
        found[name] = _digest(key, name, known, mine)
        parts = _parts(known, fields=isinstance(alike, Struct))
        if len(parts) <= apart.MOST:
            keys[name] = {part: _digest(key, name, held, mine) for part, held in parts.items()}
    return found, keys


def _digest(key: bytes, name: str, known: Any, own: list[bytes]) -> str:
    text = msgspec.json.encode(msgspec.to_builtins(known, str_keys=True), order="sorted")
    return peer.digest(key, name, _same(text, own))


def _parts(known: Any, *, fields: bool) -> dict[str, Any]:
    """The keys of something: of its mappings, else its fields, or what it lists."""
    if isinstance(known, Struct):
        known = msgspec.structs.asdict(known)
    if not isinstance(known, dict):
        return {str(item): "" for item in known}
    found: dict[str, Any] = {}
    for field, held in known.items():
        inner = fields and isinstance(held, dict)
        found |= {str(key): part for key, part in held.items()} if inner else {field: held}
    return found


def _without_guessed(known: Any) -> Any:
    """The same without what may be guessed.  Of mappings the names stay: a user who is missing is still named."""
    if isinstance(known, Struct):
        known = msgspec.structs.asdict(known)
    if isinstance(known, dict):
        return {name: _names(held) if name in _GUESSED else _without_guessed(held) for name, held in known.items()}
    if isinstance(known, list | tuple):
        return [item for item in known if not (isinstance(item, str) and "stats auth" in item)]
    return known


def _names(held: Any) -> Any:
    return dict.fromkeys(held, "") if isinstance(held, dict) else ""


def _own(router: Router) -> list[bytes]:
    addresses = {address for face in router.interfaces if face.purpose in _OWN for address, _ in face.addresses}
    macs = {nic.mac for nic in router.facts.nics} | {face.nic for face in router.interfaces}
    return [word.encode() for word in sorted({*addresses, *macs, router.boot.name}) if word]


def _same(text: bytes, own: list[bytes]) -> bytes:
    words = [re.escape(word) for word in own if word in text]
    return re.sub(rb"(?<![\w.-])(?:" + b"|".join(words) + rb")(?![\w.-])", b"@", text) if words else text


def _alike(router: Router) -> Iterator[tuple[str, Any]]:
    """Name and what both know under it, nothing for what is empty."""
    yield "cmdline", _line(router.boot)
    yield "settings", router.facts.settings
    for tier in router.tiers.values():
        yield f"tier {tier.network}", replace(tier, address="", ipv6={})
    networks = {face.nic: face.networks[0] for face in router.interfaces if face.networks}
    for nic, acl in router.config["networkacl"].acls.items():
        if nic in networks:
            yield f"acl {networks[nic]}", acl
    for name, bag in router.config.items():
        if name not in _NOT_SHARED and isinstance(bag, Struct) and bag != type(bag)():
            yield name, _told(name, bag)


def _line(boot: BootLine) -> BootLine:
    """The boot line without what is each router's own."""
    return replace(boot, name="", nics=(), localgw="", other={}, secrets={}, older=False)


def _told(name: str, bag: Data | Struct) -> Any:
    """What of a bag both were told alike: nics have a MAC on each router, and passwords are counted by each."""
    parts: Mapping[str, Any] = msgspec.structs.asdict(bag)
    if name == "ips":
        return {address: replace(held, nic="") for address, held in parts["addresses"].items()}
    if name == "vmpassword":
        return sorted(parts["passwords"])
    if name == "dhcpconfig":
        return {network(address, held.prefix): held.gateway for address, held in parts["subnets"].items()}
    if name == "ipaliases":
        return sorted(alias.network for alias in parts["aliases"].values())
    return bag


FEATURE = Feature("pair", (), None, None, contribute)
