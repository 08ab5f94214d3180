"""Network ACLs: every spelling of them is read as it was meant, and what is compiled decides as the list does."""

import json
import random
import time
from collections import defaultdict
from ipaddress import IPv4Address, IPv4Network
from itertools import pairwise
from typing import Any, NamedTuple

import pytest
from hypothesis import given
from hypothesis import strategies as st

from counts import examples
from holdfast import intervals
from holdfast.config import EMPTY, Config, decode
from holdfast.errors import Rejected
from holdfast.feature import Gone, Merged, Pending
from holdfast.features import acl as feature
from holdfast.features.acl import ANYWHERE, Acl, AclRule, Acls, compiled, contribute, forget, merge
from holdfast.interface import Interface
from holdfast.intervals import Guarded, levels
from holdfast.nft import Element
from holdfast.program import assemble, revokes
from holdfast.router import Facts, Nic, Router
from holdfast.shared import BootLine, Tier, Tiers
from holdfast.state import Ruleset

MAC, OTHER = "02:00:6e:01:00:14", "1e:01:06:45:00:01"
FACE = Interface(MAC, "eth2", "tier", (("10.10.1.1", 24),))
VPC: Config = {
    **EMPTY,
    "cmdline": BootLine(type="vpcrouter"),
    "guestnetwork": Tiers(tiers={MAC: Tier(address="10.10.1.1", prefix=24)}),
}


def router(*nics: Nic, **bags: Any) -> Router:
    return Router({**VPC, **bags}, Facts(nics=nics or (Nic(MAC, "eth2"),)))


def told(ingress: list[dict[str, Any]], egress: list[dict[str, Any]] | None = None, **more: Any) -> Any:
    message = {"type": "networkacl", "device": "eth2", "mac_address": MAC, "nic_ip": "10.10.1.1", "nic_netmask": "24"}
    rules = {"private_gateway_acl": False, "ingress_rules": ingress, "egress_rules": egress or []}
    return decode(json.dumps({**message, **rules, **more}).encode()).command


def merged(ingress: list[dict[str, Any]], egress: list[dict[str, Any]] | None = None, **more: Any) -> Merged[Acls]:
    bag, where = more.pop("bag", Acls()), more.pop("router", None) or router()
    return merge(bag, told(ingress, egress, **more), where)


def rule(cidr: str = "0.0.0.0/0", kind: str = "all", *, allowed: bool = True, **more: Any) -> dict[str, Any]:
    return {"type": kind, "cidr": cidr, "allowed": allowed, **more}


NEWER: dict[str, Any] = {"delete_from_processed_cache": False}


@pytest.mark.parametrize(
    ("sent", "kept"),
    [
        (rule(kind="tcp", first_port=0, last_port=0), AclRule(allowed=True, cidrs=("0.0.0.0/0",), protocol="tcp")),
        (rule(kind="UDP"), AclRule(allowed=True, cidrs=("0.0.0.0/0",), protocol="udp")),
        (rule(kind="tcp", first_port=-1, last_port=-1), AclRule(allowed=True, cidrs=("0.0.0.0/0",), protocol="tcp")),
        (
            rule(kind="tcp", first_port=0, last_port=80),
            AclRule(allowed=True, cidrs=("0.0.0.0/0",), protocol="tcp", last=80),
        ),
        (
            rule(kind="TCP", first_port=22),
            AclRule(allowed=True, cidrs=("0.0.0.0/0",), protocol="tcp", first=22, last=22),
        ),
        (
            rule("198.18.0.0/15,192.0.2.0/24", allowed=False),
            AclRule(allowed=False, cidrs=("198.18.0.0/15", "192.0.2.0/24")),
        ),
        (rule("198.18.0.0/15-192.0.2.1/32"), AclRule(allowed=True, cidrs=("198.18.0.0/15", "192.0.2.1"))),
        (rule("0.0.0.0/0,::/0"), AclRule(allowed=True, cidrs=ANYWHERE)),
        (rule("2001:DB8:0::/48,10.0.0.1"), AclRule(allowed=True, cidrs=("2001:db8::/48", "10.0.0.1"))),
        (
            rule(kind="icmp", icmp_type=8, icmp_code=-1),
            AclRule(allowed=True, cidrs=("0.0.0.0/0",), protocol="icmp", icmp_type=8),
        ),
        (rule(kind="icmp", icmp_type=-1, icmp_code=-1), AclRule(allowed=True, cidrs=("0.0.0.0/0",), protocol="icmp")),
        (
            rule(kind="ICMP", icmp_type=0, icmp_code=0, allowed=False),
            AclRule(allowed=False, cidrs=("0.0.0.0/0",), protocol="icmp"),
        ),
        (
            rule(kind="ICMP", icmp_type=0, icmp_code=0),
            AclRule(allowed=True, cidrs=("0.0.0.0/0",), protocol="icmp", icmp_type=0, icmp_code=0),
        ),
        (rule(kind="protocol", protocol=47), AclRule(allowed=True, cidrs=("0.0.0.0/0",), protocol="47")),
        (
            rule(kind="protocol", protocol=6, first_port=1),
            AclRule(allowed=True, cidrs=("0.0.0.0/0",), protocol="tcp"),
        ),
        (rule(kind="protocol", protocol=17), AclRule(allowed=True, cidrs=("0.0.0.0/0",), protocol="udp")),
        (rule(kind="protocol", protocol=1), AclRule(allowed=True, cidrs=("0.0.0.0/0",), protocol="icmp")),
        (rule(kind="51"), AclRule(allowed=True, cidrs=("0.0.0.0/0",), protocol="51")),
    ],
)
def test_every_spelling_of_a_rule(sent: dict[str, Any], kept: AclRule) -> None:
    assert merged([sent]).bag.acls == {MAC: Acl(ingress=(kept,))}
    assert merged([], [sent]).bag.acls == {MAC: Acl(egress=(kept,))}


@pytest.mark.parametrize(
    ("sent", "path"),
    [
        (rule("10.0.0.0/8,"), "cidr"),
        (rule("anywhere"), "cidr"),
        (rule("ACCEPT"), "cidr"),
        (rule("0.0.0.0/02"), "cidr"),
        (rule("10.0.0.1/24"), "cidr"),
        (rule("2001:db8::1/64"), "cidr"),
        (rule("::/064"), "cidr"),
        (rule(""), "cidr"),
        ({"type": "all", "allowed": True}, "cidr"),
        (rule("DROP", "protocol", protocol=47), "cidr"),  # the known defect always says that it is not allowed
        (rule(kind="tcp", first_port=80, last_port=22), "first_port"),
        (rule(kind="tcp", first_port=1, last_port=65536), "first_port"),
        (rule(kind="icmp", icmp_type=256), "icmp_type"),
        (rule(kind="protocol", protocol=256), "protocol"),
        (rule(kind="protocol"), "protocol"),
        (rule(kind="tpc"), "type"),
        (rule(kind="256"), "type"),
        ({"type": "all", "cidr": "0.0.0.0/0", "allowed": "yes"}, "allowed"),
    ],
)
def test_one_bad_rule_refuses_the_acl_whole(sent: dict[str, Any], path: str) -> None:
    good = [rule(), rule(kind="tcp", first_port=22, last_port=22, allowed=False), rule()]
    with pytest.raises(Rejected) as why:
        merged([*good, sent])
    assert why.value.path == f"ingress_rules[3].{path}"
    with pytest.raises(Rejected) as why:
        merged(good, [sent])
    assert why.value.path == f"egress_rules[0].{path}"


def test_broken_protocol_entries_close_and_never_open() -> None:
    sent = [
        rule("DROP", "protocol", protocol=51, allowed=False),
        rule("ACCEPT", "protocol", protocol=47, allowed=False),
    ]
    result = merged(sent)
    assert result.bag.acls[MAC].ingress == (AclRule(allowed=False, cidrs=ANYWHERE, protocol="51"),)
    assert [warning.partition(":")[0] for warning in result.warnings] == ["ingress_rules[0]", "ingress_rules[1]"]


FIRST, SECOND = rule("10.1.0.0/16", allowed=False), rule("10.0.0.0/8")


@pytest.mark.parametrize(
    ("more", "extra", "descending", "guessed"),
    [
        (NEWER, [], False, False),
        ({"nic_ip6_cidr": "2001:db8::/64"}, [], False, False),
        ({}, [rule("10.3.0.0/16,10.4.0.0/16")], False, False),
        ({}, [rule("10.3.0.0/16-10.4.0.0/16")], True, False),
        ({}, [rule("::/0")], False, False),
        ({}, [], True, True),
        ({"bag": Acls(ascending=False)}, [], True, False),
        ({"bag": Acls(ascending=True)}, [], False, False),
    ],
)
def test_the_lowest_number_is_asked_first_in_every_dialect(
    more: dict[str, Any], extra: list[dict[str, Any]], *, descending: bool, guessed: bool
) -> None:
    result = merged([FIRST, SECOND, *extra], **more)
    allowed = [kept.allowed for kept in result.bag.acls[MAC].ingress]
    assert allowed == ([True] * (len(allowed) - 1) + [False] if descending else [False] + [True] * (len(allowed) - 1))
    assert bool(result.warnings) is guessed
    assert result.bag.ascending is (None if guessed else not descending)


def test_nothing_is_guessed_where_order_means_nothing() -> None:
    assert merged([rule(), SECOND], [rule(allowed=False)]).warnings == ()


def test_which_nic() -> None:
    elsewhere = router(Nic("02:00:00:00:00:99", "eth2"), guestnetwork=Tiers())
    assert [*merged([rule()], router=elsewhere).bag.acls] == [MAC]  # the number may be another tier's by now
    assert [*merged([rule()], router=router(Nic("02:00:00:00:00:99", "eth2"))).bag.acls] == [MAC]  # its tier is known
    assert [*merged([rule()], mac_address=MAC.upper(), device="eth7").bag.acls] == [MAC]
    assert [*merged([rule()], router=router(Nic(OTHER, "eth3"), guestnetwork=Tiers())).bag.acls] == [MAC]


def test_an_acl_goes_with_its_nic_and_is_not_kept_for_a_bare_one() -> None:
    bag = merged([rule()]).bag
    assert forget(bag, Gone(frozenset({MAC}), ())).acls == {}
    assert forget(bag, Gone(frozenset({OTHER}), ())) == bag
    assert merged([], bag=bag).bag.acls == {MAC: Acl()}
    assert merged([], bag=bag, router=router(guestnetwork=Tiers())).bag.acls == {}


def elements(acl: Acl, face: Interface = FACE, **options: bool) -> dict[str, dict[str, str]]:
    sets: defaultdict[str, dict[str, str]] = defaultdict(dict)
    for element in compiled(face, acl, **options):
        assert element.key not in sets[element.set]
        sets[element.set][element.key] = element.value
    return dict(sets)


def test_what_a_nic_contributes() -> None:
    bag = merged([rule("10.0.0.0/8", "tcp", first_port=22, last_port=23)], [rule(allowed=False)]).bag
    found = {(claim.part.set, claim.part.key) for claim in contribute(bag, router()) if isinstance(claim.part, Element)}
    assert found == {
        ("acl_device", '"eth2"'),
        ("egress_open", '"eth2"'),
        ("acl_in_eth2_0_allow_port", "10.0.0.0/8 . tcp . 22-23"),
        ("acl_out_eth2_0_deny_proto", "0.0.0.0/0 . 0-255"),
    }
    assert [*contribute(bag, router(cmdline=BootLine(type="router")))] == []
    pending = [claim.part for claim in contribute(bag, router(Nic(OTHER, "eth3")))]
    assert [type(part) for part in pending] == [Pending]
    empty = Acls(acls={MAC: Acl()})
    assert [*contribute(empty, router(Nic(OTHER, "eth3")))] == []  # what asks for nothing never waits


def test_egress_is_open_until_there_is_a_rule() -> None:
    closed = Acl(egress=(AclRule(allowed=False, cidrs=ANYWHERE),))
    assert "acl_open" in elements(Acl())
    assert "acl_open" not in elements(closed)
    assert "acl_open" in elements(closed, always_accept=True)
    assert "private_device" in elements(Acl(), Interface(OTHER, "eth6", "private", ()))


def test_one_more_rule_is_one_more_element_and_the_structure_stays() -> None:
    rules = tuple(
        AclRule(allowed=n % 3 > 0, cidrs=(f"10.{n}.0.0/16",), protocol="tcp", first=n, last=n) for n in range(60)
    )
    before = elements(Acl(ingress=rules))
    more = AclRule(allowed=True, cidrs=("192.0.2.0/24",), protocol="tcp", first=7, last=8)
    after = elements(Acl(ingress=(*rules[:30], more, *rules[30:])))
    assert structure(before) == structure(after)
    new = {(name, entry) for name, held in after.items() for entry in held if entry not in before[name]}
    assert new == {("acl_in_eth2_0_allow_port", "192.0.2.0/24 . tcp . 7-8")}


def structure(sets: dict[str, dict[str, str]]) -> str:
    return next(part.text for part in assemble([], sets) if isinstance(part, Ruleset))


def test_levels_are_asked_by_number_in_all_four_chains() -> None:
    rules = tuple(AclRule(allowed=n % 2 == 0, cidrs=("0.0.0.0/0",), protocol="tcp", last=n) for n in range(12))
    program = structure(elements(Acl(ingress=rules, egress=rules)))
    for name, field, port in (
        ("acl_in", "saddr", "dport"),
        ("acl_in_back", "daddr", "sport"),
        ("acl_out", "daddr", "dport"),
        ("acl_out_back", "saddr", "sport"),
    ):
        body = program.split(f"\tchain {name}_eth2 {{\n")[1].split("\t}\n")[0]
        asked = [line.strip() for line in body.splitlines() if "@acl_in_" in line or "@acl_out_" in line]
        side = "in" if "in" in name else "out"
        assert asked == [
            f"ip {field} . meta l4proto . th {port} @acl_{side}_eth2_{n}_{'deny' if n % 2 else 'allow'}_port "
            f"{'drop' if n % 2 else 'return'}"
            for n in range(12)
        ]


def test_a_layer_without_its_nic_is_a_bug() -> None:
    with pytest.raises(ValueError, match="no such set: acl_in_eth2_0_allow_port"):
        assemble([], {"acl_in_eth2_0_allow_port": {"x": ""}, "acl_device": {'"eth3"': ""}})


def test_what_takes_permission_away() -> None:
    grants = [revokes(f"acl_in_eth2_0_allow_{shape}", removed=True) for shape in ("port", "icmp", "proto")]
    denies = [revokes(f"acl_out_eth2_12_deny_{shape}", removed=False) for shape in ("port", "icmp", "proto")]
    assert grants == denies == [True] * 3
    assert not revokes("acl_in_eth2_0_allow_port", removed=False)
    assert not revokes("acl_in_eth2_0_deny_port", removed=True)
    assert revokes("acl_open", removed=True)


class Packet(NamedTuple):
    address: str
    protocol: int
    port: int = 0
    icmp: tuple[int, int] = (0, 0)


def reference(rules: tuple[AclRule, ...], packet: Packet) -> bool | None:
    """The list itself, read from the top."""
    for each in rules:
        if any(IPv4Address(packet.address) in IPv4Network(cidr) for cidr in each.cidrs if ":" not in cidr):
            if each.protocol == "all" or each.protocol == str(packet.protocol):
                return each.allowed
            if each.protocol == {6: "tcp", 17: "udp"}.get(packet.protocol) and each.first <= packet.port <= each.last:
                return each.allowed
            kind = [want in (-1, got) for want, got in zip((each.icmp_type, each.icmp_code), packet.icmp, strict=True)]
            if each.protocol == "icmp" and packet.protocol == 1 and all(kind):
                return each.allowed
    return None


def looked_up(sets: dict[str, dict[str, str]], packet: Packet) -> bool | None:
    """The sets, level by level; that two verdicts of one level do not meet is asserted on the way."""
    names = {6: "tcp", 17: "udp"}
    found: defaultdict[int, set[bool]] = defaultdict(set)
    for name, held in sets.items():
        if name.startswith("acl_in_eth2_"):
            *_, level, verdict, shape = name.split("_")
            shapes: dict[str, list[Any]] = {
                "port": [names.get(packet.protocol, "x"), packet.port],
                "icmp": [*packet.icmp],
                "proto": [packet.protocol],
            }
            if shape == "icmp" and packet.protocol != 1:
                continue
            if any(_within(entry.split(" . "), [packet.address, *shapes[shape]]) for entry in held):
                found[int(level)].add(verdict == "allow")
    assert all(len(verdicts) == 1 for verdicts in found.values())
    return found[min(found)].pop() if found else None


def _within(entry: list[str], fields: list[Any]) -> bool:
    if IPv4Address(fields[0]) not in IPv4Network(entry[0]):
        return False
    for text, field in zip(entry[1:], fields[1:], strict=True):
        named = {"tcp": "6", "udp": "17"}.get(text, text) if isinstance(field, int) else text
        first, _, last = named.partition("-")
        if not (text == field or (isinstance(field, int) and int(first) <= field <= int(last or first))):
            return False
    return True


ADDRESSES = ("10.0.0.0", "10.0.0.1", "10.0.1.1", "10.1.0.1", "10.128.0.0", "192.0.2.1")
CIDRS = st.builds(
    lambda address, length: str(IPv4Network(f"{address}/{length}", strict=False)).removesuffix("/32"),
    st.sampled_from(ADDRESSES),
    st.sampled_from((0, 1, 8, 9, 16, 23, 24, 31, 32)),
)
NUMBERS = st.sampled_from((0, 1, 2, 3, 7, 255, 256, 300, 65535))
PORTS = st.tuples(NUMBERS, NUMBERS).map(sorted)
ICMP = st.sampled_from((-1, 0, 3, 8))


@st.composite
def rules(draw: st.DrawFn) -> AclRule:
    first, last = draw(PORTS)
    protocol = draw(st.sampled_from(("all", "tcp", "udp", "icmp", "47", "51", "0")))
    cidrs = tuple(draw(st.lists(CIDRS | st.just("2001:db8::/32"), min_size=1, max_size=2)))
    made = AclRule(allowed=draw(st.booleans()), cidrs=cidrs, protocol=protocol)
    if protocol == "icmp":
        return AclRule(allowed=made.allowed, cidrs=cidrs, protocol="icmp", icmp_type=draw(ICMP), icmp_code=draw(ICMP))
    if protocol in ("tcp", "udp"):
        return AclRule(allowed=made.allowed, cidrs=cidrs, protocol=protocol, first=first, last=last)
    return made


PACKETS = st.builds(
    Packet,
    st.sampled_from((*ADDRESSES, "172.16.0.1")),
    st.sampled_from((1, 6, 17, 47, 51, 89)),
    NUMBERS,
    st.tuples(st.sampled_from((0, 3, 8)), st.sampled_from((0, 1, 3))),
)


def near(listed: tuple[AclRule, ...]) -> list[Packet]:
    """Packets at the corners of rules: every address that one names with everything else that one names."""
    places = [cidr.partition("/")[0] for rule in listed for cidr in rule.cidrs if ":" not in cidr]
    what = [Packet("", 89)]
    for rule in listed:
        if rule.protocol in ("tcp", "udp"):
            what += [Packet("", {"tcp": 6, "udp": 17}[rule.protocol], port) for port in (rule.first, rule.last)]
        elif rule.protocol == "icmp":
            what.append(Packet("", 1, 0, (max(rule.icmp_type, 0), max(rule.icmp_code, 0))))
        elif rule.protocol != "all":
            what.append(Packet("", int(rule.protocol)))
    return [packet._replace(address=place) for place in dict.fromkeys(places) for packet in dict.fromkeys(what)]


@examples(300)
@given(st.lists(rules(), max_size=12).map(tuple), st.lists(PACKETS, max_size=5), st.sampled_from((1, 2, 64)))
def test_what_is_compiled_decides_as_the_list_does(
    listed: tuple[AclRule, ...], packets: list[Packet], told_apart: int
) -> None:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(intervals, "_MOST_RANGES", told_apart)
        sets = elements(Acl(ingress=listed))
    for packet in (*near(listed), *packets):
        assert looked_up(sets, packet) == reference(listed, packet), packet


@given(st.lists(rules(), max_size=12))
def test_levels_are_never_more_than_runs(listed: list[AclRule]) -> None:
    runs = [0]
    for one, other in pairwise(listed):
        runs.append(runs[-1] + (one.allowed is not other.allowed))
    found = [*levels([Guarded(r.allowed, r.protocol, tuple(feature._spans(r))) for r in listed])]  # noqa: SLF001 as it is used
    assert all(level <= run for level, run in zip(found, runs, strict=False))


def test_ten_thousand_rules_take_no_longer_than_ten_times_a_thousand() -> None:
    pick = random.Random(7)  # noqa: S311 not a secret

    def seconds(count: int) -> float:
        made = tuple(
            AclRule(
                allowed=pick.random() < 0.5, cidrs=(f"10.{n // 250}.{n % 250}.0/24",), protocol="tcp", first=n, last=n
            )
            for n in range(count)
        )
        began = time.process_time()
        elements(Acl(ingress=made))
        return time.process_time() - began

    assert seconds(10_000) < 40 * seconds(1_000) + 0.5


def test_what_covers_every_protocol_stands_before_what_it_covers() -> None:
    for rule in (
        AclRule(allowed=False, cidrs=ANYWHERE, protocol="tcp", first=443, last=443),
        AclRule(allowed=False, cidrs=ANYWHERE, protocol="icmp", icmp_type=8),
        AclRule(allowed=False, cidrs=ANYWHERE, protocol="47"),
    ):
        for listed in ((AclRule(allowed=True, cidrs=ANYWHERE), rule), (rule, AclRule(allowed=True, cidrs=ANYWHERE))):
            packet = Packet("10.0.0.1", {"tcp": 6, "icmp": 1}.get(rule.protocol, 47), 443, (8, 0))
            assert looked_up(elements(Acl(ingress=listed)), packet) is listed[0].allowed


def test_rules_for_different_ports_share_a_level() -> None:
    rules = tuple(AclRule(allowed=n % 2 == 0, cidrs=ANYWHERE, protocol="tcp", first=n, last=n) for n in range(60))
    names = {name for name in elements(Acl(ingress=(*rules, AclRule(allowed=False, cidrs=ANYWHERE)))) if "_in_" in name}
    assert names == {"acl_in_eth2_0_allow_port", "acl_in_eth2_0_deny_port", "acl_in_eth2_1_deny_proto"}


def test_the_feature_is_named_as_its_message() -> None:
    assert feature.FEATURE.name == "networkacl"
