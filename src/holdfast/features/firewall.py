"""What may reach a public address, and what guests may reach outside."""

from collections import defaultdict
from collections.abc import Iterable, Iterator
from typing import Annotated, ClassVar

import msgspec

from holdfast.feature import Cidr, Claim, Command, Feature, Item, Merged, Port, Refusal
from holdfast.intervals import Span, disjoint, icmp_keys, icmp_ranges
from holdfast.nft import Element, key, ports, quoted
from holdfast.router import Data, Router
from holdfast.texts import canonical, is_ipv4

ANY = "0.0.0.0/0"
ANY_ICMP = -1
MAX_PORT = 65535

IcmpNumber = Annotated[int, msgspec.Meta(ge=-1, le=255)]


class FirewallRule(Item, frozen=True, kw_only=True):
    """A rule as it is sent and as it is kept (WIRE 5.4).  Ports absent: all of them; icmp -1 or absent: any.

    `default_egress_policy` true: the network allows by default, and this egress rule denies.
    """

    ignored: ClassVar[frozenset[str]] = frozenset({"already_added", "purpose", "guest_cidr", "src_vlan_tag", "type"})

    id: int
    protocol: str
    traffic_type: str
    revoked: bool = False
    src_ip: str | None = None
    src_port_range: Annotated[tuple[Port, ...], msgspec.Meta(max_length=2)] | None = None
    source_cidr_list: tuple[Cidr, ...] = ()
    dest_cidr_list: tuple[Cidr, ...] | None = None
    icmp_type: IcmpNumber | None = None
    icmp_code: IcmpNumber | None = None
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
    refused = []
    for index, rule in enumerate(command.rules):
        if rule.revoked:
            rules.pop(rule.id, None)
        elif rules.get(rule.id) != rule:
            why = wrong(rule)
            if why:
                refused.append(Refusal(f"rules[{index}].{why[0]}", str(rule.id), why[1]))
            else:
                rules[rule.id] = rule
    cause = next((r for r in refused if _denies(command.rules[int(r.path[6 : r.path.index("]")])])), None)
    if cause:
        named = {refusal.path.partition(".")[0] for refusal in refused}
        for index, rule in enumerate(command.rules):
            if _denies(rule) and f"rules[{index}]" not in named and rules.get(rule.id) != bag.rules.get(rule.id):
                why = f"rules that deny stand or fall together, and {cause.path} is refused"
                refused.append(Refusal(f"rules[{index}]", str(rule.id), why))
        whole = {rule.id for rule in command.rules if _denies(rule)}
        rules = {k: v for k, v in rules.items() if k not in whole} | {k: bag.rules[k] for k in whole if k in bag.rules}
    return Merged(Firewall(rules=rules), tuple(refused))


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
    if rule.src_port_range and rule.src_port_range[0] > rule.src_port_range[-1]:
        return "src_port_range", f"{list(rule.src_port_range)} does not go upwards"
    return None


def contribute(bag: Firewall, router: Router) -> Iterator[Claim]:
    """Entries of the sets by which connections are judged."""
    if router.boot.type != "router":
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
