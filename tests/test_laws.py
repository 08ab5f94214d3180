"""The laws of the house, tried on random sequences of commands from small pools."""

from collections.abc import Iterator, Sequence
from functools import reduce
from ipaddress import ip_address, ip_network
from itertools import combinations, pairwise
from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from counts import examples
from fake_machine import BOOT_LINE, NICS, PUBLIC_2, FakeMachine
from holdfast.config import EMPTY, Config, decode, dump, load, merge
from holdfast.converge import converge, observe, plan
from holdfast.desired import Desired, desired
from holdfast.errors import Rejected
from holdfast.router import Facts
from holdfast.state import Elements, State

FACTS = Facts((*NICS, PUBLIC_2))
Message = dict[str, Any]

bounded = examples(80)


def take(config: Config, message: Message) -> Config:
    try:
        return merge(config, decode(msgspec.json.encode(message)), FACTS).config
    except Rejected:
        return config


def bags(messages: Sequence[Message]) -> Config:
    booted = merge(EMPTY, decode(BOOT_LINE.document), FACTS).config
    return reduce(take, messages, booted)


def meaning(messages: Sequence[Message]) -> Desired:
    return desired(bags(messages), FACTS)


# The pools: few addresses, few ports, few VMs, so that commands meet each other often.


def address(last: int, *, add: bool = True, far: bool = False, mtu: int = 0) -> Message:
    where = ("203.0.113", "129", "255.255.255.128", PUBLIC_2.mac) if far else ("198.51.100", "1", "255.255.255.0", "")
    net, gateway, mask, mac = where
    unit = {
        "public_ip": f"{net}.{last}", "add": add, "gateway": f"{net}.{gateway}", "netmask": mask, "nw_type": "Public",
        "vif_mac_address": mac or NICS[2].mac, "source_nat": last % 2 == 0, **({"mtu": mtu} if mtu else {}),
    }  # fmt: skip
    return {"type": "ips", "ip_address": [unit]}


def rule(number: int, *, revoked: bool = False, **fields: object) -> Message:
    base = {"id": number, "src_ip": "198.51.100.20", "protocol": "tcp", "revoked": revoked, "source_cidr_list": []}
    return {"type": "firewallrules", "rules": [{**base, "traffic_type": "Ingress", **fields}]}


def forward(  # noqa: PLR0913 what a port forward is made of
    first: int, length: int, vm: int, *, revoke: bool = False, shift: int = 0, sources: str = ""
) -> Message:
    item = {
        "revoke": revoke, "source_cidr_list": sources, "protocol": "tcp", "source_ip_address": "198.51.100.20",
        "source_port_range": f"{first}:{first + length}", "destination_ip_address": f"10.31.0.{vm}",
        "destination_port_range": f"{first + shift}:{first + length + shift}",
    }  # fmt: skip
    return {"type": "forwardrules", "rules": [item]}


def static(last: int, vm: int, *, revoke: bool = False) -> Message:
    item = {"source_ip_address": f"198.51.100.{last}", "destination_ip_address": f"10.31.0.{vm}"}
    return {"type": "staticnatrules", "rules": [{**item, "revoke": revoke, "source_port_range": "0:0"}]}


def vm(last: int, mac: int, *, remove: bool = False, default: bool = True) -> Message:
    nic = {"host_name": f"vm{last}", "mac_address": f"02:00:1f:00:01:{mac:02x}", "ipv4_address": f"10.31.0.{last}"}
    return {"type": "dhcpentry", "default_entry": default, "remove": remove, **nic}


flags = st.booleans()
PREFIXES = ["0.0.0.0/0", "192.0.2.0/24", "192.0.2.128/25", "192.0.2.130/32", "198.18.0.0/15"]
port_ranges = st.tuples(st.integers(78, 84), st.integers(0, 4)).map(lambda p: [p[0], p[0] + p[1]])
prefix_lists = st.lists(st.sampled_from(PREFIXES), max_size=2, unique=True)
addresses = st.builds(address, st.integers(130, 133), add=flags, far=flags)
with_mtu = st.builds(address, st.integers(130, 133), add=flags, far=flags, mtu=st.sampled_from([1400, 1300]))
ingress = st.builds(
    rule, st.integers(1, 4), revoked=flags, src_port_range=port_ranges, source_cidr_list=prefix_lists,
    protocol=st.sampled_from(["tcp", "udp"]),
)  # fmt: skip
egress = st.builds(
    rule, st.integers(11, 14), revoked=flags, src_port_range=port_ranges, traffic_type=st.just("Egress"),
    src_ip=st.just(""), source_cidr_list=st.sampled_from([["10.31.0.0/24"], ["10.31.0.8/29"], []]),
    dest_cidr_list=prefix_lists,
)  # fmt: skip
forwards = st.builds(
    forward,
    st.integers(78, 84),
    st.integers(0, 3),
    st.integers(11, 12),
    revoke=flags,
    shift=st.integers(0, 1),
    sources=prefix_lists.map(",".join),
)
statics = st.builds(static, st.integers(130, 131), st.integers(11, 12), revoke=flags)
vms = st.builds(vm, st.integers(11, 13), st.integers(11, 13), remove=flags, default=flags)
commands = st.one_of(addresses, with_mtu, ingress, egress, forwards, statics, vms)
sequences = st.lists(commands, max_size=12)


@bounded
@given(sequences)
def test_the_machine_forgets_the_path(messages: list[Message]) -> None:
    """Step by step, or at once from bags that were read from the disk: the machine ends the same."""
    config = bags(messages)
    wanted = desired(config, FACTS).state
    machine = FakeMachine(FACTS.nics)
    at = bags(())
    converge(machine.drivers, desired(at, FACTS).state)
    for message in messages:
        at = take(at, message)
        converge(machine.drivers, desired(at, FACTS).state)
    assert plan(machine.drivers, wanted) == []

    fresh = FakeMachine(FACTS.nics)
    converge(fresh.drivers, desired(load(dump(config)), FACTS).state)

    assert observe(fresh.drivers, wanted) == observe(machine.drivers, wanted) == wanted


@bounded
@given(sequences)
def test_equal_bags_are_equal_machines(messages: list[Message]) -> None:
    """Whatever the order in which the entries of a bag came: two bags that compare equal mean the same."""
    config = bags(messages)
    shuffled = {name: _backwards(bag) for name, bag in config.items()}

    assert shuffled == config
    if not desired(config, FACTS).conflicts:
        assert desired(shuffled, FACTS).state == desired(config, FACTS).state


def _backwards(bag: Any) -> Any:
    fields = {name: getattr(bag, name) for name in bag.__struct_fields__}
    turned = {name: dict(reversed(v.items())) for name, v in fields.items() if isinstance(v, dict)}
    return msgspec.structs.replace(bag, **turned)


def test_of_two_mtus_the_newer_counts_for_the_nic_and_that_is_in_the_bag() -> None:
    one, other = address(130, mtu=1400), address(131, mtu=1300)

    assert [meaning(way).state["Link", "eth2"].mtu for way in ((one, other), (other, one))] == [1300, 1400]  # type: ignore[attr-defined]
    assert bags((one, other)) != bags((other, one))
    assert bags((one, other, other)) == bags((one, other))


def test_equal_bags_are_equal_machines_even_where_gateways_differ() -> None:
    """Two ranges of one public network, each with a gateway: which one the policy table takes must not be luck."""
    one, other = address(130, far=True), address(131, far=True)
    other["ip_address"][0]["gateway"] = "203.0.113.140"

    assert bags((one, other)) == bags((other, one))
    assert meaning((one, other)).state == meaning((other, one)).state


@bounded
@given(sequences)
def test_a_repeat_changes_nothing(messages: list[Message]) -> None:
    config = bags(messages)
    for message in messages[-1:]:
        again = take(config, message)
        assert again == config
        assert desired(again, FACTS) == desired(config, FACTS)


def revoked(message: Message) -> Message:
    """The command that takes back what this one added."""
    fields = {"ips": {"add": False}, "firewallrules": {"revoked": True}}.get(message["type"], {"revoke": True})
    if message["type"] == "dhcpentry":
        return {**message, "remove": True}
    units = "ip_address" if message["type"] == "ips" else "rules"
    return {**message, units: [{**unit, **fields} for unit in message[units]]}


@bounded
@given(sequences, st.randoms(use_true_random=False))
def test_revoking_everything_returns_to_the_state_before(messages: list[Message], random: Any) -> None:
    takers = [revoked(message) for message in messages]
    random.shuffle(takers)

    assert meaning([*messages, *takers]).state == meaning(()).state


@bounded
@given(st.lists(st.one_of(addresses, ingress, egress, vms, statics), max_size=8), st.randoms(use_true_random=False))
def test_independent_commands_may_come_in_any_order(messages: list[Message], random: Any) -> None:
    independent = list({_subject(message): message for message in messages}.values())
    if len({m["ipv4_address"] for m in independent if m["type"] == "dhcpentry"}) < sum(
        m["type"] == "dhcpentry" for m in independent
    ):
        return  # an address goes to whoever was named last: these are not independent
    shuffled = list(independent)
    random.shuffle(shuffled)

    if not meaning(independent).conflicts:
        assert meaning(shuffled).state == meaning(independent).state


def _subject(message: Message) -> tuple[object, ...]:
    unit = message if message["type"] == "dhcpentry" else (message.get("ip_address") or message["rules"])[0]
    return message["type"], *(unit.get(name) for name in ("mac_address", "public_ip", "id", "source_ip_address"))


# Verdicts: what the elements say of a connection, against what the rules say.


def entries(state: State, name: str) -> dict[str, str]:
    found = state.get(("Elements", name))
    return found.entries if isinstance(found, Elements) else {}


def covers(field: str, value: object) -> bool:
    """Whether one field of an element holds a value: a network, a range, or the thing itself."""
    if isinstance(value, int):
        first, _, last = field.partition("-")
        return int(first) <= value <= int(last or first)
    if "/" in field or field.count(".") == 3:
        return ip_address(str(value)) in ip_network(field)
    return field == value


def matches(elements: dict[str, str], *packet: object) -> bool:
    return any(all(map(covers, key.split(" . "), packet)) for key in elements)


def allowed(rules: Sequence[Message], protocol: str, source: str, port: int) -> bool:
    """The reference: the last form of each rule, in ten lines."""
    last = {m["rules"][0]["id"]: m["rules"][0] for m in rules}
    return any(
        not one["revoked"]
        and one["protocol"] == protocol
        and one["src_port_range"][0] <= port <= one["src_port_range"][1]
        and any(ip_address(source) in ip_network(cidr) for cidr in one["source_cidr_list"] or ["0.0.0.0/0"])
        for one in last.values()
    )


SOURCES = ["192.0.2.1", "192.0.2.130", "192.0.2.131", "198.18.5.5", "203.0.113.9"]


@bounded
@given(st.lists(ingress, max_size=8))
def test_elements_and_rules_give_the_same_verdict(rules: list[Message]) -> None:
    elements = entries(meaning(rules).state, "ingress_port")
    for protocol in ("tcp", "udp"):
        for source in SOURCES:
            for port in range(76, 91):
                said = matches(elements, "198.51.100.20", protocol, source, port)
                assert said == allowed(rules, protocol, source, port), (protocol, source, port)


def spans(field: str) -> tuple[int, int] | str:
    """A field as an interval of numbers; a word stays a word."""
    if "/" in field or field.count(".") == 3:
        network = ip_network(field)
        return int(network[0]), int(network[-1])
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


INTERVALS = (
    *("ingress_port", "ingress_icmp", "ingress_any", "range_forward"),
    *("forwarded", "forward_target", "forward_restricted", "forward_source"),
)


def interval_sets(state: State) -> Iterator[dict[str, str]]:
    for key in state:
        if key[0] == "Elements" and (key[1] in INTERVALS or key[1].startswith("egress_")):
            yield entries(state, key[1])


@bounded
@given(sequences)
def test_no_two_elements_of_a_set_overlap(messages: list[Message]) -> None:
    for elements in interval_sets(meaning(messages).state):
        assert [pair for pair in combinations(elements, 2) if overlap(*pair)] == []


@pytest.mark.parametrize(("kind", "code"), [(8, 0), (8, -1), (-1, -1), (-1, 0), (None, None)])
def test_icmp_rules_never_overlap_and_say_what_they_mean(kind: int | None, code: int | None) -> None:
    first = rule(1, protocol="icmp", icmp_type=3, icmp_code=-1)
    second = rule(2, protocol="icmp", icmp_type=kind, icmp_code=code)
    elements = entries(meaning((first, second)).state, "ingress_icmp")

    assert [pair for pair in combinations(elements, 2) if overlap(*pair)] == []
    for there, what in ((t, c) for t in (0, 3, 8, 255) for c in (0, 1, 255)):
        asked = (kind in (None, -1, there) and code in (None, -1, what)) or there == 3
        assert matches(elements, "198.51.100.20", "192.0.2.1", there, what) == asked


def test_generations_of_one_story_are_all_different() -> None:
    """What the law of the path leans on: commands that matter do change the bags."""
    story = [bags([address(130), rule(1, src_port_range=[22, 22]), vm(11, 11)][:n]) for n in range(4)]

    assert all(before != after for before, after in pairwise(story))
