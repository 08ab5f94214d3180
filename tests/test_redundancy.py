"""A pair of routers: what both have alike, what a role must not change, and what keepalived could misread."""

import re
from functools import reduce
from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from holdfast import conntrackd, keepalived, peer
from holdfast.config import EMPTY, Config, decode, merge
from holdfast.desired import Desired, desired
from holdfast.keepalived import Virtual
from holdfast.router import Facts, Nic, Role
from holdfast.state import Address, File, Handover, Ruleset, Sysctl, Unit

CONTROL, PUBLIC = "0e:00:a9:48:00:06", "1e:00:cb:00:71:48"
PASSWORD = "73190042586631907254410098236517720934481266503917"  # noqa: S105 a made-up one
PAIRED = [role for role in Role if role is not Role.ALONE]
Message = dict[str, Any]


def line(*, second: bool = False, **more: str) -> Message:
    told = {
        "type": "vpcrouter", "name": "r-74-VM" if second else "r-72-VM", "vpccidr": "10.72.0.0/16",
        "eth0ip": "169.254.72.44" if second else "169.254.72.6", "eth0mask": "255.255.0.0",
        "redundant_router": "1", "redundant_state": "BACKUP" if second else "PRIMARY", "advert_int": "1",
        "router_id": "72", "router_password": PASSWORD, **more,
    }  # fmt: skip
    return {"type": "cmdline", "cmd_line": told}


def mac(number: int, *, second: bool = False) -> str:
    return f"02:00:48:{number:02x}:00:{'1f' if second else '1e'}"


def tier(number: int, *, second: bool = False, add: bool = True) -> Message:
    return {
        "type": "guestnetwork", "add": add, "mac_address": mac(number, second=second), "device": "eth9",
        "router_guest_ip": f"10.72.{number}.{206 if second else 120}", "router_guest_netmask": "255.255.255.0",
        "router_guest_gateway": f"10.72.{number}.1", "network_id": 720 + number, "is_vr_guest_gateway": True,
        "dns": "192.0.2.53", "mtu": 1500, "delete_from_processed_cache": False,
    }  # fmt: skip


ADDRESS: Message = {
    "type": "ips", "ip_address": [{
        "public_ip": "203.0.113.72", "source_nat": True, "add": True, "gateway": "203.0.113.1", "nw_type": "Public",
        "netmask": "255.255.255.0", "vif_mac_address": PUBLIC, "nic_dev_id": 1,
    }], "delete_from_processed_cache": False,
}  # fmt: skip
ISOLATED: dict[str, str] = {
    "type": "router", "name": "r-71-VM", "eth0ip": "10.71.0.14", "eth0mask": "255.255.255.0",
    "eth1ip": "169.254.71.60", "eth1mask": "255.255.0.0", "eth2ip": "198.51.100.71", "eth2mask": "255.255.255.0",
    "gateway": "198.51.100.1", "redundant_router": "1", "advert_int": "1", "guestgw": "10.71.0.1",
}  # fmt: skip


def facts(*macs: str, role: Role = Role.BACKUP) -> Facts:
    return Facts(tuple(Nic(mac, f"eth{at}") for at, mac in enumerate((CONTROL, PUBLIC, *macs))), role)


HERE = facts(mac(1), mac(2), mac(3))
THERE = facts(mac(3, second=True), mac(1, second=True), mac(2, second=True))


def bags(messages: list[Message], seen: Facts) -> Config:
    return reduce(lambda c, m: merge(c, decode(msgspec.json.encode(m)), seen).config, messages, EMPTY)


def meaning(messages: list[Message], seen: Facts = HERE) -> Desired:
    return desired(bags(messages, seen), seen)


def isolated(role: Role = Role.BACKUP, **more: str) -> Desired:
    told: Message = {"type": "cmdline", "cmd_line": ISOLATED | more}
    nics = (Nic("02:00:47:00:00:0e", "eth0"), Nic("0e:00:a9:47:00:3c", "eth1"), Nic("1e:00:c6:33:64:47", "eth2"))
    return meaning([told], Facts(nics, role))


def text(wanted: Desired, path: str = keepalived.CONF) -> str:
    file = wanted.state["File", path]
    assert isinstance(file, File)
    return file.text


def units(wanted: Desired) -> dict[str, bool]:
    found = (r for r in wanted.state.values() if isinstance(r, Unit))
    return {unit.name: unit.running for unit in found if unit.name.startswith(("keepalived", "conntrackd"))}


BOTH = {"keepalived.service": True, "conntrackd.service": True}
NEITHER = dict.fromkeys(BOTH, False)
TIERS = [line(), ADDRESS, tier(1), tier(2), tier(3)]


@pytest.mark.parametrize("path", [keepalived.CONF, conntrackd.CONF])
def test_the_texts_are_the_same_whatever_the_role(path: str) -> None:
    config = bags(TIERS, HERE)
    assert len({text(desired(config, msgspec.structs.replace(HERE, role=role)), path) for role in Role}) == 1
    assert len({text(isolated(role), path) for role in Role}) == 1


@given(st.permutations([ADDRESS, tier(1), tier(2), tier(3)]))
def test_the_texts_forget_in_what_order_messages_came(messages: list[Message]) -> None:
    for path in (keepalived.CONF, conntrackd.CONF):
        assert text(meaning([line(), *messages]), path) == text(meaning(TIERS), path)


def test_the_second_router_says_the_same_of_other_nics() -> None:
    messages = [tier(n, second=True) for n in (3, 1, 2)]
    second = meaning([line(second=True), ADDRESS, *messages], THERE)

    here, there = (re.sub(r"eth\d", "eth?", text(wanted)) for wanted in (meaning(TIERS), second))
    assert here == there
    assert "interface eth2" in text(meaning(TIERS))
    assert "interface eth3" in text(second)


def test_two_isolated_routers_derive_one_password_and_other_pairs_another() -> None:
    one = text(isolated())
    two = text(isolated(eth0ip="10.71.0.187", eth1ip="169.254.71.61", name="r-73-VM", redundant_state="BACKUP"))
    other = text(isolated(guestgw="10.71.0.254"))

    assert one == two
    assert one != other
    assert text(isolated(eth2ip="198.51.100.72")) == one, "whatever may change while one of the two is away"
    assert re.findall("auth_type (.*)", one) == ["PASS"]


def test_a_newer_tier_changes_nothing_but_excluded_addresses() -> None:
    excluded = re.compile(r"    virtual_ipaddress_excluded \{\n((?: {8}.*\n)+)    \}\n")
    steps = [meaning(TIERS[:count]) for count in (3, 4, 5)]

    assert len({text(wanted, conntrackd.CONF) for wanted in steps}) == 1
    assert len({excluded.sub("", text(wanted)) for wanted in steps}) == 1
    assert [part.split() for part in excluded.findall(text(steps[2]))] == [
        ["10.72.2.1/24", "dev", "eth3", "no_track", "10.72.3.1/24", "dev", "eth4", "no_track"]
    ]


def test_every_address_in_the_text_has_keepalived_as_its_keeper() -> None:
    wanted = meaning(TIERS)
    said = {(device, one) for one, device in re.findall(r"(\S+/\d+) dev (\S+)", text(wanted))}

    assert said == {(r.device, r.interface) for r in wanted.state.values() if isinstance(r, Address) and r.keeper}
    assert len(said) == 3


def test_an_address_on_an_absent_nic_is_not_in_the_text() -> None:
    assert "10.72.2.1" not in text(meaning(TIERS, facts(mac(1), mac(3))))
    assert "interface eth2" in text(meaning(TIERS, facts(mac(2), mac(3)))), "without the oldest the next carries it"


@pytest.mark.parametrize("role", PAIRED)
def test_both_services_run_in_every_role(role: Role) -> None:
    assert units(isolated(role)) == BOTH
    assert isolated(role).state["Handover",] == Handover(role.value)


@pytest.mark.parametrize(
    "wanted",
    [
        pytest.param(lambda: isolated(redundant_router="0"), id="not redundant"),
        pytest.param(lambda: meaning([line(), ADDRESS]), id="no tier"),
        pytest.param(lambda: meaning(TIERS[:3], facts()), id="no tier's nic"),
        pytest.param(lambda: isolated(guestgw=""), id="nothing that both share"),
    ],
)
def test_without_a_pair_neither_runs_and_nothing_is_let_in(wanted: Any) -> None:
    state = wanted().state

    assert units(wanted()) == NEITHER
    assert not {("File", keepalived.CONF), ("File", conntrackd.CONF), ("Handover",)} & state.keys()
    assert not any("224.0.0" in r.text for r in state.values() if isinstance(r, Ruleset))


def test_what_both_lack_is_pending() -> None:
    assert "redundancy" in [getattr(part, "what", "") for _, part in isolated(guestgw="").pending]


def test_only_the_segment_hears_elections_and_connections_and_every_tier_a_hello() -> None:
    program = next(r.text for r in meaning(TIERS).state.values() if isinstance(r, Ruleset))
    rules = [one.strip() for one in program.splitlines() if "224.0.0" in one or "225.0.0" in one]
    said = [one for one in rules if "meta l4proto 2 " not in one]

    assert sorted(re.findall(r"daddr (\S+)", " ".join(said))) == [
        keepalived.MULTICAST, conntrackd.MULTICAST, *[peer.GROUP] * 3,
    ]  # fmt: skip
    for one in said:
        nic = re.findall(r'iifname "eth(\d)"', one)
        assert f"ip saddr 10.72.{int(*nic) - 1}.0/24" in one, "from its own network alone"
        assert nic == ["2"] or peer.GROUP in one


def test_a_router_of_a_pair_takes_up_no_connection_in_the_middle() -> None:
    name = "net/netfilter/nf_conntrack_tcp_loose"

    assert isolated().state["Sysctl", name] == Sysctl(name, "0")
    assert isolated(redundant_router="0").state["Sysctl", name] == Sysctl(name, "1")


def test_the_term_and_the_boost_count_and_a_hold_or_a_fault_steps_back() -> None:
    said = text(meaning(TIERS))
    files = re.findall(r"track_file (\w+) \{\n    file (\S+)\n    weight (\d+)\n    init_file 0\n\}", said)

    assert files == [
        ("term", keepalived.TERM, "1"), ("boost", keepalived.BOOST, "1"),
        ("hold", keepalived.HOLD, "0"), ("fault", keepalived.FAULT, "0"),
    ]  # fmt: skip
    (tracked,) = re.findall(r"    track_file \{\n((?: {8}\w+\n)+)    \}", said)
    assert tracked.split() == [name for name, _, _ in files]
    assert keepalived.PRIORITY + 14 == 254, "255 would be the address's owner, who always preempts"


def test_what_the_watchdog_says_elects_nobody() -> None:
    (script,) = re.findall(r"vrrp_script alive \{\n(.*?)\n\}", text(meaning(TIERS)), re.DOTALL)
    told = dict(line.split(maxsplit=1) for line in script.splitlines())

    assert int(told["weight"]) < 0, "0 would be a fault"
    assert int(told["fall"]) >= 10**9
    assert float(told["interval"]) < 10 / 3, "the unit's WatchdogSec"


def test_an_outer_nic_asks_again_at_once_whom_it_does_not_hear() -> None:
    """Both have its MAC, so for a moment the answer may go to the other one."""
    asked = ("Sysctl", "net/ipv4/neigh/eth2/retrans_time_ms")

    assert isolated().state[asked] == Sysctl(asked[1], "100")
    assert asked not in isolated(redundant_router="0").state


def test_the_text_of_the_election_is_secret_and_tried() -> None:
    file = meaning(TIERS).state["File", keepalived.CONF]
    assert isinstance(file, File)

    assert (file.mode, file.secret, file.reload, file.restart) == (0o600, True, "keepalived.service", "")
    assert file.check == ("keepalived", "-t", "-f")


@pytest.mark.parametrize(("pair", "expected"), [(0, 51), (1, 1), (72, 72), (255, 255), (256, 1), (1327, 52)])
def test_virtual_router_id(pair: int, expected: int) -> None:
    assert keepalived.vrid(pair) == expected


@given(st.integers(-1, 2**63))
def test_virtual_router_ids_are_ids(pair: int) -> None:
    assert 1 <= keepalived.vrid(pair) <= 255


def test_password_told() -> None:
    assert keepalived.password(PASSWORD, "10.72.1.1") == PASSWORD[:8]


@given(st.text(max_size=12), st.text(max_size=12))
def test_a_password_is_always_eight_plain_characters(told: str, known: str) -> None:
    assert re.fullmatch(r"[A-Za-z0-9]{8}", keepalived.password(told, known))
    assert keepalived.password(told, known) == keepalived.password(told, known)


def test_below_a_second_the_version_is_three_and_there_is_no_password() -> None:
    fast = keepalived.configuration(
        device="eth0",
        vrid=51,
        password="c1d9a7a1",  # noqa: S106 a made-up one
        gateway=Virtual("10.71.0.1/24", "eth0"),
        others=(),
        advert_s=0.2,
    )

    assert "    version 3\n" in fast
    assert "    advert_int 0.20\n" in fast
    assert "auth" not in fast
