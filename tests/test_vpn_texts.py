"""What charon, xl2tpd and pppd are told, as text; and the pairs of networks that the firewall is told of."""

import json
from ipaddress import IPv4Address, IPv4Network
from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from fake_machine import BOOT_LINE, NICS
from holdfast import swanctl
from holdfast.config import EMPTY, Config, decode, merge
from holdfast.desired import desired
from holdfast.errors import Rejected
from holdfast.feature import Pending
from holdfast.features.site_to_site import Site, Sites, contribute
from holdfast.l2tp import chap_secrets
from holdfast.nft import Element
from holdfast.report import changes_json, changes_text, masked
from holdfast.router import Facts, Router
from holdfast.state import Change, Elements, File
from holdfast.swanctl import Connection, Tunnel, digest, name_of, parse, peer_of, shared, tunnel

TUNNEL = Tunnel(
    "203.0.113.7", "203.0.113.7", "198.51.100.9", ("198.51.100.9",), "10.7.0.0/16",
    ("192.168.1.0/24", "192.168.9.0/24"), ("aes128-sha1-modp2048",), ("aes128-sha1",), 86400, 3600, "key",
)  # fmt: skip
NAME = "vpn-203_0_113_7-198_51_100_9"


def settings(text: str) -> dict[str, Any]:
    connections: Any = parse(text)["connections"]
    found: dict[str, Any] = connections[NAME]
    return found


@given(key=st.text(min_size=1))
def test_a_key_of_any_text_comes_out_as_it_went_in(key: str) -> None:
    text = tunnel(TUNNEL._replace(key=key))
    secrets: Any = parse(text)["secrets"]
    outer = [line for line in text.splitlines() if line[0] not in " }#"]

    assert shared(secrets[f"ike-{NAME}"]) == (key.encode(), ["203.0.113.7", "198.51.100.9"])
    assert outer == ["connections {", "secrets {"]


@pytest.mark.parametrize("text", ["connections {", "}", "a = b\nc d\n", "include /etc/passwd"])
def test_a_text_of_another_hand_is_not_read(text: str) -> None:
    with pytest.raises(ValueError, match=r"holdfast|early"):
        parse(text)


def test_names_lead_back_to_the_peer() -> None:
    assert name_of("203.0.113.7", "198.51.100.9") == NAME
    assert peer_of(NAME) == "198.51.100.9"
    assert peer_of(swanctl.L2TP) == ""
    assert swanctl.is_ours(NAME)
    assert swanctl.is_ours(swanctl.L2TP)
    assert not any(map(swanctl.is_ours, ("office", "vpn-office", "vpn-to-office", "vpn-1-2-3", "")))
    assert name_of("192.0.2.4", "192.0.2.7") != name_of("192.0.2.4", "192.0.2.70")


NAMED = "Gw-1.Branch.example"


def named(**more: Any) -> bytes:
    return json.dumps({
        "type": "site2sitevpn", "create": True, "local_public_ip": "198.51.100.20", "peer_gateway_ip": NAMED,
        "local_guest_cidr": "10.31.0.0/24", "peer_guest_cidr_list": "192.168.1.0/24", "esp_policy": "aes128-sha1",
        "ike_policy": "aes128-sha1;modp2048", "ipsec_psk": "key", **more,
    }).encode()  # fmt: skip


def test_a_name_leads_back_to_the_peer_as_well() -> None:
    name = name_of("203.0.113.7", NAMED.lower())

    assert peer_of(name) == NAMED.lower()
    assert swanctl.is_ours(name)
    # Ours begin with an address of ours; whatever else is called alike is the administrator's.
    assert not any(map(swanctl.is_ours, ("vpn-office-branch_example", "vpn-203_0_113_7-", "vpn-203_0_113_7-1_2_3")))


def test_a_peer_known_by_its_name_is_joined_where_it_is() -> None:
    told = TUNNEL._replace(peer="gw.branch.example", addresses=("198.51.100.8", "198.51.100.9"))
    read = parse(tunnel(told))
    connections: Any = read["connections"]
    secrets: Any = read["secrets"]
    name = "vpn-203_0_113_7-gw_branch_example"

    assert connections[name]["remote_addrs"] == "198.51.100.8,198.51.100.9"
    assert connections[name]["remote"] == {"auth": "psk", "id": "%any"}
    assert shared(secrets[f"ike-{name}"])[1] == [
        "203.0.113.7", "gw.branch.example", "198.51.100.8", "198.51.100.9",
    ]  # fmt: skip


def test_without_an_address_a_name_waits_and_nothing_goes_in_the_open() -> None:
    wanted = desired(config(named()), Facts(NICS))

    assert [claim.part.waits_for for claim in wanted.pending if isinstance(claim.part, Pending)] == [
        "an address of gw-1.branch.example"
    ]
    assert not [held for held in wanted.state.values() if isinstance(held, Connection)]
    assert "tunnelled" in {held.set for held in wanted.state.values() if isinstance(held, Elements) and held.entries}
    assert wanted.state["File", swanctl.NAMES] == File(swanctl.NAMES, '["gw-1.branch.example"]')


def test_the_address_of_a_name_is_let_in() -> None:
    facts = Facts(NICS, names={"gw-1.branch.example": ("203.0.113.8", "203.0.113.9")})
    router = Router(config(named()), facts)
    parts = [claim.part for claim in contribute(router.config["site2sitevpn"], router)]
    (connection,) = [part for part in parts if isinstance(part, Connection)]

    assert [part.key for part in parts if isinstance(part, Element) and part.set == "vpn_peer"] == [
        "198.51.100.20 . 203.0.113.8", "198.51.100.20 . 203.0.113.9",
    ]  # fmt: skip
    assert connection.name == "vpn-198_51_100_20-gw-1_branch_example"
    assert config(named(), named(create=False, peer_gateway_ip=NAMED.upper()))["site2sitevpn"] == Sites()


@pytest.mark.parametrize(
    "peer", ["", "1.2.3", "1.2.3.256", "a_b.example", "-a.example", "a..b", "a b", f"{'a.' * 100}b"]
)
def test_what_is_neither_address_nor_name_is_refused(peer: str) -> None:
    with pytest.raises(Rejected, match="peer_gateway_ip"):
        merge(config(), decode(named(peer_gateway_ip=peer)), Facts(NICS))


def test_passive_begins_nothing_by_no_way() -> None:
    told = settings(tunnel(TUNNEL._replace(passive=True, dpd=True)))

    assert {child["start_action"] for child in told["children"].values()} == {"none"}
    assert {child["dpd_action"] for child in told["children"].values()} == {"none"}
    assert told["keyingtries"] == "1"


TOGETHER, EACH = ["192.168.1.0/24,192.168.9.0/24"], ["192.168.1.0/24", "192.168.9.0/24"]


@pytest.mark.parametrize(
    ("changed", "networks"),
    [
        ({"version": 0}, TOGETHER),
        ({"version": 2}, TOGETHER),
        ({"version": 2, "split": True}, EACH),
        ({"version": 1}, EACH),
    ],
)
def test_networks_share_an_exchange_where_they_can(changed: dict[str, Any], networks: list[str]) -> None:
    told = settings(tunnel(TUNNEL._replace(**changed)))

    assert [child["remote_ts"] for child in told["children"].values()] == networks
    assert told["version"] == str(changed["version"])


@given(ike=st.integers(60, 2592000), esp=st.integers(60, 2592000))
def test_a_key_is_replaced_before_its_life_ends(ike: int, esp: int) -> None:
    told = settings(tunnel(TUNNEL._replace(ike_s=ike, esp_s=esp)))
    seconds = {name: int(value[:-1]) for name, value in told.items() if name.endswith("_time")}
    child = next(iter(told["children"].values()))

    assert seconds["rekey_time"] + seconds["over_time"] == ike
    assert 0 < int(child["rekey_time"][:-1]) < int(child["life_time"][:-1]) == esp


def test_the_key_of_everybody_is_nobodys_in_particular() -> None:
    secrets: Any = parse(swanctl.l2tp("203.0.113.7", "everybody's"))["secrets"]

    assert shared(secrets["ike-L2TP-PSK"]) == (b"everybody's", ["203.0.113.7", "%any"])


def test_users_are_quoted() -> None:
    text = chap_secrets({'a"b': "c\\d e", "x": "y#z"})

    assert text == '# Written by holdfast.\n"a\\"b" * "c\\\\d e" *\n"x" * "y#z" *\n'


NETWORKS = st.builds(
    lambda base, length: str(IPv4Network((int(IPv4Address("192.168.0.0")) + base, length), strict=False)),
    st.integers(0, 15),
    st.integers(28, 32),
)


def site(local: str, remotes: list[str]) -> Site:
    return Site(
        local="198.51.100.20", peer="203.0.113.9", network=local, remotes=tuple(remotes), ike=("aes128-sha1-modp2048",),
        esp=("aes128-sha1",), psk="key",
    )  # fmt: skip


def config(*documents: bytes) -> Config:
    found = EMPTY
    for document in (BOOT_LINE.document, *documents):
        found = merge(found, decode(document), Facts(NICS)).config
    return found


ROUTER = Router(config(), Facts(NICS))


@given(st.lists(st.tuples(NETWORKS, st.lists(NETWORKS, min_size=1, max_size=3)), min_size=1, max_size=4))
def test_pairs_are_disjoint_and_cover_what_was_told(told: list[tuple[str, list[str]]]) -> None:
    bag = Sites(tunnels={str(at): site(*one) for at, one in enumerate(told)})
    parts = [claim.part for claim in contribute(bag, ROUTER)]
    pairs = [part.key.split(" . ") for part in parts if isinstance(part, Element) and part.set == "tunnelled"]
    covered = [(str(a), str(b)) for x, y in pairs for a in IPv4Network(x) for b in IPv4Network(y)]
    wanted = {(str(a), str(b)) for x, ys in told for y in ys for a in IPv4Network(x) for b in IPv4Network(y)}

    assert len(covered) == len(set(covered))
    assert set(covered) == wanted


def test_no_output_has_a_key_or_a_password() -> None:
    bags = config(
        b'{"type":"site2sitevpn","create":true,"local_public_ip":"198.51.100.20","peer_gateway_ip":"203.0.113.9",'
        b'"local_guest_cidr":"10.31.0.0/24","peer_guest_cidr_list":"192.168.1.0/24","ike_policy":"aes128-sha1;modp2048",'
        b'"esp_policy":"aes128-sha1","ipsec_psk":"TopSecretA"}',
        b'{"type":"remoteaccessvpn","create":true,"vpn_server_ip":"198.51.100.20","ip_range":"10.1.2.2-10.1.2.8",'
        b'"preshared_key":"TopSecretB","local_ip":"10.1.2.1","local_cidr":"10.31.0.0/24"}',
        b'{"type":"vpnuserlist","vpn_users":[{"user":"ann","password":"TopSecretC","add":true}]}',
    )
    wanted = desired(bags, Facts(NICS))
    changes = [Change(None, resource) for resource in wanted.state.values()]
    said = f"{changes_text(changes, wanted)} {changes_json(changes, wanted)}"
    shown = str(
        [masked(msgspec.to_builtins(bags[name])) for name in ("site2sitevpn", "remoteaccessvpn", "vpnuserlist")]
    )

    assert "connection vpn-198_51_100_20-203_0_113_9" in said
    assert "203.0.113.9" in shown
    assert "TopSecret" not in said + shown
    assert not any("TopSecret" in str(held.entries) for held in wanted.state.values() if isinstance(held, Elements))
    assert wanted.conflicts == ()


def test_another_key_is_another_text_of_the_same_connection() -> None:
    one, other = tunnel(TUNNEL), tunnel(TUNNEL._replace(key="new"))

    assert digest(one) != digest(other)
    assert Connection(NAME, digest(one), "p").key == Connection(NAME, digest(other), "p").key
