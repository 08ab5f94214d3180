"""The program: constant, whatever the data; data in sets; structure from layers and features' rules alone."""

import pytest

from holdfast.nft import (
    EPOCH,
    EPOCHS,
    TABLE,
    VPN,
    WAY,
    Chain,
    Rule,
    Stage,
    is_settled,
    key,
    mark,
    ports,
    quoted,
    settled,
    unsettled,
)
from holdfast.program import assemble, revokes, trust
from holdfast.state import Elements, Ruleset


def text(rules: list[Rule], elements: dict[str, dict[str, str]]) -> str:
    return next(part.text for part in assemble(rules, elements) if isinstance(part, Ruleset))


def held(elements: dict[str, dict[str, str]]) -> dict[str, dict[str, str]]:
    return {part.set: part.entries for part in assemble([], elements) if isinstance(part, Elements)}


def chain(program: str, name: str) -> list[str]:
    return program.split(f"\tchain {name} {{\n")[1].split("\t}\n", maxsplit=1)[0].split("\n\t\t")


def test_data_does_not_change_the_structure() -> None:
    data = {"port_forward": {"203.0.113.5 . tcp . 80": "10.1.1.10 . 8080"}, "guest_device": {'"eth0"': ""}}
    assert text([], data) == text([], {})
    assert held(data)["port_forward"] == data["port_forward"]
    assert held(data)["public_address"] == {}  # every declared set is a resource, empty ones too


def test_each_guest_device_reaches_itself() -> None:
    sets = held({"guest_device": {'"eth1"': "", '"eth0"': ""}})
    assert sets["guest_pair"] == {'"eth0" . "eth0"': "", '"eth1" . "eth1"': ""}
    assert sets["guest_route"] == {'"eth0"': "", '"eth1"': ""}


def test_egress_layers_follow_the_data_deny_before_allow_in_the_order_of_lengths() -> None:
    layers = ["egress_allow_port_24", "egress_deny_any_32", "egress_allow_port_8", "egress_deny_icmp_0"]
    program = text([], {name: {"x": ""} for name in layers})
    judged = "\n".join(chain(program, "judge_egress"))
    order = ["egress_deny_any_32", "egress_deny_icmp_0", "egress_allow_port_8", "egress_allow_port_24", "egress_open"]
    assert [judged.index(f"@{name}") for name in order] == sorted(judged.index(f"@{name}") for name in order)
    assert program == text([], {name: {"y": "", "z": ""} for name in reversed(layers)})
    assert "ip daddr . ip saddr . meta l4proto . th sport @egress_allow_port_24" in program  # replies, reversed
    assert text([], {"egress_allow_port_24": {}}) == text([], {})  # an empty layer is none


def test_rules_of_features_stand_at_their_stage_whatever_their_order() -> None:
    rules = [
        Rule(Chain.FORWARD, Stage.ADMIT, "meta l4proto esp accept"),
        Rule(Chain.FORWARD, Stage.PREPARE, "tcp flags syn tcp option maxseg size set rt mtu"),
        Rule(Chain.FORWARD, Stage.ADMIT, "meta l4proto ah accept"),
    ]
    program = text(rules, {})
    assert program == text(rules[::-1], {}) == text([*rules, rules[0]], {})
    lines = chain(program, "forward")
    at = [
        next(n for n, line in enumerate(lines) if word in line)
        for word in ("maxseg", "l4proto ah", "l4proto esp", "jump judged")
    ]
    assert at == sorted(at)


def test_an_unknown_set_is_a_bug() -> None:
    with pytest.raises(ValueError, match="no such set: ingres_port"):
        assemble([], {"ingres_port": {"x": ""}})
    with pytest.raises(ValueError, match="no such set"):
        assemble([], {"egress_allow_tcp_24": {"x": ""}})


def test_fields_of_the_mark_do_not_meet() -> None:
    assert WAY ^ EPOCH ^ VPN == 0xFFFFFFFF
    assert f"== {mark(0x5000)} accept" in trust(5)
    assert f"{mark(0xF0000FFF)} | {mark(0x5000)} accept" in trust(5)
    assert f"inet {TABLE} judged" in trust(1)


def test_an_epoch_is_unsettled_for_a_moment_and_then_settled_for_long() -> None:
    at, seen = EPOCHS - 3, []
    for _ in range(4):
        seen += [unsettled(at), at := settled(unsettled(at))]
    assert seen == [EPOCHS - 2, EPOCHS - 1, EPOCHS, 2, 3, 4, 5, 6]
    assert [is_settled(one) for one in seen] == [False, True] * 4
    # One that was left unsettled is not gone back to.
    assert [unsettled(one) for one in (5, EPOCHS)] == [7, 1]
    assert settled(0) == 2


def test_canonical_text() -> None:
    assert key(quoted("eth0"), "tcp", ports(80, 80)) == '"eth0" . tcp . 80'
    assert ports(1, 9) == "1-9"


@pytest.mark.parametrize(
    ("name", "removed", "added"),
    [
        ("ingress_port", True, False),
        ("forward_target", True, False),
        ("static_public", True, False),
        ("static_source", True, False),
        ("leaving", True, False),
        ("egress_open", True, False),
        ("egress_allow_icmp_24", True, False),
        ("egress_deny_any_32", False, True),
        ("public_address", False, True),
        ("public_device", True, False),
        ("source_nat", False, False),
        ("router_service", False, False),
    ],
)
def test_what_takes_permission_away(name: str, *, removed: bool, added: bool) -> None:
    assert (revokes(name, removed=True), revokes(name, removed=False)) == (removed, added)
