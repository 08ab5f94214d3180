"""Network ACLs: the ordered rules of each tier and private gateway of a VPC; the first that matches decides."""

import re
from collections import defaultdict
from collections.abc import Iterable, Iterator
from ipaddress import IPv6Network

from msgspec.structs import replace

from holdfast.errors import Rejected
from holdfast.feature import Claim, Command, Feature, Gone, Item, Mac, Merged, Pending
from holdfast.interface import Interface
from holdfast.intervals import ANY, Guarded, Span, disjoint, icmp_keys, icmp_ranges, levels
from holdfast.nft import Element, key, ports, quoted
from holdfast.router import Router
from holdfast.shared import Data
from holdfast.texts import canonical, is_network

ANYWHERE = ("0.0.0.0/0", "::/0")
MAX_PORT, MAX_NUMBER = 65535, 255
NUMBERS = {1: "icmp", 6: "tcp", 17: "udp"}
_IPV6 = re.compile(r"[0-9A-Fa-f:.]*:[0-9A-Fa-f:.]*(/(12[0-8]|1[01][0-9]|[1-9]?[0-9]))?")


class AclItem(Item, frozen=True, kw_only=True):
    """A rule as it is sent (WIRE 5.3); which numbers belong to it depends on its type."""

    type: str
    allowed: bool
    cidr: str = ""
    first_port: int | None = None
    last_port: int | None = None
    icmp_type: int | None = None
    icmp_code: int | None = None
    protocol: int | None = None


class NetworkAcl(Command, frozen=True, kw_only=True, tag="networkacl"):
    """The complete, ordered rules of one nic.  Servers since 4.14 say `delete_from_processed_cache`."""

    device: str
    mac_address: Mac
    ingress_rules: tuple[AclItem, ...]
    egress_rules: tuple[AclItem, ...]
    private_gateway_acl: bool = False
    nic_ip: str | None = None
    nic_netmask: str | None = None
    nic_ip6_cidr: str | None = None
    delete_from_processed_cache: bool | None = None


class AclDefault(Command, frozen=True, kw_only=True, tag="acldefault"):
    """What becomes of egress that no rule matches: accepted whatever rules there are, or only while there are none.

    No server sends it: it is this router's setting, and an adopted one has what its old agent did.
    """

    always_accept: bool


class AclRule(Data, frozen=True, kw_only=True):
    """A rule.  `cidrs`: canonical IPv4 and IPv6 networks, of the source (ingress) or the destination (egress).

    `protocol`: all, tcp, udp, icmp or a number as text.  `first` to `last`: ports.  ICMP -1: any.
    """

    allowed: bool
    cidrs: tuple[str, ...]
    protocol: str = "all"
    first: int = 0
    last: int = MAX_PORT
    icmp_type: int = ANY
    icmp_code: int = ANY


class Acl(Data, frozen=True, kw_only=True):
    """Rules of one nic in the order of evaluation: the first that matches decides."""

    private_gateway: bool = False
    ingress: tuple[AclRule, ...] = ()
    egress: tuple[AclRule, ...] = ()


EVERYTHING = Acl(ingress=(AclRule(allowed=True, cidrs=ANYWHERE),), egress=(AclRule(allowed=True, cidrs=ANYWHERE),))


class Acls(Data, frozen=True, kw_only=True):
    """ACLs by nic (its MAC, or ethN where no MAC was known).  `ascending`: what was last known of the order
    in which they are sent; once true, a server of 4.8 or newer has been heard.  `always_accept`: see `AclDefault`.
    """

    acls: dict[str, Acl] = {}
    ascending: bool | None = None
    always_accept: bool = False


def merge(bag: Acls, command: NetworkAcl | AclDefault, router: Router) -> Merged[Acls]:
    """Replace the ACL of one nic.  Rejected whole if one rule cannot be: the others would mean something else."""
    if isinstance(command, AclDefault):
        return Merged(replace(bag, always_accept=command.always_accept))
    newer = _order(command)
    ascending = bool(bag.ascending) if newer is None else newer
    warnings: list[str] = []
    parsed: list[tuple[AclRule, ...]] = []
    for field, items in (("ingress_rules", command.ingress_rules), ("egress_rules", command.egress_rules)):
        rules = [rule for at, item in enumerate(items) for rule in _rule(item, f"{field}[{at}]", warnings)]
        parsed.append(tuple(rules if ascending else rules[::-1]))
    if newer is None and bag.ascending is None and any(len({rule.allowed for rule in rules}) > 1 for rules in parsed):
        warnings.append("rules taken to be sent last first, as before 4.8: nothing in the message tells")
    nic = command.mac_address.lower()  # never invented in an ACL, unlike its number
    wanted = Acl(private_gateway=command.private_gateway_acl, ingress=parsed[0], egress=parsed[1])
    acls = dict(bag.acls)
    if wanted.ingress or wanted.egress or any(face.nic == nic for face in router.interfaces):
        acls[nic] = wanted
    else:
        acls.pop(nic, None)  # the farewell to a private gateway comes when the nic is bare already
    known = bag.ascending if newer is None else newer or bool(bag.ascending)
    return Merged(replace(bag, acls=acls, ascending=known), warnings=tuple(warnings))


def forget(bag: Acls, gone: Gone) -> Acls:
    """Drop the ACLs of nics that are no longer configured: what comes there next inherits nothing."""
    return replace(bag, acls={nic: acl for nic, acl in bag.acls.items() if nic not in gone.nics})


def _order(command: NetworkAcl) -> bool | None:
    """Whether the message is in ascending order, as since 4.8; None if nothing in it tells."""
    if command.delete_from_processed_cache is not None or command.nic_ip6_cidr:
        return True
    texts = [item.cidr for item in (*command.ingress_rules, *command.egress_rules)]
    if any("-" in text for text in texts):
        return False
    return True if any("," in text or ":" in text for text in texts) else None


def _rule(item: AclItem, path: str, warnings: list[str]) -> Iterator[AclRule]:
    protocol = _protocol(item, path)
    if item.type.lower() == "protocol" and item.cidr in ("ACCEPT", "DROP") and not item.allowed:
        # Servers before 4.13.1 put the verdict where the networks belong; what is to be dropped is closed to all.
        dropped = item.cidr == "DROP"
        what = "dropped from anywhere" if dropped else "left out"
        warnings.append(f"{path}: protocol {item.protocol} {what}, the server does not say for which networks")
        if dropped:
            yield AclRule(allowed=False, cidrs=ANYWHERE, protocol=protocol)
        return
    rule = AclRule(allowed=item.allowed, cidrs=_networks(item.cidr, f"{path}.cidr"), protocol=protocol)
    if item.type.lower() == "protocol":
        yield rule
    elif protocol in ("tcp", "udp"):
        first, last = _ports(item, path)
        yield replace(rule, first=first, last=last)
    elif protocol == "icmp":
        kind, code = _icmp(item.icmp_type, f"{path}.icmp_type"), _icmp(item.icmp_code, f"{path}.icmp_code")
        if item.type == "ICMP" and not item.allowed and (kind, code) == (0, 0):
            # In upper case the server loses both numbers; what is to be dropped is dropped whatever they were.
            warnings.append(f"{path}: all ICMP dropped, the server does not say which type")
            kind = code = ANY
        yield replace(rule, icmp_type=kind, icmp_code=code)
    else:
        yield rule


def _protocol(item: AclItem, path: str) -> str:
    name = item.type.lower()
    if name in ("all", "tcp", "udp", "icmp"):
        return name
    number, field = item.protocol, "protocol"
    if name != "protocol":
        number, field = (int(name) if re.fullmatch(r"[0-9]{1,3}", name) else None), "type"
        if number is None:
            raise Rejected(f"{item.type!r} is none of tcp, udp, icmp, all, protocol", f"{path}.type")
    if number is None or not 0 <= number <= MAX_NUMBER:
        raise Rejected(f"{number} is no protocol's number", f"{path}.{field}")
    return NUMBERS.get(number, str(number))


def _networks(text: str, path: str) -> tuple[str, ...]:
    found = [_network(part.strip()) for part in re.split("[,-]", text)]
    if None in found:
        raise Rejected(f"{text!r} is not a list of IPv4 and IPv6 networks without host bits", path)
    return tuple(dict.fromkeys(part for part in found if part))


def _network(text: str) -> str | None:
    """A network, canonical; None if it is none or has host bits."""
    if is_network(text):
        return canonical(text) if canonical(text) in (text, text.removesuffix("/32")) else None
    if _IPV6.fullmatch(text):
        try:
            return str(IPv6Network(text)).removesuffix("/128")
        except ValueError:
            return None
    return None


def _ports(item: AclItem, path: str) -> tuple[int, int]:
    """Absent, 0 to 0 and -1: every port."""
    first = item.first_port
    last = first if item.last_port is None else item.last_port
    if first in (None, 0, -1) and last in (None, 0, -1):
        return 0, MAX_PORT
    if first is None or last is None or not 0 <= first <= last <= MAX_PORT:
        raise Rejected(f"{first} to {last} does not go upwards within 0 to {MAX_PORT}", f"{path}.first_port")
    return first, last


def _icmp(number: int | None, path: str) -> int:
    if number is not None and not ANY <= number <= MAX_NUMBER:
        raise Rejected(f"{number} is not between {ANY} and {MAX_NUMBER}", path)
    return ANY if number is None else number


def contribute(bag: Acls, router: Router) -> Iterator[Claim]:
    """The nics that ACLs apply to, each with the look-ups that its rules are; a nic without rules has the defaults."""
    if not router.is_vpc:
        return
    faces = {face.nic: face for face in (*router.of("tier"), *router.of("private"))}
    for nic, face in faces.items():
        origin = f"networkacl/{nic}"
        # Without a public network the router is one hop of somebody else's: its tiers are forwarded as they come.
        acl = bag.acls.get(nic, Acl()) if router.boot.has_public_network else EVERYTHING
        for element in compiled(face, acl, always_accept=bag.always_accept):
            yield Claim(origin, element)
    for nic, acl in bag.acls.items():
        if nic not in faces and (acl.ingress or acl.egress):
            absent = not router.facts.device(nic)
            yield Claim(f"networkacl/{nic}", Pending(f"ACL of {nic}", f"nic {nic}" if absent else "its network"))


def compiled(face: Interface, acl: Acl, *, always_accept: bool = False) -> Iterator[Element]:
    """One nic's ACL as entries of sets, see `program.py`.  Egress that no rule matches is accepted while there is no
    egress rule, or always.
    """
    device = quoted(face.device)
    yield Element("acl_device", device)
    yield Element("egress_open", device)  # towards public nics: the ACL has judged
    if face.purpose == "private":
        yield Element("private_device", device)
    if always_accept or not acl.egress:
        yield Element("acl_open", device)
    yield from _lookups(f"acl_in_{face.device}", acl.ingress)
    yield from _lookups(f"acl_out_{face.device}", acl.egress)


def _lookups(prefix: str, rules: tuple[AclRule, ...]) -> Iterator[Element]:
    """Rules of one level and verdict are one union, of disjoint pieces: of ports by protocol, of ICMP, of protocols."""
    spans: defaultdict[tuple[int, bool, str], list[Span]] = defaultdict(list)
    guarded = [*_without_repeats(rules)]
    for rule, level in zip(guarded, levels(guarded), strict=True):
        shape = rule.protocol if rule.protocol in ("tcp", "udp", "icmp") else "proto"
        spans[level, rule.allowed, shape].extend(rule.spans)
    for (level, allowed, shape), group in spans.items():
        name = f"{prefix}_{level}_{'allow' if allowed else 'deny'}_{'port' if shape in ('tcp', 'udp') else shape}"
        for piece in disjoint(group):
            yield from (Element(name, key(piece.prefix, *fields)) for fields in _fields(shape, piece))


def _without_repeats(rules: Iterable[AclRule]) -> Iterator[Guarded]:
    """What was said before, of the same packets, decides nothing any more."""
    said: set[tuple[str, Span]] = set()
    for rule in rules:
        new = tuple(span for span in _spans(rule) if (rule.protocol, span) not in said)
        said.update((rule.protocol, span) for span in new)
        yield Guarded(rule.allowed, rule.protocol, new)


def _spans(rule: AclRule) -> Iterator[Span]:
    if rule.protocol in ("tcp", "udp"):
        ranges: Iterable[tuple[int, int]] = ((rule.first, rule.last),)
    elif rule.protocol == "icmp":
        ranges = tuple(icmp_ranges(rule.icmp_type, rule.icmp_code))
    else:
        ranges = ((0, MAX_NUMBER) if rule.protocol == "all" else (int(rule.protocol),) * 2,)
    for cidr in rule.cidrs:
        if ":" not in cidr:
            for first, last in ranges:
                yield Span(cidr, first, last)


def _fields(shape: str, piece: Span) -> Iterator[tuple[str, ...]]:
    if shape in ("tcp", "udp"):
        yield shape, ports(piece.first, piece.last)
    elif shape == "icmp":
        yield from ((pair,) for pair in icmp_keys(piece.first, piece.last))
    else:
        single = piece.first == piece.last
        yield (NUMBERS.get(piece.first, "") if single and piece.first in (6, 17) else ports(piece.first, piece.last),)


FEATURE = Feature("networkacl", (NetworkAcl, AclDefault), Acls, merge, contribute, forget=forget)
