"""Who this router is: what the hypervisor told it at boot."""

from collections.abc import Iterator

from msgspec.structs import replace

from holdfast.addresses import prefix_length
from holdfast.errors import Rejected
from holdfast.feature import Claim, Command, Feature, Merged
from holdfast.interface import PURPOSES
from holdfast.login import hashed, is_password
from holdfast.nft import Element, quoted
from holdfast.router import Router
from holdfast.shared import BootLine, BootNic
from holdfast.ssh_key import authorized
from holdfast.state import Sysctl
from holdfast.texts import is_host_name, is_ipv4, is_mac, is_network

SECRET_KEYS = (
    "vmpassword", "router_password", "keystore_password", "baremetalnotificationsecuritykey",
    "baremetalnotificationapikey", "privatekey",
    "userdata",  # it may hold anything
)  # fmt: skip
_STATE = "redundant_state"
_ROLES = {_STATE, "redundant_master", "redundant_primary"}
"""Who serves is keepalived's to say, and no bag's."""
_NEWER = ("publicMtu", "privateMtu", "authorized_key", "logrotatefrequency")
"""What servers say that call the serving router PRIMARY, and those of 4.6.1 do not."""
_KEY = "authorized_key"
_CONSOLE = "vmpassword"
_UNDERSTOOD = {
    "name", "type", "gateway", "localgw", "mgmtcidr", "domain", "dnssearchorder", "dns1", "dns2", "internaldns1",
    "internaldns2", "useextdns", "exposedns", "userouteripresolver", "disable_rp_filter", "sshonguest", "publicMtu",
    "privateMtu", "nic_macs", "vpccidr", "source_nat_ip", "has_public_network", "redundant_router", "router_id",
    "advert_int", "guestgw",
}  # fmt: skip


class CmdLine(Command, frozen=True, kw_only=True, tag="cmdline"):
    """The boot line as keys and values, all of them text (WIRE 7)."""

    cmd_line: dict[str, str]


def merge(bag: BootLine, command: CmdLine, _router: Router) -> Merged[BootLine]:
    """Replace the boot line whole; anything in it that cannot be understood refuses it whole."""
    given = command.cmd_line
    if given.get("type") not in PURPOSES:
        raise Rejected(f"{given.get('type', '')!r} is not a type of router that this agent runs", "cmd_line.type")
    macs = _macs(given)
    return Merged(
        BootLine(
            name=_word(given, "name"),
            type=given["type"],
            nics=tuple(_nics(given, macs)),
            gateway=_address(given, "gateway"),
            localgw=_address(given, "localgw"),
            mgmtcidr=_networks(given, "mgmtcidr"),
            domain=_word(given, "domain"),
            dnssearchorder=tuple(part for part in _word(given, "dnssearchorder").split(",") if part),
            dns=_addresses(given, "dns1", "dns2"),
            internal_dns=_addresses(given, "internaldns1", "internaldns2"),
            useextdns=_true(given, "useextdns"),
            exposedns=_true(given, "exposedns"),
            userouteripresolver=_true(given, "userouteripresolver"),
            disable_rp_filter=_true(given, "disable_rp_filter"),
            sshonguest=_true(given, "sshonguest"),
            public_mtu=_number(given, "publicMtu"),
            private_mtu=_number(given, "privateMtu"),
            vpccidr=_network(given, "vpccidr"),
            source_nat_ip=_address(given, "source_nat_ip"),
            has_public_network=_text(given, "has_public_network").lower() != "false",
            redundant=_text(given, "redundant_router") in ("1", "true"),
            pair=_whole(given, "router_id"),
            advert_s=_number(given, "advert_int") or 1,
            guest_gateway=_address(given, "guestgw"),
            older=_older(_text(given, _STATE), newer=any(_text(given, key) for key in _NEWER)),
            other=_others(bag, given),
            secrets=_secrets(given),
        ),
        warnings=tuple(_odd(given)),
    )


def _others(bag: BootLine, given: dict[str, str]) -> dict[str, str]:
    """What no field keeps.  A key that nobody could log in by does not take the place of one that somebody can."""
    known = _UNDERSTOOD | _ROLES | {*SECRET_KEYS}
    others = {k: v for k, v in given.items() if k not in known and not _is_nic_key(k)}
    if not authorized(others.get(_KEY, "")) and _KEY in others and _KEY in bag.other:
        others[_KEY] = bag.other[_KEY]
    return others


def _older(said: str, *, newer: bool) -> bool:
    """Whether the server is one before 4.16: it says MASTER of the router that serves.  Of the second one both ages say
    BACKUP: there `newer` tells, whether it said what older ones do not.
    """
    return said == "MASTER" or (said not in ("", "PRIMARY") and not newer)


def renew(bag: BootLine) -> BootLine:
    """Earlier versions kept the words for the role."""
    if not _ROLES & bag.other.keys():
        return bag
    other = {key: value for key, value in bag.other.items() if key not in _ROLES}
    newer = bool(bag.public_mtu or bag.private_mtu) or any(_text(other, key) for key in _NEWER)
    return replace(bag, other=other, older=_older(_text(bag.other, _STATE), newer=newer))


def _secrets(given: dict[str, str]) -> dict[str, str]:
    """What is never shown.  Of the console's password the hash alone is kept."""
    secrets = {key: given[key] for key in SECRET_KEYS if key in given}
    password = _text(secrets, _CONSOLE)
    secrets.pop(_CONSOLE, None)
    return secrets | ({_CONSOLE: hashed(password, _text(given, "name"))} if is_password(password) else {})


def _odd(given: dict[str, str]) -> Iterator[str]:
    """What cannot be used: DNS has no such domains, sshd no such key, nobody such a password or time server."""
    for key in ("domain", "dnssearchorder"):
        for part in filter(None, _text(given, key).split(",")):
            if not is_host_name(part) or is_ipv4(part):
                yield f"cmd_line.{key}: {part!r} is no domain: guests are not told of it"
    if given.get(_KEY) and not authorized(given[_KEY]):
        yield f"cmd_line.{_KEY}: not base64 of a public key: nobody is let in by it, and an earlier one stays"
    if (password := _text(given, _CONSOLE)) and not is_password(password):
        yield f"cmd_line.{_CONSOLE}: not what anybody could type at a console: left out"
    for part in filter(None, _text(given, "ntpserverlist").split(",")):
        if not is_host_name(part):
            yield f"cmd_line.ntpserverlist: {part!r} is no host's name"


def _is_number(text: str) -> bool:
    return text.isascii() and text.isdigit() and len(text) <= 5  # noqa: PLR2004 no MTU and no nic's number has more


def _is_nic_key(key: str) -> bool:
    return key.startswith("eth") and key.endswith(("ip", "mask"))


def _nics(given: dict[str, str], macs: tuple[str, ...]) -> Iterator[BootNic]:
    for key in sorted(given):
        digits = key.removeprefix("eth").removesuffix("ip")
        if not key.startswith("eth") or not key.endswith("ip") or not _is_number(digits):
            continue
        address = _address(given, key)
        if not address:
            continue
        mask = given.get(f"eth{digits}mask", "")
        prefix = prefix_length(mask) if is_ipv4(mask) else None
        if not prefix:
            raise Rejected(f"{mask!r} is not a netmask", f"cmd_line.eth{digits}mask")
        at = int(digits)
        yield BootNic(number=at, address=address, prefix=prefix, mac=macs[at] if at < len(macs) else "")


def _macs(given: dict[str, str]) -> tuple[str, ...]:
    macs = tuple(mac.lower() for mac in given.get("nic_macs", "").split("|") if mac)
    for mac in macs:
        if not is_mac(mac):
            raise Rejected(f"{mac!r} is not a MAC address", "cmd_line.nic_macs")
    return macs


def _text(given: dict[str, str], key: str) -> str:
    # The management server writes a Java null as the word (WIRE 7).
    value = given.get(key, "")
    return "" if value in ("null", "None") else value


def _word(given: dict[str, str], key: str) -> str:
    value = _text(given, key)
    if not all("!" <= letter <= "~" for letter in value):
        raise Rejected(f"{value!r} holds a character that no {key} has", f"cmd_line.{key}")
    return value


def _address(given: dict[str, str], key: str) -> str:
    value = _text(given, key)
    if value and not is_ipv4(value):
        raise Rejected(f"{value!r} is not an IPv4 address", f"cmd_line.{key}")
    return value


def _addresses(given: dict[str, str], *keys: str) -> tuple[str, ...]:
    return tuple(dict.fromkeys(value for key in keys if (value := _address(given, key))))


def _network(given: dict[str, str], key: str) -> str:
    return next(iter(_networks(given, key)), "")


def _networks(given: dict[str, str], key: str) -> tuple[str, ...]:
    found = tuple(part for part in _text(given, key).split(",") if part)
    for part in found:
        if not is_network(part):
            raise Rejected(f"{part!r} is not an IPv4 network", f"cmd_line.{key}")
    return found


def _true(given: dict[str, str], key: str) -> bool:
    return _text(given, key).lower() == "true"


def _whole(given: dict[str, str], key: str) -> int:
    value = _text(given, key)
    if value and not (value.isascii() and value.isdigit()):
        raise Rejected(f"{value!r} is not a number", f"cmd_line.{key}")
    return int(value or 0)


def _number(given: dict[str, str], key: str) -> int:
    value = _text(given, key)
    if value and not _is_number(value):
        raise Rejected(f"{value!r} is not a number", f"cmd_line.{key}")
    return int(value or 0)


_DEVICES = {"guest": "guest_device", "tier": "guest_device", "control": "control_device", "public": "public_device"}
"""Which set of the firewall a nic belongs to; private gateways are neither guests nor public: their ACLs decide."""


def contribute(bag: BootLine, router: Router) -> Iterator[Claim]:
    """Kernel parameters and the nics' purposes in the firewall."""
    if not bag.type:
        return
    for name, value in _sysctls(bag, router):
        yield Claim(f"cmdline/{bag.type}", Sysctl(name, value))
    for face in router.interfaces:
        if face.device and face.purpose in _DEVICES:
            yield Claim(f"cmdline/{face.device}", Element(_DEVICES[face.purpose], quoted(face.device)))


def _sysctls(bag: BootLine, router: Router) -> Iterator[tuple[str, str]]:
    yield "net/ipv4/ip_forward", "1" if router.forwards else "0"
    # A reverse-path check has to look where the way-back mark points, or it drops what came in by a second public nic.
    yield "net/ipv4/conf/all/src_valid_mark", "1"
    yield "net/ipv4/conf/all/rp_filter", "0"
    yield "net/ipv4/ip_nonlocal_bind", "1"
    yield "net/ipv4/tcp_syncookies", "1"
    # Nothing of IPv6 is configured yet: a router that answered there would do so without its rules.
    yield "net/ipv6/conf/all/disable_ipv6", "1"
    yield "net/ipv6/conf/default/disable_ipv6", "1"
    for scope in ("all", "default"):
        yield f"net/ipv4/conf/{scope}/accept_source_route", "0"
        yield f"net/ipv4/conf/{scope}/accept_redirects", "0"
        yield f"net/ipv4/conf/{scope}/send_redirects", "0"
        # A removed primary address must not take its secondaries along.
        yield f"net/ipv4/conf/{scope}/promote_secondaries", "1"
        yield f"net/ipv4/conf/{scope}/arp_ignore", "2"
        yield f"net/ipv4/conf/{scope}/arp_announce", "2"
    for face in router.interfaces:
        if face.device:
            # A VPC without a public network leaves by a tier: what comes in there may come from anywhere.
            strict = not (face.purpose == "public" and bag.disable_rp_filter) and bag.has_public_network
            yield f"net/ipv4/conf/{face.device}/rp_filter", "1" if strict else "0"
            yield f"net/ipv4/conf/{face.device}/send_redirects", "0"


FEATURE = Feature("cmdline", (CmdLine,), BootLine, merge, contribute, renew=renew)
