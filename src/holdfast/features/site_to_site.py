"""Site-to-site VPN: tunnels between a VPC and networks elsewhere, each a connection of charon's of its own."""

from collections.abc import Iterable, Iterator, Mapping
from ipaddress import IPv4Network, collapse_addresses

import msgspec

from holdfast.addresses import overlap
from holdfast.errors import Rejected
from holdfast.feature import Claim, Command, Feature, Ipv4, Line, Merged, Pending, Secret, Service
from holdfast.nft import WAY, Chain, Element, Rule, Stage, key
from holdfast.router import Router
from holdfast.shared import Data
from holdfast.state import File, Flows
from holdfast.swanctl import (
    NAMES,
    SETTINGS,
    SETTINGS_TEXT,
    UNIT,
    Connection,
    Tunnel,
    digest,
    is_peer,
    name_of,
    path_of,
    tunnel,
)
from holdfast.texts import canonical, is_ipv4, is_network

_CIPHERS = {"3des", "aes128", "aes192", "aes256"}
_HASHES = {"md5", "sha1", "sha256", "sha384", "sha512"}
_GROUPS = {f"modp{bits}" for bits in (1024, 1536, 2048, 3072, 4096, 6144, 8192)}
_VERSIONS = {"ike": 0, "ikev1": 1, "ikev2": 2}
_SHORTEST_S, _LONGEST_S = 60, 86400 * 30
_IKE_S, _ESP_S = 86400, 3600
_KEEPS_MARK = 0xFFFFFFFF ^ WAY


class SiteToSiteVpn(Command, frozen=True, kw_only=True, tag="site2sitevpn"):
    """One tunnel (WIRE 5.16).  `create` false takes it back; the other fields stay filled."""

    ignored = frozenset({*Command.ignored, "local_public_gateway"})

    create: bool
    local_public_ip: Ipv4
    peer_gateway_ip: str
    local_guest_cidr: Line | None = None
    peer_guest_cidr_list: Line | None = None
    ike_policy: Line | None = None
    esp_policy: Line | None = None
    ipsec_psk: Secret | None = None
    ike_lifetime: int | None = None
    esp_lifetime: int | None = None
    dpd: bool | None = None
    passive: bool | None = None
    encap: bool | None = None
    ike_version: str | None = None
    split_connections: bool | None = None


class Site(Data, frozen=True, kw_only=True):
    """A tunnel: with whom (an address, or a name in lower case), whose networks, by which proposals
    (`aes128-sha1-modp2048`), how long a key lives (seconds).

    `version` is 0 for either, else that of IKE; `passive`: the peer begins.
    """

    local: str
    peer: str
    network: str
    remotes: tuple[str, ...]
    ike: tuple[str, ...]
    esp: tuple[str, ...]
    psk: Secret
    ike_s: int = _IKE_S
    esp_s: int = _ESP_S
    dpd: bool = False
    passive: bool = False
    encap: bool = False
    version: int = 0
    split: bool = False


class Sites(Data, frozen=True, kw_only=True):
    """Tunnels by `local public address peer's address or name`."""

    tunnels: dict[str, Site] = {}


def merge(bag: Sites, command: SiteToSiteVpn, _router: Router) -> Merged[Sites]:
    """One tunnel comes, changes or goes; one that is not there goes without a word."""
    tunnels = dict(bag.tunnels)
    name = f"{command.local_public_ip} {command.peer_gateway_ip.lower()}"
    if command.create:
        tunnels[name] = _site(command)
    else:
        tunnels.pop(name, None)
    return Merged(Sites(tunnels=tunnels))


def _site(sent: SiteToSiteVpn) -> Site:
    peer = sent.peer_gateway_ip.lower()
    if not is_peer(peer):
        raise Rejected(f"{sent.peer_gateway_ip!r} is neither an IPv4 address nor a host name", "peer_gateway_ip")
    network, *more = _networks(sent.local_guest_cidr, "local_guest_cidr")
    if more:
        raise Rejected(f"{sent.local_guest_cidr!r} is not one network", "local_guest_cidr")
    remotes = _networks(sent.peer_guest_cidr_list, "peer_guest_cidr_list")
    for remote in remotes:
        if overlap(_long(remote), _long(network)):
            raise Rejected(f"{remote} overlaps {network}, which is here", "peer_guest_cidr_list")
    if not sent.ipsec_psk:
        raise Rejected("there is no key", "ipsec_psk")
    if (sent.ike_version or "ike") not in _VERSIONS:
        raise Rejected(f"{sent.ike_version!r} is none of ike, ikev1, ikev2", "ike_version")
    return Site(
        local=sent.local_public_ip,
        peer=peer,
        network=network,
        remotes=remotes,
        ike=_policies(sent.ike_policy, "ike_policy", group=True),
        esp=_policies(sent.esp_policy, "esp_policy", group=False),
        psk=sent.ipsec_psk,
        ike_s=_life(sent.ike_lifetime, _IKE_S, "ike_lifetime"),
        esp_s=_life(sent.esp_lifetime, _ESP_S, "esp_lifetime"),
        dpd=bool(sent.dpd),
        passive=bool(sent.passive),
        encap=bool(sent.encap),
        version=_VERSIONS[sent.ike_version or "ike"],
        split=bool(sent.split_connections),
    )


def _networks(text: str | None, path: str) -> tuple[str, ...]:
    parts = [part.strip() for part in (text or "").split(",") if part.strip()]
    if not parts or not all(is_network(part) for part in parts):
        raise Rejected(f"{text!r} is not a list of IPv4 networks", path)
    return tuple(dict.fromkeys(canonical(part) for part in parts))


def _long(network: str) -> str:
    return network if "/" in network else f"{network}/32"


def _policies(text: str | None, path: str, *, group: bool) -> tuple[str, ...]:
    found = []
    for part in (text or "").split(","):
        policy, parted, told = part.strip().partition(";")
        cipher, _, word = policy.partition("-")
        known = cipher in _CIPHERS and word in _HASHES and (told in _GROUPS if group or parted else True)
        if not known:
            raise Rejected(f"{part.strip()!r} is not of the form aes128-sha1{';modp2048' if group else ''}", path)
        found.append(f"{policy}-{told}" if parted else policy)
    return tuple(dict.fromkeys(found))


def _life(told: int | None, usual: int, path: str) -> int:
    if told is not None and not _SHORTEST_S <= told <= _LONGEST_S:
        raise Rejected(f"{told} is no number of seconds between {_SHORTEST_S} and {_LONGEST_S}", path)
    return told or usual


def contribute(bag: Sites, router: Router) -> Iterator[Claim]:
    """Each tunnel's text, connection, peer and networks; charon where this router serves; the firewall's rules."""
    here = {}
    for name, site in bag.tunnels.items():
        address = _speaks_by(site, router)
        if address:
            here[name] = address
        else:
            yield Claim(f"site2sitevpn/{name}", Pending(f"VPN to {site.peer}", f"address {site.local}"))
    if here or router.is_vpc:
        yield Claim("site2sitevpn", Service(UNIT, wanted=bool(here) and router.serving))
    if not here:
        return
    yield Claim("site2sitevpn", File(SETTINGS, SETTINGS_TEXT, restart=UNIT))
    for name, address in here.items():
        yield from _tunnel(f"site2sitevpn/{name}", bag.tunnels[name], address, router)
    for (local, remote), origin in _pairs({name: bag.tunnels[name] for name in here}).items():
        yield Claim(origin, Element("tunnelled", key(local, remote)))
    for rule in RULES:
        yield Claim("site2sitevpn", rule)
    asked = sorted({bag.tunnels[name].peer for name in here if not is_ipv4(bag.tunnels[name].peer)})
    if asked:
        yield Claim("site2sitevpn", File(NAMES, msgspec.json.encode(asked).decode()))


def _speaks_by(site: Site, router: Router) -> str:
    """The address that the router speaks to the peer by: the public one, or where it has no public network that of the
    guest network which is its way out.  Empty while it is not here.
    """
    holder = router.holder(site.local)
    if holder:
        return site.local if holder.device else ""
    if router.boot.has_public_network:
        return ""
    tiers = sorted(router.tiers.items(), key=lambda item: item[1].network_id)
    return next((tier.address for nic, tier in tiers if router.facts.device(nic)), "")


def _tunnel(origin: str, site: Site, address: str, router: Router) -> Iterator[Claim]:
    for remote in site.remotes:
        # What was sent through the tunnel must not go on in the open when it is gone.
        yield Claim(origin, Flows(_long(remote)))
    peers = (site.peer,) if is_ipv4(site.peer) else router.facts.names.get(site.peer, ())
    if not peers:
        yield Claim(origin, Pending(f"VPN to {site.peer}", f"an address of {site.peer}"))
        return
    for peer in peers:
        yield Claim(origin, Element("vpn_peer", key(address, peer)))
    told = Tunnel(
        local=address,
        local_id=site.local,
        peer=site.peer,
        addresses=peers,
        network=site.network,
        remotes=site.remotes,
        ike=site.ike,
        esp=site.esp,
        ike_s=site.ike_s,
        esp_s=site.esp_s,
        key=site.psk,
        version=site.version,
        dpd=site.dpd,
        encap=site.encap,
        passive=site.passive,
        split=site.split,
    )
    text, name = tunnel(told), name_of(site.local, site.peer)
    yield Claim(origin, File(path_of(name), text, mode=0o600, secret=True))
    if router.serving:
        yield Claim(origin, Connection(name, digest(text), path_of(name)))


def _pairs(tunnels: Mapping[str, Site]) -> dict[tuple[str, str], str]:
    """Each pair of a network here and one there, disjoint from all others, and which tunnel brought it first."""
    found: dict[tuple[IPv4Network, IPv4Network], str] = {}
    wanted = [
        (IPv4Network(site.network), remote, f"site2sitevpn/{name}")
        for name, site in tunnels.items()
        for remote in collapse_addresses(IPv4Network(remote) for remote in site.remotes)
    ]
    # Larger remotes first, of equal ones the larger network here: what comes later is cut to what is new.
    for local, remote, origin in sorted(wanted, key=lambda pair: (pair[1].prefixlen, pair[0].prefixlen)):
        for piece in _without(local, [held for held, there in found if remote.subnet_of(there)]):
            found[piece, remote] = origin
    return {(canonical(str(local)), canonical(str(remote))): origin for (local, remote), origin in found.items()}


def _without(network: IPv4Network, taken: Iterable[IPv4Network]) -> list[IPv4Network]:
    pieces = [network]
    for other in taken:
        pieces = [
            part
            for piece in pieces
            if not piece.subnet_of(other)
            for part in (piece.address_exclude(other) if other.subnet_of(piece) else (piece,))
        ]
    return sorted(pieces)


_OUT, _IN = "ip saddr . ip daddr @tunnelled", "ip daddr . ip saddr @tunnelled"
_PEER = "ip daddr . ip saddr @vpn_peer"
_USER_SPACE = 'iifname "ipsec0"'
"""Where the kernel has no ESP charon unpacks by itself, and hands over by this device."""
RULES = (
    # The networks behind a tunnel are reached by it, whichever way the connection once came in.
    Rule(
        Chain.PREROUTING,
        Stage.PREPARE,
        f"iifname @guest_device {_OUT} meta mark set meta mark & 0x{_KEEPS_MARK:08x}",
    ),
    Rule(Chain.INPUT, Stage.JUDGE, f"{_PEER} udp dport {{ 500, 4500 }} accept"),
    Rule(Chain.INPUT, Stage.JUDGE, f"{_PEER} meta l4proto esp accept"),
    # In neither direction in the open, not even for a connection that was judged, or translated, before.
    Rule(Chain.FORWARD, Stage.GUARD, f"{_OUT} ct status snat drop"),
    Rule(Chain.FORWARD, Stage.GUARD, f"{_OUT} oifname @public_device rt ipsec missing drop"),
    Rule(Chain.FORWARD, Stage.GUARD, f"{_IN} iifname @public_device meta ipsec missing drop"),
    Rule(Chain.FORWARD, Stage.JUDGE, f"ct direction original iifname @guest_device {_OUT} goto stamp"),
    Rule(
        Chain.FORWARD,
        Stage.JUDGE,
        f"ct direction original iifname @public_device oifname @guest_device {_IN} goto stamp",
    ),
    Rule(Chain.FORWARD, Stage.JUDGE, f"ct direction original {_USER_SPACE} oifname @guest_device {_IN} goto stamp"),
    Rule(Chain.FORWARD, Stage.JUDGE, f"ct direction reply iifname @guest_device {_OUT} accept"),
    Rule(Chain.FORWARD, Stage.JUDGE, f"ct direction reply {_USER_SPACE} oifname @guest_device {_IN} accept"),
    Rule(Chain.SNAT, Stage.EXEMPT, f"{_OUT} accept"),
    Rule(Chain.POSTROUTING, Stage.JUDGE, f"ct direction reply {_USER_SPACE} oifname @acl_device goto settle"),
)


FEATURE = Feature("site2sitevpn", (SiteToSiteVpn,), Sites, merge, contribute)
