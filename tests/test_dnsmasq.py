"""What dnsmasq is given: every line is one that it takes, and no VM is worth a restart."""

import subprocess
from collections.abc import Mapping, Sequence
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from counts import examples
from holdfast import config, dnsmasq
from holdfast.desired import desired
from holdfast.dnsmasq import Network
from holdfast.errors import Rejected
from holdfast.router import Facts, Nic
from holdfast.shared import Host
from holdfast.state import Elements, File

FACTS = Facts((Nic("02:00:1f:00:00:01", "eth0"), Nic("0e:00:a9:1f:00:02", "eth1")))
LINE = {
    "name": "r-31-VM", "eth0ip": "10.31.32.50", "eth0mask": "255.255.255.0", "gateway": "10.31.32.1",
    "domain": "shared.example", "eth1ip": "169.254.31.2", "eth1mask": "255.255.0.0", "type": "dhcpsrvr",
}  # fmt: skip
NOWHERE = "0.0.0.0"  # noqa: S104 an absent gateway, not a bind
OK = "dnsmasq: syntax check OK.\n"
RULES = examples(60)

octet = st.integers(0, 255)
addresses = st.builds("{}.{}.{}.{}".format, octet, octet, octet, octet) | st.builds("10.31.32.{}".format, octet)
macs = st.lists(st.integers(0, 255), min_size=6, max_size=6).map(lambda b: ":".join(f"{x:02X}" for x in b))
words = st.text("abzAZ019-", min_size=1, max_size=64)
special = st.sampled_from(
    ["ignore", "infinite", "Infinite", "7", "12h", "3W", "w", "localhost", "data-server", "xn--a"]
)
spelt = st.builds("{}{}".format, st.sampled_from(["xn--", "XN--", "Ab--", "--", "set:x", "tag:", "#", "@", '"']), words)
anything = st.text(st.characters(exclude_categories=["Cs"]), max_size=70)
dotted_words = st.lists(words | spelt, min_size=1, max_size=5).map(".".join)
host_names = words | special | spelt | anything | dotted_words
domains = dotted_words | anything | addresses | st.just("")
entries = st.fixed_dictionaries(
    {
        "type": st.just("dhcpentry"),
        "host_name": host_names,
        "mac_address": macs,
        "default_entry": st.booleans(),
        "remove": st.just(value=False),
        "ipv4_address": addresses,
    },
    optional={"default_gateway": addresses, "ipv6_duid": anything, "dns_addresses": anything},
)
networks = st.builds(
    Network,
    st.just("eth0"),
    st.just("10.31.32.0/24"),
    addresses,
    st.integers(1, 32),
    gateway=addresses | st.just(""),
    servers=st.lists(addresses, max_size=3).map(tuple),
    domain=domains,
    search=st.lists(domains, max_size=4).map(tuple),
    mtu=st.just(0) | st.integers(576, 65535),
    data_server=addresses | st.just(""),
)


def judge(lines: Sequence[str]) -> str:
    """What dnsmasq says to a configuration of these lines."""
    with TemporaryDirectory() as directory:
        path = Path(directory) / "conf"
        path.write_text("".join(f"{line}\n" for line in lines))
        argv = ["dnsmasq", "--test", "-C", str(path)]
        return subprocess.run(argv, capture_output=True, text=True, check=False, timeout=20).stderr


def told(*commands: Mapping[str, Any]) -> config.Config:
    """The bags after these messages, without those that were refused."""
    bags = config.EMPTY
    for command in ({"type": "cmdline", "cmd_line": LINE}, *commands):
        try:
            bags = config.merge(bags, config.decode(msgspec.json.encode(command)), FACTS).config
        except Rejected:
            continue
    return bags


def texts(bags: config.Config) -> dict[str, str]:
    state = desired(bags, FACTS).state
    return {resource.path: resource.text for resource in state.values() if isinstance(resource, File)}


def lines(text: str, option: str) -> list[str]:
    """A file's lines as the option of dnsmasq.conf that each of them is; a newline alone ends one."""
    assert text.endswith("\n") or not text
    return [f"{option}={line}" for line in text.split("\n")[:-1]]


@RULES
@given(st.lists(entries, max_size=40))
def test_whatever_is_accepted_is_taken_by_dnsmasq(commands: list[dict[str, Any]]) -> None:
    bags = told(*commands)
    known, files = bags["dhcpentry"].hosts, texts(bags)
    hosts = lines(files[dnsmasq.HOSTS], "dhcp-host")
    names = [line.split("\t") for line in files[dnsmasq.NAMES].split("\n")[:-1]]
    records = [f"host-record={name},{address}" for address, name in names if " " not in name]

    assert len(hosts) == len(known)
    assert len(names) <= 4 + len(known)
    assert [address for address, name in names if name == LINE["name"]] == [LINE["eth0ip"]], "never a loopback address"
    options = lines(files[dnsmasq.OPTIONS], "dhcp-option")
    assert judge([*hosts, *options, *lines(files[dnsmasq.NETWORK_OPTIONS], "dhcp-option"), *records]) == OK
    assert judge(files[dnsmasq.CONF].split("\n")) == OK


@RULES
@given(st.lists(networks, max_size=20), domains)
def test_whatever_a_network_is_called_dnsmasq_takes_it(given_networks: list[Network], domain: str) -> None:
    options = lines(dnsmasq.network_options(given_networks), "dhcp-option")
    hosts = [Host(address="10.31.32.9", name="web1")]
    more = [line.split("\t") for line in dnsmasq.more_names(hosts, domain).split("\n")[:-1]]

    assert judge([*options, *(f"host-record={name},{address}" for address, name in more)]) == OK
    assert judge(dnsmasq.configuration(given_networks, domain, dns=True, tftp=True).split("\n")) == OK


def test_the_judge_is_one() -> None:
    assert "bad DHCP host name" in judge(["dhcp-host=02:00:00:00:00:01,10.1.1.5,Ab--c,infinite"])
    assert "bad" in judge(["dhcp-option=tag:x,15,a,b"]) or judge(["dhcp-option=tag:x,3,nonsense"]) != OK


@RULES
@given(st.lists(entries, max_size=8))
def test_no_vm_is_worth_a_restart(commands: list[dict[str, Any]]) -> None:
    assert texts(told(*commands))[dnsmasq.CONF] == texts(told())[dnsmasq.CONF]


@RULES
@given(st.lists(entries, max_size=8), st.randoms(use_true_random=False))
def test_the_order_of_arrival_is_forgotten(commands: list[dict[str, Any]], random: Any) -> None:
    bags = told(*commands)
    hosts = [*bags["dhcpentry"].hosts.items()]
    random.shuffle(hosts)
    other = {**bags, "dhcpentry": msgspec.structs.replace(bags["dhcpentry"], hosts=dict(hosts))}

    assert texts(other) == texts(bags)


@pytest.mark.parametrize("name", ["ignore", "infinite", "7", "12h", "3W"])
def test_a_name_that_dnsmasq_would_read_as_something_else_stands_in_the_names_alone(name: str) -> None:
    known = {"02:00:00:00:00:01": Host(address="10.1.1.5", name=name)}

    assert dnsmasq.hosts(known) == "02:00:00:00:00:01,10.1.1.5,infinite\n"
    assert f"10.1.1.5\t{name}\n" in dnsmasq.names(known, "r")


@pytest.mark.parametrize(
    "name", ["data-server", "LOCALHOST", "ip6-loopback", "www.bank.example", "größe", "a_b", " a", ""]
)
def test_a_name_that_dns_must_not_carry_is_in_no_file(name: str) -> None:
    known = {"02:00:00:00:00:01": Host(address="10.1.1.5", name=name)}

    assert dnsmasq.hosts(known) == "02:00:00:00:00:01,10.1.1.5,infinite\n"
    assert "10.1.1.5" not in dnsmasq.names(known, "r")


def test_the_formats_that_management_servers_read() -> None:
    known = {
        "02:00:00:00:00:01": Host(address="10.1.1.5", name="web1"),
        "02:00:00:00:00:02": Host(address="10.1.1.6", name="web2", default=False),
    }

    assert dnsmasq.hosts(known) == (
        "02:00:00:00:00:01,10.1.1.5,web1,infinite\n02:00:00:00:00:02,set:10_1_1_6,10.1.1.6,web2,infinite\n"
    )
    assert dnsmasq.options(known) == "10_1_1_6,3\n10_1_1_6,6\n10_1_1_6,15\n"


def test_the_routers_own_name_is_its_address_where_the_guest_is() -> None:
    alias = {
        "type": "ipaliases",
        "aliases": [{"revoke": False, "ip_address": "10.31.33.50", "netmask": "255.255.255.0", "count": 1}],
    }
    localhost = "127.0.0.1\tlocalhost\n::1\tlocalhost ip6-localhost ip6-loopback\n"

    assert texts(told(alias))[dnsmasq.NAMES] == (
        f"{localhost}10.31.32.50\tdata-server\n10.31.33.50\tdata-server\n10.31.32.50\tr-31-VM\n10.31.33.50\tr-31-VM\n"
    )
    assert dnsmasq.names({}, "r") == f"{localhost}127.0.1.1\tr\n", "where nobody asks"


def test_dhcp_is_open_only_where_a_vm_is_known() -> None:
    alias = {
        "type": "ipaliases",
        "aliases": [{"revoke": False, "ip_address": "10.31.33.50", "netmask": "255.255.255.0", "count": 1}],
    }
    entry = {
        "type": "dhcpentry", "host_name": "a", "mac_address": "02:00:00:00:00:01", "default_entry": True,
        "ipv4_address": "10.31.33.9",
    }  # fmt: skip

    def is_open(*commands: Mapping[str, Any]) -> bool:
        state = desired(told(*commands), FACTS).state
        held = state["Elements", "router_service"]
        assert isinstance(held, Elements)
        return '"eth0" . udp . 67' in held.entries

    assert not is_open(alias)
    assert not is_open(entry)  # its network is not here yet
    assert is_open(entry, alias)
    assert not is_open(entry, alias, {**entry, "remove": True})


def test_an_entry_keeps_what_a_later_release_asks_for() -> None:
    entry = {
        "type": "dhcpentry", "host_name": "a", "mac_address": "02:00:00:00:00:0A", "default_entry": True,
        "ipv4_adress": "10.31.32.9", "default_gateway": NOWHERE, "ipv6_address": "2001:db8::9",
        "ipv6_duid": "00:03:00:01:02:00:00:00:00:0a",
    }  # fmt: skip

    assert told(entry)["dhcpentry"].hosts == {
        "02:00:00:00:00:0a": Host(
            address="10.31.32.9",
            name="a",
            ipv6={"ipv6_address": "2001:db8::9", "ipv6_duid": "00:03:00:01:02:00:00:00:00:0a"},
        )
    }
