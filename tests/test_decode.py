"""Wrong and hostile messages: refused with the place named, nothing changed, and the next good one works."""

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import msgspec
import pytest

from fake_machine import BOOT_LINE, NICS, FakeMachine
from holdfast import agent
from holdfast.agent import Answer
from holdfast.config import EMPTY, decode, merge
from holdfast.desired import desired
from holdfast.intake import Event
from holdfast.router import Facts
from holdfast.state import Elements, File
from holdfast.store import Store


class Router:
    """A running router with a firewall rule, a VM and a port forward."""

    def __init__(self, root: Path) -> None:
        self.machine = FakeMachine(NICS)
        self.store = Store(root / "etc/cloudstack")
        for event in (BOOT_LINE, Event("fw", encode(firewall())), Event("vm", encode(dhcp()))):
            assert self.send(event.document, event.name).code == 0

    def send(self, document: bytes, name: str = "message.json") -> Answer:
        return agent.handle([Event(name, document)], self.store, self.machine, cause="test")

    def everything(self) -> tuple[dict[Any, Any], Any]:
        return dict(self.machine.held), agent.current(self.store)


@pytest.fixture
def router(tmp_path: Path) -> Router:
    return Router(tmp_path)


encode = msgspec.json.encode


def firewall(**fields: object) -> dict[str, Any]:
    rule = {
        "id": 7001, "src_ip": "198.51.100.20", "protocol": "tcp", "src_port_range": [22, 22], "revoked": False,
        "already_added": False, "source_cidr_list": ["192.0.2.0/24"], "dest_cidr_list": [], "purpose": "Firewall",
        "traffic_type": "Ingress", "default_egress_policy": False,
    }  # fmt: skip
    return {"rules": [without({**rule, **fields})], "type": "firewallrules", "delete_from_processed_cache": False}


def dhcp(**fields: object) -> dict[str, Any]:
    entry = {
        "host_name": "web1", "mac_address": "02:00:1f:00:01:0b", "ipv4_address": "10.31.0.11",
        "default_gateway": "10.31.0.1", "default_entry": True, "remove": False, "type": "dhcpentry",
    }  # fmt: skip
    return without({**entry, **fields})


def address(**fields: object) -> dict[str, Any]:
    unit = {
        "public_ip": "198.51.100.21", "source_nat": False, "add": True, "one_to_one_nat": False, "first_i_p": False,
        "gateway": "198.51.100.1", "netmask": "255.255.255.0", "vif_mac_address": "1e:00:c6:33:64:14",
        "nic_dev_id": 2, "new_nic": False, "nw_type": "Public", "is_private_gateway": False,
    }  # fmt: skip
    return {"ip_address": [without({**unit, **fields})], "type": "ips"}


def forward(**fields: object) -> dict[str, Any]:
    unit = {
        "revoke": False, "protocol": "tcp", "source_ip_address": "198.51.100.20", "source_port_range": "80:80",
        "destination_ip_address": "10.31.0.11", "destination_port_range": "80:80", "source_cidr_list": "",
    }  # fmt: skip
    return {"rules": [without({**unit, **fields})], "type": "forwardrules"}


def boot(**fields: object) -> dict[str, Any]:
    given = msgspec.json.decode(BOOT_LINE.document)
    return {**given, "cmd_line": without({**given["cmd_line"], **fields})}


def without(fields: dict[str, Any]) -> dict[str, Any]:
    """`None` takes a field away."""
    return {name: value for name, value in fields.items() if value is not None}


HOSTILE = "10.0.0.0/8; touch X #"
LONG = "9" * 100_000

NO_MESSAGE = {
    "truncated": b'{"rules":[{"id":7001',
    "empty": b"",
    "a list": b"[]",
    "a word": b'"firewallrules"',
    "no type": b'{"rules":[]}',
    "type is a number": b'{"rules":[],"type":7}',
    "unknown type": b'{"type":"teapot"}',
    "unknown type of shell text": b'{"type":"; reboot"}',
    "not UTF-8": b'{"type":"dhcpentry","host_name":"\xff\xfe"}',
    "NUL": b"\x00" * 64,
    "two objects": b'{"type":"ips","ip_address":[]}{"type":"ips","ip_address":[]}',
    "deep nesting": b'{"type":"firewallrules","rules":' + b"[" * 100_000 + b"]" * 100_000 + b"}",
    "deep nesting in an unknown field": b'{"type":"ips","ip_address":[],"x":' + b"[" * 100_000 + b"]" * 100_000 + b"}",
    "deep objects": b'{"a":' * 100_000 + b"1" + b"}" * 100_000,
    "units are no list": b'{"type":"firewallrules","rules":{"id":1}}',
    "units are absent": b'{"type":"firewallrules"}',
    "boot line is a text": b'{"type":"cmdline","cmd_line":"type=router"}',
}


@pytest.mark.parametrize("document", NO_MESSAGE.values(), ids=NO_MESSAGE.keys())
def test_what_is_no_message_is_refused_whole(router: Router, document: bytes) -> None:
    assert_refused(router, document, "")


WRONG = {
    "firewall without src_ip": (firewall(src_ip=None), "rules[0].src_ip"),
    "firewall without id": (firewall(id=None), "rules[0]"),
    "firewall CIDR out of range": (firewall(source_cidr_list=["999.1.2.3/24"]), "rules[0].source_cidr_list[0]"),
    "firewall CIDR of shell text": (firewall(source_cidr_list=[HOSTILE]), "rules[0].source_cidr_list[0]"),
    "firewall CIDR that ends in a line break": (
        firewall(source_cidr_list=["10.0.0.0/8\n"]), "rules[0].source_cidr_list[0]"),
    "firewall CIDR of nft text": (
        firewall(source_cidr_list=["10.0.0.0/8 } ; flush ruleset"]), "rules[0].source_cidr_list[0]"),
    "firewall CIDR of prefix 33": (firewall(source_cidr_list=["10.0.0.0/33"]), "rules[0].source_cidr_list[0]"),
    "firewall CIDR of foreign digits": (
        firewall(source_cidr_list=["\uff11\uff10.0.0.0/8"]), "rules[0].source_cidr_list[0]"),
    "firewall CIDR very long": (firewall(source_cidr_list=[LONG]), "rules[0].source_cidr_list[0]"),
    "firewall destination": (firewall(dest_cidr_list=[HOSTILE]), "rules[0].dest_cidr_list[0]"),
    "firewall port 65536": (firewall(src_port_range=[22, 65536]), "rules[0].src_port_range[1]"),
    "firewall port negative": (firewall(src_port_range=[-1, 22]), "rules[0].src_port_range[0]"),
    "firewall port of text": (firewall(src_port_range=["22", 22]), "rules[0].src_port_range[0]"),
    "firewall port of fraction": (firewall(src_port_range=[22.5, 23]), "rules[0].src_port_range[0]"),
    "firewall three ports": (firewall(src_port_range=[22, 23, 24]), "rules[0].src_port_range"),
    "firewall range goes down": (firewall(src_port_range=[90, 80]), "rules[0].src_port_range"),
    "firewall no ports": (firewall(src_port_range=[]), "rules[0].src_port_range"),
    "firewall icmp type 300": (firewall(protocol="icmp", icmp_type=300), "rules[0].icmp_type"),
    "firewall protocol": (firewall(protocol="tcp; reboot"), "rules[0].protocol"),
    "firewall traffic_type": (firewall(traffic_type="Sideways"), "rules[0].traffic_type"),
    "firewall id of text": (firewall(id="7001"), "rules[0].id"),
    "firewall revoked of text": (firewall(revoked="false"), "rules[0].revoked"),
    "ip 300": (address(public_ip="203.0.113.300"), "ip_address[0].public_ip"),
    "ip with leading zeros": (address(public_ip="198.051.100.21"), "ip_address[0].public_ip"),
    "ip without netmask": (address(netmask=None), "ip_address[0].netmask"),
    "ip netmask with a hole": (address(netmask="255.0.255.0"), "ip_address[0].netmask"),
    "ip netmask of everything": (address(netmask="0.0.0.0"), "ip_address[0].netmask"),  # noqa: S104 a wrong netmask
    "ip gateway of shell text": (address(gateway="198.51.100.1; touch X"), "ip_address[0].gateway"),
    "ip gateway elsewhere": (address(gateway="192.0.2.1"), "ip_address[0].gateway"),
    "ip mac": (address(vif_mac_address=".*"), "ip_address[0].vif_mac_address"),
    "ip mtu": (address(mtu=100), "ip_address[0].mtu"),
    "ip mtu of 1e999": (address(mtu=msgspec.Raw(b"1e999")), "ip_address[0].mtu"),
    "ip nic number of text": (address(nic_dev_id="2; reboot"), "ip_address[0].nic_dev_id"),
    "forward port of shell text": (forward(source_port_range="22:22; touch X"), "rules[0].source_port_range"),
    "forward port negative": (forward(source_port_range="-1:5"), "rules[0].source_port_range"),
    "forward port 0": (forward(source_port_range="0:0"), "rules[0].source_port_range"),
    "forward port 65536": (forward(source_port_range="65536:65536"), "rules[0].source_port_range"),
    "forward port of foreign digits": (
        forward(source_port_range="\uff12\uff12:\uff12\uff12"), "rules[0].source_port_range"),
    "forward port very long": (forward(source_port_range=LONG), "rules[0].source_port_range"),
    "forward target port": (forward(destination_port_range="80:$(id)"), "rules[0].destination_port_range"),
    "forward protocol": (forward(protocol="tcp\nudp"), "rules[0].protocol"),
    "forward target": (forward(destination_ip_address="10.31.0.11 ."), "rules[0].destination_ip_address"),
    "forward source": (forward(source_cidr_list=HOSTILE), "rules[0].source_cidr_list"),
    "dhcp name with a line break": (dhcp(host_name="a\n02:00:00:00:00:09,10.31.0.9,evil,infinite"), "host_name"),
    "dhcp name with a unicode line break": (dhcp(host_name="a\u2028b"), "host_name"),
    "dhcp name with NUL": (dhcp(host_name="a\x00b"), "host_name"),
    "dhcp name very long": (dhcp(host_name=LONG), "host_name"),
    "dhcp name empty": (dhcp(host_name=""), "host_name"),
    "dhcp mac is a pattern": (dhcp(mac_address=".*"), "mac_address"),
    "dhcp mac ends in a line break": (dhcp(mac_address="02:00:1f:00:01:0b\n"), "mac_address"),
    "dhcp ip": (dhcp(ipv4_address="10.31.300.4"), "ipv4_address"),
    "dhcp without an address": (dhcp(ipv4_address=None), "ipv4_address"),
    "dhcp without default_entry": (dhcp(default_entry=None), "default_entry"),
    "dhcp gateway": (dhcp(default_gateway="10.31.0.1,6,8.8.8.8"), "default_gateway"),
    "vmdata path": ({"type": "vmdata", "vm_ip_address": "../../../../../tmp/trav", "vm_metadata": []}, "vm_ip_address"),
    "vmpassword path": ({"type": "vmpassword", "ip_address": "../x", "password": "x"}, "ip_address"),
    "boot type": (boot(type="toaster"), "cmd_line.type"),
    "boot name with a blank": (boot(name="r-31 VM"), "cmd_line.name"),
    "boot name with a line break": (boot(name="r-31\nConf"), "cmd_line.name"),
    "boot domain with a line break": (boot(domain="a\nconf-file=/etc/shadow"), "cmd_line.domain"),
    "boot address": (boot(eth0ip="10.31.0.1/24"), "cmd_line.eth0ip"),
    "boot netmask": (boot(eth0mask="255.255.0.255"), "cmd_line.eth0mask"),
    "boot netmask absent": (boot(eth2mask=None), "cmd_line.eth2mask"),
    "boot gateway": (boot(gateway="$(reboot)"), "cmd_line.gateway"),
    "boot dns": (boot(dns1="8.8.8.8,9.9.9.9"), "cmd_line.dns1"),
    "boot mtu": (boot(publicMtu="-1"), "cmd_line.publicMtu"),
    "boot mtu of foreign digits": (boot(publicMtu="\u00b2"), "cmd_line.publicMtu"),
    "boot mtu very long": (boot(publicMtu=LONG), "cmd_line.publicMtu"),
    "boot netmask of everything": (boot(eth0mask="0.0.0.0"), "cmd_line.eth0mask"),  # noqa: S104 a wrong netmask
    "boot mac": (boot(nic_macs="02:00:1f:00:00:01|.*"), "cmd_line.nic_macs"),
    "boot mgmtcidr": (boot(mgmtcidr="10.0.0.0/8,x"), "cmd_line.mgmtcidr"),
}  # fmt: skip


@pytest.mark.parametrize(("message", "path"), WRONG.values(), ids=WRONG.keys())
def test_a_wrong_message_is_refused_with_its_place(router: Router, message: dict[str, Any], path: str) -> None:
    assert_refused(router, encode(message), path)


def assert_refused(router: Router, document: bytes, path: str) -> None:
    before = router.everything()
    for _ in range(2):
        answer = router.send(document)
        assert answer.code == 2
        assert answer.changes == ()
        assert any(path in text for text in answer.refused), answer.refused
        assert all(len(text) < 2000 and "\n" not in text for text in answer.refused)
        assert router.everything() == before

    good = router.send(encode(firewall(id=7999, src_port_range=[8443, 8443])))
    assert (good.code, len(good.changes)) == (0, 1)


TOLERATED = {
    "host bits": firewall(source_cidr_list=["192.0.2.77/24"]),
    "a duplicate key: the last counts": msgspec.Raw(
        b'{"type":"dhcpentry","host_name":"a","host_name":"web1","mac_address":"02:00:1f:00:01:0b",'
        b'"ipv4_address":"10.31.0.11","default_gateway":"10.31.0.1","default_entry":true}'
    ),
    "null where a field may be absent": dhcp(ipv6_address=msgspec.Raw(b"null")),
}


@pytest.mark.parametrize("message", TOLERATED.values(), ids=TOLERATED.keys())
def test_what_means_the_same_changes_nothing(router: Router, message: object) -> None:
    before = router.machine.held

    assert router.send(encode(message)).code == 0
    assert router.machine.held == before


def test_unknown_fields_are_accepted_and_counted(router: Router) -> None:
    message = firewall(new_in_this_unit=1)
    answer = router.send(encode({**message, "new_here": {}}))

    assert answer.code == 0
    assert answer.unknown == ("firewallrules.new_here", "firewallrules.rules[].new_in_this_unit")


def test_an_endless_list_of_bad_units_is_answered_without_drowning(router: Router) -> None:
    message = firewall()
    message["rules"] = [{"id": f"x{n}"} for n in range(5000)]

    answer = router.send(encode(message))

    assert answer.code == 2
    assert sum(len(text) for text in answer.refused) < 2_000_000


def test_one_bad_unit_said_many_times_is_still_nothing_accepted(router: Router) -> None:
    message = firewall(src_port_range=[90, 80])
    message["rules"] *= 3

    assert_refused(router, encode(message), "rules[2].src_port_range")


EVIL = ("touch X", "evil", "$(", "\x00", "../", "flush ruleset", ".*")


def accepted_messages() -> Iterator[dict[str, Any]]:
    """Hostile text in every field that takes any text at all."""
    yield dhcp(host_name="a; touch X #")
    yield dhcp(host_name="../../evil")
    yield dhcp(host_name='$(touch X)",evil,', mac_address="02:00:1f:00:01:0c", ipv4_address="10.31.0.12")
    yield dhcp(host_name=".*", mac_address="02:00:1f:00:01:0d", ipv4_address="10.31.0.13")
    yield dhcp(dns_addresses=HOSTILE, ipv6_address=HOSTILE, ipv6_duid=HOSTILE)
    yield firewall(purpose=HOSTILE, guest_cidr=HOSTILE)
    yield address(nw_type="Public; touch X", public_ip="198.51.100.22")
    yield {"type": "vmdata", "vm_ip_address": "10.31.0.11", "vm_metadata": [["../../etc/cron.d", "evil", "$(touch X)"]]}
    yield {"type": "vmpassword", "ip_address": "10.31.0.11", "password": "$(touch X)\nevil"}
    yield boot(userdata="$(touch X)", logrotatefrequency="*:00:00;touch X", vmpassword="evil\n")


def test_no_hostile_text_reaches_a_file_an_element_or_an_argument() -> None:
    config, facts = EMPTY, Facts(NICS)
    for document in (BOOT_LINE.document, *map(encode, accepted_messages())):
        config = merge(config, decode(document), facts).config
    state = desired(config, facts).state

    # Of JSON no text gets out: the view is whatever was told, as one document.
    view = state.pop(("File", "/run/holdfast/guest/view.json"))
    assert isinstance(view, File)
    assert view.secret
    assert "$(touch X)\nevil" in json.loads(view.text)["guests"]["10.31.0.11"].values()
    texts = [str(resource) for resource in state.values()]
    assert [text for text in texts if any(word in text for word in EVIL)] == []
    assert any(isinstance(resource, File) and "10.31.0.13" in resource.text for resource in state.values())
    assert any(isinstance(resource, Elements) and "198.51.100.20" in str(resource) for resource in state.values())
