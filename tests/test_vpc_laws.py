"""The laws of the house, tried on a VPC router: four tiers, two kinds of outer nics, ACLs and routes, in any order."""

import re
from collections.abc import Iterator, Sequence
from functools import reduce
from ipaddress import ip_network
from itertools import combinations
from typing import Any

import msgspec
import pytest
from hypothesis import example, given
from hypothesis import strategies as st
from msgspec.structs import replace

from counts import examples
from fake_machine import FakeMachine
from holdfast.config import EMPTY, REFUSED, Config, Refused, decode, dump, load, merge
from holdfast.converge import converge, observe, plan
from holdfast.desired import Desired, desired
from holdfast.errors import Rejected
from holdfast.features.acl import Acls
from holdfast.l2tp import Sessions
from holdfast.router import Facts, Nic, Router
from holdfast.shared import Tiers
from holdfast.state import (
    Address,
    Elements,
    File,
    Flows,
    Leases,
    Link,
    PolicyRule,
    Resource,
    Route,
    Ruleset,
    State,
    Sysctl,
    Unit,
)
from holdfast.swanctl import Connection
from holdfast.usage import Usage

CONTROL, PUBLIC = "0e:00:a9:2c:00:02", "1e:00:cb:00:71:32"
PUBLIC_2, PRIVATE = "06:00:c6:33:64:14", "1e:01:ac:1f:32:01"
TIERS = {n: f"02:00:2c:{n:02x}:00:14" for n in (1, 2, 3, 4)}
PLUGGED = (PUBLIC, *TIERS.values(), PRIVATE, PUBLIC_2)
Message = dict[str, Any]
NEWER = {"delete_from_processed_cache": False}
LINE = {
    "vpccidr": "10.44.0.0/16", "domain": "vpc44.example", "dns1": "192.0.2.53", "name": "r-44-VM",
    "eth0ip": "169.254.44.2", "eth0mask": "255.255.0.0", "type": "vpcrouter", "disable_rp_filter": "true",
    "source_nat_ip": "203.0.113.50",
}  # fmt: skip
BOOT: Message = {"type": "cmdline", "cmd_line": LINE}

bounded = examples(60)


def plugged(macs: Sequence[str]) -> Facts:
    return Facts(tuple(Nic(mac, f"eth{at}") for at, mac in enumerate((CONTROL, *macs))))


FACTS = plugged(PLUGGED)
LATE = plugged([mac for mac in PLUGGED if mac not in (TIERS[2], PRIVATE)])
"""A machine on which two of the nics have not arrived."""


def take(config: Config, message: Message, facts: Facts = FACTS) -> Config:
    try:
        return merge(config, decode(msgspec.json.encode(message)), facts).config
    except Rejected:
        return config


def bags(messages: Sequence[Message], facts: Facts = FACTS) -> Config:
    return reduce(lambda config, message: take(config, message, facts), (BOOT, HOME, *messages), EMPTY)


def meaning(messages: Sequence[Message], facts: Facts = FACTS) -> Desired:
    return desired(bags(messages, facts), facts)


# The pools.  What a message says of device numbers is made up: only MACs are to be believed.


def address(ip: str, mac: str, length: str, gateway: str, *, add: bool = True, **more: object) -> Message:
    unit = {
        "public_ip": ip, "add": add, "vif_mac_address": mac, "netmask": length, "gateway": gateway, "nw_type": "Public",
        "source_nat": False, "nic_dev_id": 3, **more,
    }  # fmt: skip
    return {"type": "ips", "ip_address": [unit], **NEWER}


HOME = address("203.0.113.50", PUBLIC, "255.255.255.0", "203.0.113.1", source_nat=True)


def outer(last: int, *, add: bool = True, far: bool = False) -> Message:
    if far:
        return address(f"198.51.100.{last}", PUBLIC_2, "255.255.255.192", "198.51.100.1", add=add)
    return address(f"203.0.113.{last}", PUBLIC, "255.255.255.0", "203.0.113.1", add=add)


def private(*, add: bool = True, nat: bool = False) -> Message:
    more = {"is_private_gateway": True, "source_nat": nat}
    return address("172.31.50.10", PRIVATE, "255.255.255.0", "172.31.50.1", add=add, **more)


def tier(  # noqa: PLR0913 what a tier is made of
    n: int, *, add: bool = True, net: int = 0, own: int = 1, mtu: int = 1500, dns: str = "192.0.2.53", at: int = 2
) -> Message:
    prefix = f"10.44.{net or n}"
    return {
        "type": "guestnetwork", "add": add, "mac_address": TIERS[n], "device": f"eth{at}", "network_id": 430 + n,
        "router_guest_ip": f"{prefix}.{own}", "router_guest_netmask": "255.255.255.0", "cidr": "24", "dns": dns,
        "router_guest_gateway": f"{prefix}.1", "mtu": mtu, "is_vr_guest_gateway": True, **NEWER,
    }  # fmt: skip


def acl(n: int, ingress: Sequence[Message] = (), egress: Sequence[Message] = (), *, at: int = 2) -> Message:
    mac = TIERS.get(n, PRIVATE)
    return {
        "type": "networkacl", "device": f"eth{at}", "mac_address": mac, "private_gateway_acl": mac == PRIVATE,
        "nic_ip": "10.44.0.1", "nic_netmask": "24", "ingress_rules": ingress, "egress_rules": egress, **NEWER,
    }  # fmt: skip


def route(target: str, gateway: str) -> Message:
    return {"revoke": False, "network": target, "gateway": gateway}


def routes(*items: Message) -> Message:
    return {"type": "staticroutes", "routes": items, **NEWER}


def vm(n: int, last: int, *, remove: bool = False) -> Message:
    return {
        "type": "dhcpentry", "default_entry": True, "remove": remove, "host_name": f"vm{n}-{last}",
        "mac_address": f"02:00:2c:{n:02x}:01:{last:02x}", "ipv4_address": f"10.44.{n}.{last}", **NEWER,
    }  # fmt: skip


def static(last: int, n: int, *, revoke: bool = False) -> Message:
    item = {"source_ip_address": f"203.0.113.{last}", "destination_ip_address": f"10.44.{n}.11", "revoke": revoke}
    return {"type": "staticnatrules", "rules": [{**item, "source_port_range": "0:0"}], **NEWER}


def forward(port: int, n: int, *, revoke: bool = False) -> Message:
    item = {"source_ip_address": "203.0.113.51", "destination_ip_address": f"10.44.{n}.11", "protocol": "tcp"}
    where = {"source_port_range": f"{port}:{port}", "destination_port_range": "80:80", "source_cidr_list": ""}
    return {"type": "forwardrules", "rules": [{**item, **where, "revoke": revoke}], **NEWER}


flags = st.booleans()
numbers = st.integers(1, 4)
devices = st.integers(0, 8)
CIDRS = ["0.0.0.0/0", "192.0.2.0/24", "192.0.2.128/25", "10.44.1.0/24,2001:db8::/32", "10.44.0.0/16,192.0.2.130/32"]
ports = st.tuples(st.integers(78, 84), st.integers(0, 4)).map(lambda p: {"first_port": p[0], "last_port": p[0] + p[1]})
icmps = st.builds(lambda kind, code: {"icmp_type": kind, "icmp_code": code}, st.sampled_from([-1, 0, 8]), st.just(-1))
shapes: st.SearchStrategy[Message] = st.one_of(
    st.builds(lambda name, more: {"type": name, **more}, st.sampled_from(["tcp", "udp"]), ports),
    icmps.map(lambda more: {"type": "icmp", **more}),
    st.sampled_from([{"type": "all"}, {"type": "protocol", "protocol": 47}, {"type": "protocol", "protocol": 6}]),
)
rules: st.SearchStrategy[Message] = st.builds(
    lambda shape, cidr, allowed: {**shape, "cidr": cidr, "allowed": allowed}, shapes, st.sampled_from(CIDRS), flags
)
lists = st.lists(rules, max_size=4)
ROUTES = (
    route("192.168.100.0/24", "172.31.50.1"), route("192.168.0.0/16", "172.31.50.1"),
    route("192.168.100.0/24", "10.44.2.250"), route("192.168.101.7/32", "10.44.1.250"),
    route("0.0.0.0/0", "172.31.50.1"), route("10.44.3.0/24", "172.31.50.1"), route("192.168.7.0/24", "10.44.1.5"),
)  # fmt: skip
tiers = st.builds(
    tier, numbers, add=flags, net=st.sampled_from([0, 0, 0, 1, 2]), own=st.sampled_from([1, 5]),
    mtu=st.sampled_from([1500, 1400, 1]), dns=st.sampled_from(["192.0.2.53", "192.0.2.54,192.0.2.53", "word"]),
    at=devices,
)  # fmt: skip
good_tiers = st.builds(tier, numbers, own=st.sampled_from([1, 5]), mtu=st.sampled_from([1500, 1400]), at=devices)
acls = st.builds(acl, st.integers(1, 5), lists, lists, at=devices)
commands = st.one_of(
    tiers, tiers, acls, acls,
    st.builds(private, add=flags, nat=flags),
    st.builds(outer, st.integers(51, 53), add=flags, far=flags),
    st.lists(st.sampled_from(ROUTES), max_size=4).map(lambda items: routes(*items)),
    st.builds(vm, numbers, st.integers(11, 12), remove=flags),
    st.builds(static, st.integers(52, 53), numbers, revoke=flags),
    st.builds(forward, st.integers(80, 81), numbers, revoke=flags),
)  # fmt: skip
sequences = st.lists(commands, max_size=14)
machines = st.sampled_from([FACTS, LATE])


@bounded
@given(sequences, machines)
@example([tier(3), tier(1, own=5), private(), routes(*ROUTES)], FACTS)
@example([private(), routes(*ROUTES), tier(3), tier(1), tier(1, own=5)], FACTS)
def test_the_machine_forgets_the_path(messages: list[Message], facts: Facts) -> None:
    """Step by step, or at once from bags that were read from the disk: the machine ends the same."""
    machine = FakeMachine(facts.nics)
    at = bags((), facts)
    for message in (None, *messages):
        at = take(at, message, facts) if message else at
        assert converge(machine.drivers, desired(at, facts).state).left == []
    wanted = desired(at, facts).state
    assert plan(machine.drivers, wanted) == []

    fresh = FakeMachine(facts.nics)
    converge(fresh.drivers, desired(load(dump(at)), facts).state)

    assert observe(fresh.drivers, wanted) == observe(machine.drivers, wanted) == wanted


@bounded
@given(sequences, machines)
def test_equal_bags_are_equal_machines_without_conflicts(messages: list[Message], facts: Facts) -> None:
    config = bags(messages, facts)
    shuffled = {name: _backwards(bag) for name, bag in config.items()}
    one, other = desired(config, facts), desired(shuffled, facts)

    assert shuffled == config
    assert one.conflicts == other.conflicts == ()
    assert one.state == other.state


def _backwards(bag: Any) -> Any:
    fields = {name: getattr(bag, name) for name in bag.__struct_fields__}
    return replace(bag, **{name: dict(reversed(v.items())) for name, v in fields.items() if isinstance(v, dict)})


@bounded
@given(sequences, machines)
def test_a_repeat_changes_nothing(messages: list[Message], facts: Facts) -> None:
    config = bags(messages, facts)
    for message in messages[-1:]:
        again = take(config, message, facts)
        assert dump(again) == dump(config)  # byte for byte: the order of entries is kept too
        assert desired(again, facts) == desired(config, facts)


def revoked(message: Message) -> Message:
    """The command that takes back what this one added."""
    match message["type"]:
        case "ips":
            return {**message, "ip_address": [{**unit, "add": False} for unit in message["ip_address"]]}
        case "guestnetwork":
            return {**message, "add": False}
        case "networkacl":
            return {**message, "ingress_rules": [], "egress_rules": []}
        case "staticroutes":
            return {**message, "routes": [{**item, "revoke": True} for item in message["routes"]]}
        case "dhcpentry":
            return {**message, "remove": True}
    return {**message, "rules": [{**item, "revoke": True} for item in message["rules"]]}


@bounded
@given(sequences, machines, st.randoms(use_true_random=False))
def test_removing_everything_returns_to_the_state_before(messages: list[Message], facts: Facts, random: Any) -> None:
    takers = [revoked(message) for message in messages]
    random.shuffle(takers)
    after = meaning([*messages, *takers], facts)

    assert after.state == meaning((), facts).state
    assert after.pending == ()


@bounded
@given(sequences, numbers)
def test_a_tier_that_is_added_again_inherits_nothing(messages: list[Message], n: int) -> None:
    """Whatever was before: nothing of it belongs to the network any more when its tier has gone."""
    added = bags([*messages, tier(n)])
    if TIERS[n] not in added["guestnetwork"].tiers:
        return  # refused: another tier has the network
    config = take(added, tier(n, add=False))

    assert TIERS[n] not in {*config["guestnetwork"].tiers, *config["networkacl"].acls}
    assert [host for host in config["dhcpentry"].hosts.values() if host.address.startswith(f"10.44.{n}.")] == []


def _subject(message: Message) -> tuple[object, ...]:
    unit = next(iter(message.get("ip_address") or message.get("rules") or ()), message)
    names = ("mac_address", "public_ip", "source_ip_address", "source_port_range")
    return message["type"], *(unit.get(name) for name in names)


independent_commands = st.one_of(
    good_tiers,
    good_tiers,
    acls,
    st.builds(private, nat=flags),
    st.builds(outer, st.integers(51, 53), far=flags),
    st.lists(st.sampled_from(ROUTES[:4]), max_size=3).map(lambda items: routes(*items)),
    st.builds(vm, numbers, st.integers(11, 12)),
    st.builds(static, st.integers(52, 53), numbers),
    st.builds(forward, st.integers(80, 81), numbers),
)


@bounded
@given(st.lists(independent_commands, max_size=12), st.randoms(use_true_random=False))
def test_independent_commands_may_come_in_any_order(messages: list[Message], random: Any) -> None:
    independent = list({_subject(message): message for message in messages}.values())
    shuffled = list(independent)
    random.shuffle(shuffled)

    # Two static NATs of one VM contradict each other, and the second one is refused.
    one, other = meaning(independent), meaning(shuffled)
    assert len(other.conflicts) == len(one.conflicts)
    if not one.conflicts:
        assert other.state == one.state


# Elements of the sets in which the kernel finds partial overlaps only sometimes.


def spans(field: str) -> tuple[int, int] | str:
    """A field as an interval of numbers; a word stays a word."""
    if "/" in field or field.count(".") == 3:
        whole = ip_network(field)
        return int(whole[0]), int(whole[-1])
    first, _, last = field.partition("-")
    return (int(first), int(last or first)) if first.isdigit() else field


def overlap(one: str, other: str) -> bool:
    for a, b in zip(map(spans, one.split(" . ")), map(spans, other.split(" . ")), strict=True):
        if isinstance(a, str) or isinstance(b, str):
            if a != b:
                return False
        elif a[1] < b[0] or b[1] < a[0]:
            return False
    return True


def interval_sets(state: State) -> Iterator[Elements]:
    text = next(resource.text for resource in state.values() if isinstance(resource, Ruleset))
    names = re.findall(r"^\t(?:set|map) (\w+) \{ .*flags interval", text, re.MULTILINE)
    assert {"forwarded", "guest_source"} <= {*names}
    for name in names:
        found = state["Elements", name]
        assert isinstance(found, Elements)
        yield found


@bounded
@given(sequences)
def test_no_two_elements_of_a_set_overlap(messages: list[Message]) -> None:
    for elements in interval_sets(meaning(messages).state):
        assert [pair for pair in combinations(elements.entries, 2) if overlap(*pair)] == [], elements.set


# Nothing of one nic under another, however they are numbered.


class Renaming:
    """A state in which every nic is called by its MAC, and every number that is made from a nic's number too."""

    def __init__(self, facts: Facts) -> None:
        self.facts = facts

    def of(self, state: State) -> set[object]:
        return {self.one(resource) for resource in state.values()}

    def one(self, resource: Resource) -> object:  # noqa: C901, PLR0911 one for each kind
        match resource:
            case Link() | Address() | Sysctl():
                return self.text(repr(resource))
            case Route():
                return self.text(repr(replace(resource, table=0))), self.number(resource.table, 100)
            case PolicyRule():
                base = resource.priority // 100 * 100
                plain = repr(replace(resource, priority=base, table=0))
                return plain, self.number(resource.priority, base), self.number(resource.table, 100)
            case Elements():
                lines = sorted(self.text(f"{key} : {value}") for key, value in resource.entries.items())
                return self.text(resource.set), *lines
            case Ruleset():
                return self.lines(resource.text)
            case File():
                tables = re.sub(r"^10(\d)\tTable_eth\1$", r"Table_eth\1", resource.text, flags=re.MULTILINE)
                return repr(replace(resource, text="")), self.lines(tables)
            case Unit():
                return replace(resource, restart="", reload="")
            case Connection() | Sessions():
                return resource
            case Usage():
                counted = sorted(self.text(repr(one)) for one in resource.nics)
                return repr(resource.lasting), *counted, *sorted(self.text(f'"{name}"') for name in resource.inside)
            case Leases():
                served = sorted((net, self.text(device), server) for net, device, server in resource.networks)
                return repr(replace(resource, networks=())), *served
        assert isinstance(resource, Flows)
        return resource

    def text(self, text: str) -> str:
        return re.sub(r"eth\d+", lambda found: self.facts.mac(found[0]), text)

    def lines(self, text: str) -> tuple[str, ...]:
        return tuple(sorted(self.text(text).splitlines()))

    def number(self, value: int, base: int) -> str:
        return str(value) if value == 254 else self.facts.mac(f"eth{value - base}")


@bounded
@given(sequences, st.permutations(PLUGGED), st.permutations(PLUGGED))
def test_a_renumbered_machine_is_the_same_machine(messages: list[Message], before: list[str], after: list[str]) -> None:
    """The same messages to nics that were plugged in another order, and the same bags after a renumbering."""
    one, other = plugged(before), plugged(after)
    config = bags(messages, one)
    unnamed = {REFUSED: Refused()}  # the words of a refusal name nics as they were called then

    assert {**bags(messages, other), **unnamed} == {**config, **unnamed}
    assert Renaming(other).of(desired(config, other).state) == Renaming(one).of(desired(config, one).state)


def test_a_renumbering_that_mixes_nics_up_would_be_seen() -> None:
    """What the law above leans on: two tiers with each other's ACL are not the same machine."""
    here, there = [tier(1), tier(2), acl(1, [RULE])], [tier(1), tier(2), acl(2, [RULE])]

    assert Renaming(FACTS).of(meaning(here).state) != Renaming(FACTS).of(meaning(there).state)


RULE = {"type": "tcp", "first_port": 80, "last_port": 80, "cidr": "0.0.0.0/0", "allowed": True}


@bounded
@given(sequences)
def test_no_nic_has_anything_but_its_own(messages: list[Message]) -> None:
    """Each tier's name in the firewall holds what that tier alone would have had there."""
    config = bags(messages)
    router = Router(config, FACTS)
    state = desired(config, FACTS).state
    for nic in router.tiers:
        others = {name: bag for name, bag in config.items() if name not in ("guestnetwork", "networkacl")}
        acls_of_it = Acls(acls={n: held for n, held in config["networkacl"].acls.items() if n == nic})
        alone = {**others, "guestnetwork": Tiers(tiers={nic: router.tiers[nic]}), "networkacl": acls_of_it}
        device = FACTS.device(nic)
        assert _of(device, desired(alone, FACTS).state) == _of(device, state)


def _of(device: str, state: State) -> dict[str, object]:
    """Links, addresses and the ACL of one nic."""
    found: dict[str, object] = {}
    for key, resource in state.items():
        if isinstance(resource, Link | Address) and resource.device == device:
            found[" ".join(key)] = resource
        if isinstance(resource, Elements) and (f"_{device}_" in resource.set or resource.set.startswith("acl_")):
            own = f"_{device}_" in resource.set
            found[resource.set] = {k: v for k, v in resource.entries.items() if own or f'"{device}"' in k}
    return {name: held for name, held in found.items() if held}


@pytest.mark.parametrize("facts", [FACTS, LATE])
def test_the_pools_reach_everything(facts: Facts) -> None:
    """A law over messages that are all refused would prove nothing."""
    story = [tier(n) for n in TIERS] + [private(), outer(51), outer(52), outer(51, far=True), routes(*ROUTES[:2])]
    story += [acl(n, [RULE], [RULE]) for n in range(1, 6)] + [vm(1, 11), static(52, 1), forward(80, 3)]
    config = bags(story, facts)

    assert [len(getattr(config[name], field)) for name, field in SIZES] == [4, 5, 2, 5, 1]
    waiting = sorted({claim.origin.partition("/")[0] for claim in desired(config, facts).pending})
    assert waiting == ([] if facts == FACTS else ["guestnetwork", "ips", "networkacl", "staticroutes"])


SIZES = (
    ("guestnetwork", "tiers"), ("networkacl", "acls"), ("staticroutes", "routes"), ("ips", "addresses"),
    ("dhcpentry", "hosts"),
)  # fmt: skip
