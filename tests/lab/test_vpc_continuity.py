"""Nothing is lost and nothing leaks in any tier while one tier's long ACL changes again and again: packet by packet."""

import os
import statistics
from collections.abc import Callable, Iterator

import pytest
from isolated import forward, static
from tiers import (
    APP,
    APP1,
    BEHIND,
    BEHIND_NET,
    CIDR,
    FAR,
    NEAR,
    PEER,
    PRIVATE,
    WEB,
    WEB1,
    Message,
    Vpc,
    deny,
    route,
    rule,
    vpc,
)

from holdfast.lab.probe import Flow

pytestmark = [pytest.mark.lab, pytest.mark.alone]

CHANGES = 100 if os.environ.get("HOLDFAST_SOAK") else 20
RULES = 1000
FORWARDS, STATIC = "203.0.113.62", "198.51.100.61"


def other(number: int) -> str:
    """A network that none of the measured flows has to do with."""
    return f"198.{18 + number // 65536 % 2}.{number // 256 % 256}.{number % 256}/32"


def filling(count: int) -> list[Message]:
    """Rules of every kind about others: both verdicts, ports and ranges, ICMP, protocols, several networks in one."""
    rules = []
    for number in range(count):
        mine, next_one, port = other(2 * number), other(2 * number + 1), 1000 + 7 * number % 50_000
        verdict = number % 9 != 4
        rules.append(
            (
                rule("tcp", mine, [port, port + 3], allowed=verdict),
                rule("udp", f"{mine},{next_one}", [port, port], allowed=verdict),
                rule("tcp", mine, allowed=verdict),
                rule("icmp", mine, icmp=(8, -1), allowed=verdict),
                rule("47", f"{mine},{next_one},::/0", allowed=verdict),
                rule("all", mine, allowed=verdict),
            )[number % 6]
        )
    return rules


DENIED = [deny("udp", "0.0.0.0/0", [5909, 5909]), deny("udp", f"{NEAR}/32", [5910, 5910])]
ALLOWED = [
    rule("udp", f"192.0.2.0/24,{CIDR}", [5900, 5910]),
    rule("udp", f"{BEHIND_NET}", [5900, 5910]),
]
FIXED = [*DENIED, *ALLOWED]
EGRESS = [*DENIED, rule("udp", f"192.0.2.0/24,{CIDR},{BEHIND_NET}", [5900, 5910]), rule("tcp", "0.0.0.0/0", [80, 80])]


def ingress(extra: list[Message]) -> list[Message]:
    """A list of 1,000 rules, or a few more or fewer: what decides about the measured flows is spread over it."""
    third = len(extra) // 3
    return [*extra[:third], *DENIED, *extra[third : 2 * third], *ALLOWED, *extra[2 * third :]]


@pytest.fixture(scope="module")
def net() -> Iterator[Vpc]:
    with vpc("vsteady") as net:
        net.associate(FORWARDS)
        net.associate(STATIC)
        net.routes(route(BEHIND_NET, PEER, own=PRIVATE))
        net.private_acl([rule("udp", CIDR, [5900, 5910])], [rule("udp", CIDR, [5900, 5910])])
        net.forward(forward(FORWARDS, "udp", "5800:5810", WEB1, "5900:5910"))
        net.static_nat(static(STATIC, APP1))
        net.acl(APP, FIXED)
        net.acl(WEB, ingress(filling(RULES - len(FIXED))), EGRESS)
        yield net


def flows(net: Vpc) -> list[Flow]:
    """Into, out of and past the tier that changes, open and new; and at the end what must stay refused."""
    from_near = {"source_address": NEAR}
    return [
        Flow(net.world, net.web1, 5800, address=FORWARDS, target_port=5900, **from_near),  # type: ignore[arg-type]
        Flow(net.world, net.web1, 5801, "new", FORWARDS, 5901, FAR),
        Flow(net.web1, net.world, 5900),
        Flow(net.web1, net.world, 5901, kind="new", address=FAR),
        Flow(net.web1, net.app1, 5902),
        Flow(net.app2, net.web2, 5903, kind="new"),
        Flow(net.web2, net.peer, 5904),
        Flow(net.peer, net.web1, 5905, kind="new", source_address=BEHIND),
        Flow(net.world, net.app1, 5906, address=STATIC, source_address=FAR),
        Flow(net.db1, net.world, 5907, kind="new"),
        Flow(net.db1, net.app2, 5908),
        Flow(net.world, net.web1, 5809, "new", FORWARDS, 5909, FAR, refused=True),
        Flow(net.app2, net.web1, 5909 + 2, kind="new", refused=True),
        Flow(net.web2, net.world, 5910, kind="new", refused=True),
        Flow(net.web1, net.db1, 5908, kind="new", refused=True),
        Flow(net.world, net.db1, 5909, kind="new", address=STATIC, target_port=5909, refused=True),
    ]


def changes(net: Vpc) -> Iterator[Callable[[], object]]:
    """Without end: rules come, go, move, turn round and get other ports, at the top, in the middle and at the end."""
    rules = filling(RULES - len(FIXED))

    def send() -> Callable[[], object]:
        now = ingress(rules)
        return lambda: net.acl(WEB, now, EGRESS, check=False)

    number = 0
    while True:
        number += 1
        spare = other(100_000 + number)
        at = (0, len(rules) // 2, len(rules) - 1)[number % 3]
        rules.insert(at, deny("tcp", f"{spare},192.0.2.0/24", [2000 + number, 2100 + number]))  # a level more
        yield send()
        rules[at] = rules[at] | {"allowed": True, "last_port": 2200 + number}
        yield send()
        rules.append(rules.pop(at))
        yield send()
        rules.pop()
        yield send()
        for step in range(at, at + 20):
            rules[step % len(rules)] = rules[step % len(rules)] | {"allowed": number % 2 == 0}
        yield send()
        some = rules[100:120]
        del rules[100:120]
        yield send()
        rules[300:300] = some
        yield send()
        rules.insert(0, rule("udp", "192.0.2.0/24", [5900, 5907]))  # what allows a measured flow is another rule now
        yield send()
        rules.pop(0)
        yield send()


def test_no_packet_of_any_tier_is_lost_or_leaks_while_a_long_acl_changes(
    net: Vpc, capsys: pytest.CaptureFixture[str]
) -> None:
    endless = changes(net)
    before = len(net.seconds)

    def change() -> None:
        del net.seconds[before:]
        for _ in range(CHANGES):
            next(endless)()

    watched = flows(net)
    counts = net.lab.measure(watched, change)
    seconds = net.seconds[before:]
    with capsys.disabled():
        print(  # noqa: T201 the measurement is half of what this is for
            f"\n{len(seconds)} changes of {RULES} rules, median {statistics.median(seconds):.3f} s,"
            f" max {max(seconds):.3f} s; {sum(count.sent for count in counts)} packets"
        )
    seen = [
        (count.lost, count.leaked, count.sent - count.returned if flow.kind == "established" else 0)
        for flow, count in zip(watched, counts, strict=True)
    ]
    assert seen == [(0, 0, 0)] * len(watched), counts
    assert all(count.sent > 100 * CHANGES for count in counts)
    net.converged()


def test_no_packet_is_lost_while_one_rule_moves_all_the_others_to_other_sets(net: Vpc) -> None:
    rules = filling(RULES - len(FIXED))
    first = [deny(proto, "0.0.0.0/0", [25, 25]) for proto in ("tcp", "udp")]
    net.acl(WEB, ingress(rules), EGRESS)

    def change() -> None:
        for _ in range(3):
            net.acl(WEB, [*first, *ingress(rules)], EGRESS, check=False)
            net.acl(WEB, ingress(rules), EGRESS, check=False)

    counts = net.lab.measure(flows(net), change)
    assert [(count.lost, count.leaked) for count in counts] == [(0, 0)] * len(counts), counts


def test_the_count_notices_a_list_with_a_hole(net: Vpc) -> None:
    """Whoever says that nothing leaked has to be able to see a leak."""
    everything = ingress(filling(RULES - len(FIXED)))
    some = [flow for flow in flows(net) if flow.refused][:1] + flows(net)[:1]

    def change() -> None:
        net.acl(WEB, [rule("udp")], EGRESS, check=False)
        net.acl(WEB, [rule("tcp")], EGRESS, check=False)
        net.acl(WEB, everything, EGRESS, check=False)

    refused, open_one = net.lab.measure(some, change)
    assert refused.leaked > 0
    assert open_one.lost > 0
