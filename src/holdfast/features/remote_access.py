"""Remote access VPN: L2TP over IPsec at one public address, for the users of an account."""

from collections.abc import Iterator
from typing import NamedTuple

from holdfast.addresses import number
from holdfast.errors import Rejected
from holdfast.feature import Claim, Command, Feature, Ipv4, Item, Line, Merged, Pending, Refusal, Secret, Service
from holdfast.l2tp import UNIT as XL2TPD
from holdfast.l2tp import Sessions, files
from holdfast.nft import WAY, Chain, Rule, Stage
from holdfast.router import Router
from holdfast.shared import Data
from holdfast.state import File
from holdfast.swanctl import L2TP, SETTINGS, SETTINGS_TEXT, UNIT, Connection, digest, l2tp, path_of
from holdfast.texts import canonical, is_ipv4, is_network

_LONGEST = 255
_KEEPS_MARK = 0xFFFFFFFF ^ WAY


class VpnUser(Item, frozen=True, kw_only=True):
    """A user of the remote access VPN."""

    user: Line
    password: Secret
    add: bool


class VpnUserList(Command, frozen=True, kw_only=True, tag="vpnuserlist"):
    """All users of an account, those that are removed last."""

    vpn_users: tuple[VpnUser, ...]


class RemoteAccessVpn(Command, frozen=True, kw_only=True, tag="remoteaccessvpn"):
    """The remote access VPN of one public address (WIRE 5.15).  The nic that it names is a constant."""

    ignored = frozenset({*Command.ignored, "public_interface"})

    create: bool
    vpn_server_ip: Ipv4
    ip_range: Line | None = None
    preshared_key: Secret | None = None
    local_ip: Line | None = None
    local_cidr: Line | None = None


class Users(Data, frozen=True, kw_only=True):
    """Passwords by user; "Ann" and "ann" are two."""

    passwords: dict[str, Secret] = {}


class Server(Data, frozen=True, kw_only=True):
    """A VPN: users are given `first` to `last`, speak to `local` and reach `network`."""

    first: str
    last: str
    local: str
    network: str
    psk: Secret


class Servers(Data, frozen=True, kw_only=True):
    """VPNs by public address, the one told last at the end."""

    servers: dict[str, Server] = {}


def merge_users(bag: Users, command: VpnUserList, _router: Router) -> Merged[Users]:
    """Users come, change their passwords and go.  One who was removed and came again stands in a list twice."""
    passwords, refused = dict(bag.passwords), []
    came = {unit.user for unit in command.vpn_users if unit.add}
    for index, unit in enumerate(command.vpn_users):
        why = _wrong(unit) if unit.add else ""
        if why:
            refused.append(Refusal(f"vpn_users[{index}]", unit.user, why))
        elif unit.add:
            passwords[unit.user] = unit.password
        elif unit.user not in came:
            passwords.pop(unit.user, None)
    return Merged(Users(passwords=dict(sorted(passwords.items()))), tuple(refused))


def _wrong(unit: VpnUser) -> str:
    """Why pppd's file cannot hold a user as one who has just that name and that password; empty if it can."""
    user, password = unit.user, unit.password
    if not 0 < len(user.encode()) <= _LONGEST or user == "*":
        return "that is no user's name"
    if not 0 < len(password.encode()) <= _LONGEST or not password.isprintable() or password.startswith("@/"):
        return "the password is empty, too long or not one line of plain text"
    return ""


def merge(bag: Servers, command: RemoteAccessVpn, _router: Router) -> Merged[Servers]:
    """One VPN comes, changes or goes; one that is not there goes without a word."""
    servers = {address: held for address, held in bag.servers.items() if address != command.vpn_server_ip}
    if command.create:
        servers[command.vpn_server_ip] = _server(command)
    return Merged(Servers(servers=servers))


def _server(sent: RemoteAccessVpn) -> Server:
    first, _, last = (sent.ip_range or "").partition("-")
    if not (is_ipv4(first) and is_ipv4(last)) or number(first) > number(last):
        raise Rejected(f"{sent.ip_range!r} is not a range of addresses", "ip_range")
    local = sent.local_ip or ""
    if not is_ipv4(local) or number(first) <= number(local) <= number(last):
        raise Rejected(f"{sent.local_ip!r} is not an address outside the range", "local_ip")
    if not is_network(sent.local_cidr or ""):
        raise Rejected(f"{sent.local_cidr!r} is not an IPv4 network", "local_cidr")
    if not sent.preshared_key:
        raise Rejected("there is no key", "preshared_key")
    return Server(first=first, last=last, local=local, network=canonical(sent.local_cidr or ""), psk=sent.preshared_key)


def contribute(bag: Servers, router: Router) -> Iterator[Claim]:
    """The VPN that was told last, of those whose address is here: one daemon listens at one address."""
    if not router.forwards:
        return
    here = [address for address in bag.servers if (holder := router.holder(address)) and holder.device]
    address = here[-1] if here else ""
    for other in bag.servers:
        if other != address:
            waits_for = f"the end of that at {address}" if other in here else f"address {other}"
            yield Claim(f"remoteaccessvpn/{other}", Pending(f"remote access at {other}", waits_for))
    wanted = bool(address) and router.serving
    yield Claim("remoteaccessvpn", Service(UNIT, wanted=wanted))
    yield Claim("remoteaccessvpn", Service(XL2TPD, wanted=wanted))
    if address:
        yield from _served(f"remoteaccessvpn/{address}", address, bag.servers[address], router)


def _served(origin: str, address: str, server: Server, router: Router) -> Iterator[Claim]:
    text = l2tp(address, server.psk)
    yield Claim("site2sitevpn", File(SETTINGS, SETTINGS_TEXT, restart=UNIT))
    yield Claim(origin, File(path_of(L2TP), text, mode=0o600, secret=True))
    if router.serving:
        yield Claim(origin, Connection(L2TP, digest(text), path_of(L2TP)))
    users: Users = router.config["vpnuserlist"]
    for file in files(address, server.first, server.last, server.local, users.passwords):
        yield Claim(origin, file)
    if router.serving:  # elsewhere xl2tpd does not run, and takes all of them along when it ends
        yield Claim("vpnuserlist", Sessions(tuple(users.passwords)))
    if not router.facts.ppp:
        yield Claim(origin, Pending(f"users' connections to {address}", "PPP in the kernel"))
    dns = next((face.virtual or face.addresses[0][0] for face in router.served), "")
    for rule in _rules(address, _Ends(f"{server.first}-{server.last}", server.local, server.network), dns):
        yield Claim(origin, rule)


class _Ends(NamedTuple):
    """Whom a rule speaks of: the users' addresses, the router's towards them, and the network that they reach."""

    users: str
    local: str
    network: str


def _rules(address: str, ends: _Ends, dns: str) -> Iterator[Rule]:
    """What is a user's comes by a device of pppd's, with an address of the range; the network's ACLs decide first."""
    here, there = f'iifname "ppp*" ip saddr {ends.users}', f'oifname "ppp*" ip daddr {ends.users}'
    own, plain = f"ip daddr {address}", f"ip daddr {ends.local} meta l4proto {{ tcp, udp }} th dport 53"
    # The outer packets, and what was inside: unprotected L2TP is nobody's.
    for inner in ("meta l4proto esp", "udp dport 1701 meta ipsec exists"):
        yield Rule(Chain.PREROUTING, Stage.ADMIT, f"{own} {inner} accept")
        yield Rule(Chain.INPUT, Stage.JUDGE, f"{own} {inner} accept")
    yield Rule(Chain.INPUT, Stage.JUDGE, f"{own} udp dport {{ 500, 4500 }} accept")
    # Users are reached by their own devices, whichever way the connection once came in.
    mark = f"meta mark set meta mark & 0x{_KEEPS_MARK:08x}"
    yield Rule(Chain.PREROUTING, Stage.PREPARE, f"iifname @guest_device ip daddr {ends.users} {mark}")
    inside = f"ip saddr {ends.network}"
    yield Rule(Chain.FORWARD, Stage.JUDGE, f"ct direction original {here} ip daddr {ends.network} goto stamp")
    yield Rule(Chain.FORWARD, Stage.JUDGE, f"ct direction original iifname @guest_device {inside} {there} goto stamp")
    yield Rule(Chain.FORWARD, Stage.JUDGE, f"{here} {there} accept")
    yield Rule(Chain.FORWARD, Stage.JUDGE, f"ct direction reply iifname @guest_device {inside} {there} accept")
    yield Rule(Chain.FORWARD, Stage.JUDGE, f"ct direction reply {here} ip daddr {ends.network} accept")
    yield Rule(Chain.POSTROUTING, Stage.JUDGE, f"ct direction reply {here} oifname @acl_device goto settle")
    if dns:
        # Names are asked for at the one address that every user reaches; the server listens at the guests' one.
        yield Rule(Chain.TRANSLATION, Stage.ADMIT, f"{here} {plain} return")
        yield Rule(Chain.DNAT, Stage.PORT, f"{here} {plain} dnat ip to {dns}")
        served = f"{here} {plain.replace(ends.local, dns)}"
        yield Rule(Chain.INPUT, Stage.JUDGE, f"{served} accept")


USERS = Feature("vpnuserlist", (VpnUserList,), Users, merge_users, lambda _bag, _router: iter(()), "vpn_users")
FEATURE = Feature("remoteaccessvpn", (RemoteAccessVpn,), Servers, merge, contribute)
