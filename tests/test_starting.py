"""A start by the management server: what it says holds, what it does not say goes, what it never says survives."""

from collections.abc import Sequence
from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from counts import examples
from holdfast.config import Config
from holdfast.desired import desired
from holdfast.shared import BootLine
from holdfast.starting import begins, confirmed, lost
from test_laws import FACTS, Message, bags, forward, rule, static, take, vm


def password(last: int, text: str) -> Message:
    return {"type": "vmpassword", "ip_address": f"10.31.0.{last}", "password": text}


def told(config: Config, messages: Sequence[Message]) -> Config:
    for message in messages:
        config = take(config, message)
    return config


MESSAGES = st.one_of(
    st.builds(rule, st.integers(1, 5), src_port_range=st.sampled_from([[80, 80], [443, 443]])),
    st.builds(forward, st.sampled_from([80, 90]), st.just(0), st.integers(10, 12)),
    st.builds(static, st.integers(21, 22), st.integers(10, 12)),
    st.builds(vm, st.integers(10, 12), st.integers(1, 3)),
)


@examples(60)
@given(st.lists(MESSAGES, max_size=8), st.lists(MESSAGES, max_size=8))
def test_what_a_start_has_said_is_all_that_holds(before: list[Message], start: list[Message]) -> None:
    restored = bags(before)
    now, said = told(restored, start), told(bags([]), start)
    assert desired(confirmed(now, said, FACTS), FACTS) == desired(bags(start), FACTS)


def test_what_is_lost_is_named_by_its_origin() -> None:
    start = [rule(1, src_port_range=[80, 80]), vm(10, 1)]
    restored = bags([*start, rule(2, src_port_range=[22, 22]), vm(11, 2)])
    then = confirmed(told(restored, start), told(bags([]), start), FACTS)
    assert lost(restored, then) == ("dhcpentry/02:00:1f:00:01:02", "firewallrules/2")
    assert lost(then, then) == ()


def test_a_password_waits_on_for_a_vm_that_is_still_there_and_goes_with_one_that_is_not() -> None:
    restored = bags([vm(10, 1), password(10, "Fjord-7"), vm(11, 2), password(11, "Fjell-8")])
    start = [vm(10, 1)]
    then = confirmed(told(restored, start), told(bags([]), start), FACTS)
    assert then["vmpassword"].passwords.keys() == {"10.31.0.10"}


@pytest.mark.parametrize(
    ("told_name", "fresh", "why"),
    [
        ("r-1-VM", False, ""),
        ("r-1-VM", True, "given anew"),
        ("r-2-VM", False, "another one"),
    ],
)
def test_a_start_is_told_from_a_reboot(told_name: str, why: str, *, fresh: bool) -> None:
    line: dict[str, Any] = {"name": "r-1-VM", "type": "router"}
    stored, told = (msgspec.convert({**line, "name": name}, BootLine) for name in ("r-1-VM", told_name))
    found = begins(stored, told, fresh=fresh)
    assert (why in found) if why else (found == "")
