"""The laws of the house for VPNs, tried on random sequences of commands from small pools."""

from collections.abc import Sequence
from functools import reduce
from typing import Any

import msgspec
from hypothesis import given
from hypothesis import strategies as st

from counts import examples
from fake_machine import BOOT_LINE, NICS, FakeMachine
from holdfast.config import EMPTY, Config, decode, dump, load, merge
from holdfast.converge import converge, observe, plan
from holdfast.desired import desired
from holdfast.router import Facts
from holdfast.state import Elements, File
from holdfast.swanctl import FOLDER, Connection

FACTS = Facts(NICS)
Message = dict[str, Any]


def take(config: Config, message: Message) -> Config:
    return merge(config, decode(msgspec.json.encode(message)), FACTS).config


def bags(messages: Sequence[Message]) -> Config:
    return reduce(take, messages, merge(EMPTY, decode(BOOT_LINE.document), FACTS).config)


def tunnel(peer: int, remotes: list[str], *, create: bool, key: str, version: str) -> Message:
    return {
        "type": "site2sitevpn", "create": create, "local_public_ip": "198.51.100.20", "ipsec_psk": key,
        "peer_gateway_ip": f"203.0.113.{peer}", "local_guest_cidr": "10.31.0.0/24", "ike_version": version,
        "peer_guest_cidr_list": ",".join(remotes), "ike_policy": "aes128-sha1;modp2048", "esp_policy": "aes128-sha1",
    }  # fmt: skip


def server(last: int, *, create: bool, key: str) -> Message:
    return {
        "type": "remoteaccessvpn", "create": create, "vpn_server_ip": f"198.51.100.{last}", "preshared_key": key,
        "ip_range": "10.1.2.2-10.1.2.8", "local_ip": "10.1.2.1", "local_cidr": "10.31.0.0/24",
    }  # fmt: skip


def address(last: int, *, add: bool) -> Message:
    unit = {
        "public_ip": f"198.51.100.{last}", "add": add, "gateway": "198.51.100.1", "netmask": "255.255.255.0",
        "vif_mac_address": NICS[2].mac, "source_nat": False, "nw_type": "Public",
    }  # fmt: skip
    return {"type": "ips", "ip_address": [unit]}


def users(listed: list[tuple[str, str, bool]]) -> Message:
    return {"type": "vpnuserlist", "vpn_users": [{"user": u, "password": p, "add": add} for u, p, add in listed]}


flags, keys = st.booleans(), st.sampled_from(["one", "two"])
REMOTES = ["192.168.0.0/16", "192.168.4.0/24", "192.168.4.0/25", "172.16.0.9/32"]
networks = st.lists(st.sampled_from(REMOTES), min_size=1, max_size=3, unique=True)
versions = st.sampled_from(["ike", "ikev1", "ikev2"])
lists = st.lists(st.tuples(st.sampled_from(["bob", "bob2", "Bob"]), keys, flags), max_size=4)
commands = st.one_of(
    st.builds(tunnel, st.integers(8, 10), networks, create=flags, key=keys, version=versions),
    st.builds(server, st.integers(20, 22), create=flags, key=keys),
    st.builds(address, st.integers(21, 22), add=flags),
    st.builds(users, lists),
)


@examples(60)
@given(st.lists(commands, max_size=8))
def test_the_machine_forgets_the_path(messages: list[Message]) -> None:
    """Step by step, or at once from bags that were read from the disk: the machine ends the same."""
    config = bags(messages)
    wanted = desired(config, FACTS).state
    machine, at = FakeMachine(FACTS.nics), bags(())
    converge(machine.drivers, desired(at, FACTS).state)
    for message in messages:
        at = take(at, message)
        converge(machine.drivers, desired(at, FACTS).state)
    assert plan(machine.drivers, wanted) == []

    fresh = FakeMachine(FACTS.nics)
    converge(fresh.drivers, desired(load(dump(config)), FACTS).state)

    assert observe(fresh.drivers, wanted) == observe(machine.drivers, wanted) == wanted


@examples(60)
@given(st.lists(commands, max_size=8))
def test_what_is_taken_back_leaves_nothing(messages: list[Message]) -> None:
    ends = [{**message, "create": False} for message in messages if "create" in message]
    gone = [users([(user, "x", False) for user in ("bob", "bob2", "Bob")])]
    gone += [address(last, add=False) for last in (21, 22)]

    assert desired(bags([*messages, *ends, *gone]), FACTS) == desired(bags(()), FACTS)


@examples(60)
@given(
    st.lists(commands, max_size=8),
    st.builds(tunnel, st.integers(8, 10), networks, create=flags, key=keys, version=versions),
)
def test_a_change_to_one_tunnel_touches_no_other(messages: list[Message], last: Message) -> None:
    before, after = (desired(bags(told), FACTS).state for told in (messages, [*messages, last]))
    mine = f"vpn-198_51_100_20-{last['peer_gateway_ip'].replace('.', '_')}"
    touched = {key for key in before.keys() | after.keys() if before.get(key) != after.get(key)}
    others = {
        key
        for key in touched
        for resource in [after.get(key) or before[key]]
        if isinstance(resource, Connection) or (isinstance(resource, File) and resource.path.startswith(FOLDER))
    }

    assert others <= {("Connection", mine), ("File", f"{FOLDER}/{mine}.conf")}
    for key in touched:
        resource = after.get(key) or before[key]
        assert not isinstance(resource, Elements) or resource.set in ("tunnelled", "vpn_peer")
