"""What may reach a public address, and what guests may reach outside."""

from collections import defaultdict
from collections.abc import Iterable, Iterator
from typing import ClassVar

from holdfast.feature import Claim, Command, Feature, Item, Merged, Refusal
from holdfast.intervals import Span, disjoint, icmp_keys, icmp_ranges
from holdfast.nft import Element, key, ports, quoted
from holdfast.router import Router
from holdfast.shared import Data
from holdfast.texts import canonical, is_ipv4, is_network

ANY = "0.0.0.0/0"
ANY_ICMP = -1
MAX_PORT = 65535
MAX_ICMP = 255


class FirewallRule(Item, frozen=True, kw_only=True):
    """A rule as it is sent and as it is kept (WIRE 5.4).  Ports absent: all of them; icmp -1 or absent: any.

    `default_egress_policy` true: the network allows by default, and this egress rule denies.
    What CIDRs and numbers may be is asked in `wrong`, not of the decoder: a rule that cannot be read at all could
    not be told to be one that denies.
    """

    ignored: ClassVar[frozenset[str]] = frozenset({"already_added", "purpose", "guest_cidr", "src_vlan_tag", "type"})

    id: int
    protocol: str
    traffic_type: str
    revoked: bool = False
    src_ip: str | None = None
    src_port_range: tuple[int, ...] | None = None
    source_cidr_list: tuple[str, ...] = ()
    dest_cidr_list: tuple[str, ...] | None = None
    icmp_type: int | None = None
    icmp_code: int | None = None
    default_egress_policy: bool = False

    @property
    def is_default(self) -> bool:
        """The built-in egress rule: id 0, no CIDRs; its flag is the network's default."""
        return self.id == 0


class FirewallRules(Command, frozen=True, kw_only=True, tag="firewallrules"):
    """All rules of one public address, or egress rules of the network; a rule goes by `revoked`, not by absence."""

    rules: tuple[FirewallRule, ...]


class Firewall(Data, frozen=True, kw_only=True):
    """Rules by id, oldest first."""

    rules: dict[int, FirewallRule] = {}


def merge(bag: Firewall, command: FirewallRules, _router: Router) -> Merged[Firewall]:
    """Each ingress rule by itself.  Egress rules that deny stand or fall together: one that is missing would
    leave open what the whole was to close.
    """
    rules = dict(bag.rules)
    faults: dict[int, tuple[str, str]] = {}
    for index, rule in enumerate(command.rules):
        if rule.revoked:
            rules.pop(rule.id, None)
        elif rules.get(rule.id) != rule:
            fault = wrong(rule)
            if fault:
                faults[index] = fault
            else:
                rules[rule.id] = rule
    cause = next((index for index in faults if _denies(command.rules[index])), None)
    if cause is not None:
        denials = {index: rule.id for index, rule in enumerate(command.rules) if _denies(rule)}
        for index, number in denials.items():
            if rules.get(number) != bag.rules.get(number):
                faults.setdefault(index, ("", f"rules that deny stand or fall together, and rules[{cause}] is refused"))
        whole = set(denials.values())
        rules = {k: v for k, v in rules.items() if k not in whole} | {k: bag.rules[k] for k in whole if k in bag.rules}
    return Merged(Firewall(rules=rules), tuple(_refusal(command, index, *faults[index]) for index in sorted(faults)))


def _refusal(command: FirewallRules, index: int, field: str, why: str) -> Refusal:
    return Refusal(f"rules[{index}]" + (f".{field}" if field else ""), str(command.rules[index].id), why)


def _denies(rule: FirewallRule) -> bool:
    return rule.traffic_type == "Egress" and rule.default_egress_policy


def wrong(rule: FirewallRule) -> tuple[str, str] | None:
    """Return the field that cannot be and why; None if the rule is sound."""
    if rule.traffic_type not in ("Ingress", "Egress"):
        return "traffic_type", f"{rule.traffic_type!r} is neither Ingress nor Egress"
    if rule.traffic_type == "Ingress" and not is_ipv4(rule.src_ip or ""):
        return "src_ip", f"{rule.src_ip!r} is not the public IPv4 address that the rule is for"
    if rule.protocol.lower() not in ("tcp", "udp", "icmp", "all"):
        return "protocol", f"{rule.protocol!r} is none of tcp, udp, icmp, all"
    return _wrong_network(rule) or _wrong_number(rule)


def _wrong_network(rule: FirewallRule) -> tuple[str, str] | None:
    for field, cidrs in (("source_cidr_list", rule.source_cidr_list), ("dest_cidr_list", rule.dest_cidr_list or ())):
        for at, cidr in enumerate(cidrs):
            if not is_network(cidr):
                return f"{field}[{at}]", f"{cidr!r} is not an IPv4 network"
    return None


def _wrong_number(rule: FirewallRule) -> tuple[str, str] | None:
    ends = rule.src_port_range
    if ends is not None and len(ends) not in (1, 2):
        return "src_port_range", f"{list(ends)} is neither a port nor a range of ports"
    for at, end in enumerate(ends or ()):
        if not 0 <= end <= MAX_PORT:
            return f"src_port_range[{at}]", f"{end} is not a port"
    if ends and ends[0] > ends[-1]:
        return "src_port_range", f"{list(ends)} does not go upwards"
    for field, number in (("icmp_type", rule.icmp_type), ("icmp_code", rule.icmp_code)):
        if number is not None and not ANY_ICMP <= number <= MAX_ICMP:
            return field, f"{number} is not between {ANY_ICMP} and {MAX_ICMP}"
    return None


def contribute(bag: Firewall, router: Router) -> Iterator[Claim]:
    """Entries of the sets by which connections are judged."""
    if router.is_vpc or not router.forwards:
        return
    yield from _ingress(rule for rule in bag.rules.values() if rule.traffic_type == "Ingress")
    egress = [rule for rule in bag.rules.values() if rule.traffic_type == "Egress"]
    for deny in (False, True):
        yield from _egress([r for r in egress if r.default_egress_policy is deny and not r.is_default], deny=deny)
    if any(rule.is_default and rule.default_egress_policy for rule in egress):
        for guest in router.of("guest"):
            yield Claim("firewallrules/0", Element("egress_open", quoted(guest.device)))


def _spans(rule: FirewallRule, cidrs: Iterable[str]) -> Iterator[Span]:
    origin = f"firewallrules/{rule.id}"
    if rule.protocol.lower() == "icmp":
        kind, code = rule.icmp_type, rule.icmp_code
        ranges = [*icmp_ranges(ANY_ICMP if kind is None else kind, ANY_ICMP if code is None else code)]
    elif rule.src_port_range and rule.protocol.lower() != "all":
        ranges = [(rule.src_port_range[0], rule.src_port_range[-1])]
    else:
        ranges = [(0, MAX_PORT)]
    for cidr in cidrs:
        for first, last in ranges:
            yield Span(canonical(cidr), first, last, origin)


def _ingress(rules: Iterable[FirewallRule]) -> Iterator[Claim]:
    groups: defaultdict[tuple[str, str], list[Span]] = defaultdict(list)
    for rule in rules:
        groups[rule.src_ip or "", rule.protocol.lower()].extend(_spans(rule, rule.source_cidr_list or (ANY,)))
    for (address, protocol), spans in groups.items():
        for span in disjoint(spans):
            if protocol == "icmp":
                for kind in icmp_keys(span.first, span.last):
                    yield Claim(span.origin, Element("ingress_icmp", key(address, span.prefix, kind)))
            elif protocol == "all":
                yield Claim(span.origin, Element("ingress_any", key(address, span.prefix)))
            else:
                wanted = key(address, protocol, span.prefix, ports(span.first, span.last))
                yield Claim(span.origin, Element("ingress_port", wanted))


def _egress(rules: list[FirewallRule], *, deny: bool) -> Iterator[Claim]:
    """Grouped by source: sources of one prefix length never overlap partly, so each length has sets of its own."""
    groups: defaultdict[tuple[str, str], list[Span]] = defaultdict(list)
    for rule in rules:
        for source in rule.source_cidr_list or (ANY,):
            groups[canonical(source), rule.protocol.lower()].extend(_spans(rule, rule.dest_cidr_list or (ANY,)))
    family = "egress_deny" if deny else "egress_allow"
    for (source, protocol), spans in groups.items():
        length = source.partition("/")[2] or "32"
        for span in disjoint(spans):
            if protocol == "icmp":
                for kind in icmp_keys(span.first, span.last):
                    entry = key(source, span.prefix, kind)
                    yield Claim(span.origin, Element(f"{family}_icmp_{length}", entry))
            elif protocol == "all":
                yield Claim(span.origin, Element(f"{family}_any_{length}", key(source, span.prefix)))
            else:
                entry = key(source, span.prefix, protocol, ports(span.first, span.last))
                yield Claim(span.origin, Element(f"{family}_port_{length}", entry))


FEATURE = Feature("firewallrules", (FirewallRules,), Firewall, merge, contribute, units="rules")
