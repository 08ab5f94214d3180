"""Messages whose feature has not been built: decoded, kept whole, and counted as pending."""

from collections.abc import Iterator
from functools import partial
from typing import Any, NamedTuple

import msgspec

from holdfast.feature import RELEASE, Claim, Command, Feature, Ipv4, Item, Merged, Pending
from holdfast.router import Router
from holdfast.shared import Data

Json = Any


class Ipv6FirewallRules(Command, frozen=True, kw_only=True, tag="ipv6firewallrules"):
    """All IPv6 rules of a network."""

    rules: tuple[Json, ...]


class VpnUser(Item, frozen=True, kw_only=True):
    """A user of the remote access VPN."""

    user: str
    password: str
    add: bool


class VpnUserList(Command, frozen=True, kw_only=True, tag="vpnuserlist"):
    """All users of an account."""

    vpn_users: tuple[VpnUser, ...]


class RemoteAccessVpn(Command, frozen=True, kw_only=True, tag="remoteaccessvpn"):
    """The remote access VPN of one public address."""

    create: bool
    vpn_server_ip: Ipv4
    ip_range: str | None = None
    preshared_key: str | None = None
    local_ip: str | None = None
    local_cidr: str | None = None
    public_interface: str | None = None


class SiteToSiteVpn(Command, frozen=True, kw_only=True, tag="site2sitevpn"):
    """One tunnel."""

    create: bool
    local_public_ip: Ipv4
    peer_gateway_ip: Ipv4
    local_guest_cidr: str | None = None
    local_public_gateway: str | None = None
    peer_guest_cidr_list: str | None = None
    ike_policy: str | None = None
    esp_policy: str | None = None
    ipsec_psk: str | None = None
    ike_lifetime: int | None = None
    esp_lifetime: int | None = None
    dpd: bool | None = None
    passive: bool | None = None
    encap: bool | None = None
    ike_version: str | None = None
    split_connections: bool | None = None


class BgpPeers(Command, frozen=True, kw_only=True, tag="bgppeers"):
    """All BGP peers."""

    peers: tuple[Json, ...]


class Kept(Data, frozen=True, kw_only=True):
    """Messages, or their units, as they came: by what tells them apart."""

    messages: dict[str, Json] = {}


class Kind(NamedTuple):
    """How one message is kept: `key` names its identity, `gone` the field and value that remove it, `items` a list
    whose units are kept one by one.
    """

    command: type[Command]
    key: tuple[str, ...] = ()
    gone: tuple[str, bool] | None = None
    items: str = ""


KINDS = (
    Kind(Ipv6FirewallRules),
    Kind(VpnUserList, ("user",), ("add", False), "vpn_users"),
    Kind(RemoteAccessVpn, ("vpn_server_ip",), ("create", False)),
    Kind(SiteToSiteVpn, ("local_public_ip", "peer_gateway_ip"), ("create", False)),
    Kind(BgpPeers),
)


def merge(bag: Kept, command: Command, _router: Router, *, kind: Kind) -> Merged[Kept]:
    """Keep a message, or each of its units, under what tells it apart; what is taken back goes."""
    # Through JSON, since that is how a bag comes back: a tuple would never equal the list that was read.
    whole = msgspec.json.decode(msgspec.json.encode(command))
    units = whole[kind.items] if kind.items else [whole]
    messages = dict(bag.messages)
    for unit in units:
        # MACs come in either case; of users, "Ann" and "ann" are two.
        name = " ".join(str(unit[field]).lower() if field == "mac_address" else str(unit[field]) for field in kind.key)
        if kind.gone and unit[kind.gone[0]] is kind.gone[1]:
            messages.pop(name, None)
        else:
            messages[name] = {field: value for field, value in unit.items() if value is not None and field != "type"}
    return Merged(Kept(messages=messages))


def contribute(bag: Kept, _router: Router, *, kind: Kind) -> Iterator[Claim]:
    """Say that it waits."""
    name = _name(kind)
    for key in bag.messages:
        yield Claim(f"{name}/{key}" if key else name, Pending(f"{name} {key}".strip(), RELEASE))


def _name(kind: Kind) -> str:
    return str(kind.command.__struct_config__.tag)


FEATURES = tuple(
    Feature(_name(kind), (kind.command,), Kept, partial(merge, kind=kind), partial(contribute, kind=kind), kind.items)
    for kind in KINDS
)
