"""What a router of a pair leaves for its ears: the same on both, but for what is each one's own."""

import time
from base64 import b64encode
from pathlib import Path
from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from holdfast import apart, facts, pairing
from holdfast.config import Config, decode, merge
from holdfast.features.pair import FEATURE, PATH
from holdfast.peer import Pair
from holdfast.router import Facts, Nic, Router
from holdfast.settings import Settings
from holdfast.state import File
from test_redundancy import ADDRESS, HERE, ISOLATED, THERE, TIERS, Message, bags, line, mac, tier


def pair(messages: list[Message], seen: Facts = HERE) -> Pair:
    (claim,) = FEATURE.contribute(None, Router(bags(messages, seen), seen))
    assert isinstance(claim.part, File)
    assert (claim.part.path, claim.part.mode, claim.part.secret) == (PATH, 0o600, True)
    return msgspec.json.decode(claim.part.text, type=Pair)


def acl(number: int, *, second: bool = False, allowed: bool = True) -> Message:
    rule = {"type": "tcp", "allowed": allowed, "cidr": "0.0.0.0/0", "first_port": 22, "last_port": 22}
    return {
        "type": "networkacl", "device": "eth9", "mac_address": mac(number, second=second), "private_gateway_acl": False,
        "nic_ip": f"10.72.{number}.{206 if second else 120}", "nic_netmask": "24", "ingress_rules": [rule],
        "egress_rules": [], "delete_from_processed_cache": False,
    }  # fmt: skip


def balancer(address: str) -> Message:
    text = ["global", f"listen stats_on_guest {address}:8081", "bind 203.0.113.72:80"]
    rules = {
        "configuration": text,
        "add_rules": ["203.0.113.72:80:"],
        "remove_rules": [],
        "stat_rules": [f"{address}:8081:0/0:"],
    }
    return {"type": "loadbalancer", "rules": [rules]}


def dhcp(vm: int, name: str = "web") -> Message:
    return {
        "type": "dhcpentry", "host_name": name, "mac_address": f"02:00:48:aa:00:{vm:02x}", "default_entry": True,
        "ipv4_address": f"10.72.1.{vm}", "default_gateway": "10.72.1.1", "remove": False,
    }  # fmt: skip


def password(vm: int, secret: str) -> Message:
    return {"type": "vmpassword", "ip_address": f"10.72.1.{vm}", "password": secret}


ONE = [*TIERS, acl(1), acl(2), balancer("10.72.1.120"), dhcp(7), dhcp(8), password(7, "a"), password(8, "b")]
TWO = [
    line(second=True), *(tier(n, second=True) for n in (3, 1, 2)), ADDRESS, acl(2, second=True), acl(1, second=True),
    balancer("10.72.1.206"), password(8, "b"), password(7, "a"), dhcp(8), dhcp(7),
]  # fmt: skip


def test_two_routers_that_were_told_the_same_leave_the_same() -> None:
    one, two = pair(ONE), pair(TWO, THERE)

    assert one.digests == two.digests
    assert (one.key, one.ground, one.advert_s) == (two.key, two.ground, two.advert_s)
    assert {
        "tier 10.72.2.0/24",
        "acl 10.72.1.0/24",
        "ips",
        "loadbalancer",
        "dhcpentry",
        "cmdline",
    } <= one.digests.keys()
    assert {name for name in one.digests if name.startswith("acl")} == {"acl 10.72.1.0/24", "acl 10.72.2.0/24"}
    assert one.nics == {"10.72.1.0/24": "eth2", "10.72.2.0/24": "eth3", "10.72.3.0/24": "eth4"}
    assert two.nics == {"10.72.1.0/24": "eth3", "10.72.2.0/24": "eth4", "10.72.3.0/24": "eth2"}


def test_the_file() -> None:
    one = pair(ONE)

    assert one.name == "r-72-VM"
    assert (one.ground, one.segment) == ("10.72.1.1/24 v2 1", "eth2")
    face = one.faces[0]
    assert (face.network, face.device, face.address, face.prefix) == ("10.72.1.0/24", "eth2", "10.72.1.120", 24)
    assert one.outer == ("eth1",)
    assert one.announce == (
        ("eth1", ("203.0.113.72",)), ("eth2", ("10.72.1.1",)), ("eth3", ("10.72.2.1",)), ("eth4", ("10.72.3.1",))
    )  # fmt: skip
    assert one.gateways == (("eth1", "203.0.113.1"),)
    assert one.probed == ()


@pytest.mark.parametrize(
    ("change", "name", "keys"),
    [
        pytest.param(dhcp(9), "dhcpentry", {"02:00:48:aa:00:09"}, id="a VM"),
        pytest.param(dhcp(8, "mail"), "dhcpentry", {"02:00:48:aa:00:08"}, id="a VM's name"),
        pytest.param(acl(2, allowed=False), "acl 10.72.2.0/24", {"ingress"}, id="an ACL"),
        pytest.param(tier(2) | {"dns": "192.0.2.54"}, "tier 10.72.2.0/24", {"dns"}, id="a tier"),
        pytest.param(tier(3, add=False), "tier 10.72.3.0/24", None, id="a tier less"),
        pytest.param(line(domain="other.example.org"), "cmdline", {"domain"}, id="the boot line"),
        pytest.param(password(9, "c"), "vmpassword", {"10.72.1.9"}, id="a password"),
    ],
)
def test_what_one_was_not_told_is_named(change: Message, name: str, keys: set[str] | None) -> None:
    one, two = pair([*ONE, change]), pair(TWO, THERE)
    assert _apart(one.digests, two.digests) == {name}
    assert {bag for bag in one.keys if _apart(one.keys[bag], two.keys[bag])} <= {name}
    if keys is None:
        assert name not in one.keys
    else:
        assert _apart(one.keys[name], two.keys[name]) == keys


def _apart(one: dict[str, str], two: dict[str, str]) -> set[str]:
    return {name for name in one.keys() | two.keys() if one.get(name) != two.get(name)}


def test_a_long_bag_has_no_keys_of_its_own() -> None:
    many = pair([line(), ADDRESS, tier(1), *(dhcp(vm) for vm in range(2, 3 + apart.MOST))])

    assert "dhcpentry" in many.digests
    assert "dhcpentry" not in many.keys
    assert "ips" in many.keys


def test_settings_are_compared_and_are_in_force() -> None:
    chosen = msgspec.structs.replace(HERE, settings=Settings(advert_s=0.2, gateway_probe=True))
    one, two = pair(ONE, chosen), pair(ONE)

    assert {name for name in one.digests if one.digests[name] != two.digests[name]} == {"settings"}
    assert (one.ground, one.probed) == ("10.72.1.1/24 v3 0.2", (("eth1", "203.0.113.1"),))


@given(st.permutations([ADDRESS, tier(1), tier(2), tier(3), dhcp(7), dhcp(8)]))
def test_the_order_of_messages_is_forgotten(messages: list[Message]) -> None:
    assert pair([line(), *messages]) == pair([line(), ADDRESS, tier(1), tier(2), tier(3), dhcp(7), dhcp(8)])


def test_keys() -> None:
    """Pairs have keys of their own, a key does not change with tiers, and no secret can be read out of the file."""
    other = line(router_password="21654098723165409872316540987231654098723165409872")  # noqa: S106 a made-up one
    assert pair([other, *TIERS[1:]]).key != pair(TIERS).key == pair(TIERS[:2]).key
    assert line()["cmd_line"]["router_password"] not in msgspec.json.encode(pair(TIERS)).decode()


def isolated(seen: Facts, **more: str) -> Pair:
    return pair([{"type": "cmdline", "cmd_line": ISOLATED | more}], seen)


def test_an_isolated_networks_pair() -> None:
    here = Facts((Nic("02:00:47:00:00:0e", "eth0"), Nic("0e:00:a9:47:00:3c", "eth1"), Nic("1e:00:c6:33:64:47", "eth2")))
    there = Facts(
        (Nic("02:00:47:00:00:bb", "eth0"), Nic("0e:00:a9:47:00:3d", "eth1"), Nic("1e:00:c6:33:64:47", "eth2"))
    )
    one, two = isolated(here), isolated(there, eth0ip="10.71.0.187", eth1ip="169.254.71.61", name="r-73-VM")

    assert (one.key, one.digests, one.ground) == (two.key, two.digests, "10.71.0.1/24 v2 1")
    assert isolated(here, guestgw="10.71.0.254").key != one.key
    # An operator may give a network another source NAT address: the router that is made anew must meet the old one.
    assert isolated(here, eth2ip="198.51.100.72").key == one.key


def guarded(word: str, *users: str) -> list[Message]:
    """What holds secrets of people's own choice."""
    return [
        {"type": "vpnuserlist", "vpn_users": [{"user": user, "password": word, "add": True} for user in users]},
        {
            "type": "remoteaccessvpn", "create": True, "vpn_server_ip": "203.0.113.71", "preshared_key": word,
            "ip_range": "10.9.0.2-10.9.0.9", "local_ip": "10.9.0.1", "local_cidr": "10.71.0.0/24",
            "public_interface": "eth2",
        },
        {"type": "vmdata", "vm_ip_address": "10.71.0.9", "vm_metadata": [
            ["userdata", "user-data", b64encode(word.encode()).decode()], ["metadata", "vm-id", "9"],
        ]},
    ]  # fmt: skip


HERE_ALONE = Facts((Nic("02:00:47:00:00:0e", "eth0"), Nic("1e:00:c6:33:64:47", "eth2")))


def test_what_tenants_could_guess_is_in_no_digest_that_they_could_make() -> None:
    """An isolated pair's key can be derived by whoever is in its network, and all of them hear its hellos."""
    first: Message = {"type": "cmdline", "cmd_line": ISOLATED}
    one, two = (pair([first, *guarded(word, "ann")], HERE_ALONE) for word in ("apple", "pear"))
    assert {"vpnuserlist", "remoteaccessvpn", "vmdata"} <= one.digests.keys()
    assert (one.digests, one.keys) == (two.digests, two.keys)

    other = pair([first, *guarded("apple", "ann", "bob")], HERE_ALONE)
    assert _apart(one.digests, other.digests) == {"vpnuserlist"}
    assert _apart(one.keys["vpnuserlist"], other.keys["vpnuserlist"]) == {"bob"}
    assert one.keys["remoteaccessvpn"].keys() == {"203.0.113.71"}


def test_with_a_secret_of_its_own_a_pair_compares_secrets_as_well() -> None:
    one, two = (pair([*ONE, *guarded(word, "ann")]) for word in ("apple", "pear"))

    assert _apart(one.digests, two.digests) == {"vpnuserlist", "remoteaccessvpn", "vmdata"}
    assert _apart(one.keys["vpnuserlist"], two.keys["vpnuserlist"]) == {"ann"}


def test_a_pair_without_a_tier_says_so_and_a_router_alone_says_nothing() -> None:
    assert (pair([line(), ADDRESS]).ground, pair([line(), ADDRESS]).faces) == ("", ())
    alone = bags([line(redundant_router="0"), *TIERS[1:]], HERE)
    assert [*FEATURE.contribute(None, Router(alone, HERE))] == []


def test_two_thousand_guests_take_little_time() -> None:
    config: Config = bags(TIERS, HERE)
    for n in range(2000):
        address = f"10.72.{1 + n // 250}.{n % 250 + 2}"
        told: list[dict[str, Any]] = [
            dhcp(7) | {"mac_address": f"02:00:48:ab:{n // 256:02x}:{n % 256:02x}", "ipv4_address": address},
            {"type": "vmdata", "vm_ip_address": address, "vm_metadata": [
                ["userdata", "user-data", "eHh4" * 64], ["metadata", "vm-id", str(n)], ["metadata", "ip", address],
            ]},
        ]  # fmt: skip
        for message in told:
            config = merge(config, decode(msgspec.json.encode(message)), HERE).config
    router = Router(config, HERE)
    [*FEATURE.contribute(None, router)]
    began = time.perf_counter()
    [*FEATURE.contribute(None, router)]
    assert time.perf_counter() - began < 0.1  # 2.3 ms here


# What the agent has left of the peer, as facts.


def test_the_peer_is_known_once_it_was_heard_on_the_segment(tmp_path: Path) -> None:
    assert facts.peer(tmp_path) is None
    for document, expected in (
        ('{"heard": 1, "address": "10.72.1.206", "mac": "02:00:48:01:00:1f"}', ("10.72.1.206", "02:00:48:01:00:1f")),
        ('{"heard": 1, "address": "", "mac": ""}', None),
        ('{"heard": 1, "address": "10.72.1.206; drop", "mac": "02:00:48:01:00:1f"}', None),
        ("[1", None),
    ):
        pairing.leave(tmp_path, pairing.PEER, document)
        assert facts.peer(tmp_path) == expected
