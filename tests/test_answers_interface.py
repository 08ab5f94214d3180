"""An MTU by script is the same message again with another MTU: nothing else of the bags changes."""

import json
from typing import Any

import msgspec
import pytest

from fake_machine import BOOT_LINE, NICS, PUBLIC
from holdfast.answers.update_interface_config import Told, retold, with_mtu
from holdfast.config import EMPTY, Config
from holdfast.intake import Event, take
from holdfast.router import Facts, Nic, Router

TIER = Nic("02:00:2c:01:00:14", "eth3")
FACTS = Facts((*NICS, TIER))
IPS = {
    "public_ip": "203.0.113.50", "add": True, "netmask": "255.255.255.0", "gateway": "203.0.113.1", "nic_dev_id": 2,
    "vif_mac_address": PUBLIC.mac, "source_nat": True, "nw_type": "Public", "mtu": 1500,
}  # fmt: skip
GUEST = {
    "type": "guestnetwork", "add": True, "mac_address": TIER.mac, "device": "eth3", "router_guest_ip": "10.44.1.1",
    "router_guest_netmask": "255.255.255.0", "router_guest_gateway": "10.44.1.254", "dns": "192.0.2.53,192.0.2.54",
    "domain_name": "vpc44.example", "is_vr_guest_gateway": False, "network_id": 301, "mtu": 1450,
    "cidr6": "2001:db8::/64",
}  # fmt: skip


def taken(config: Config, *messages: dict[str, Any] | Event) -> Config:
    events = [one if isinstance(one, Event) else Event("x.json", json.dumps(one).encode()) for one in messages]
    found = take(config, events, FACTS)
    assert (found.refused, found.unknown) == ((), ())
    return found.config


@pytest.fixture(scope="module")
def config() -> Config:
    return taken(EMPTY, BOOT_LINE, {"type": "ips", "ip_address": [IPS]}, GUEST)


def told(config: Config, address: str) -> Told:
    found = retold(Router(config, FACTS), address, 1400)
    assert found is not None
    return found


@pytest.mark.parametrize(("address", "bag"), [("203.0.113.50", "ips"), ("10.44.1.1", "guestnetwork")])
def test_only_the_mtu_differs(config: Config, address: str, bag: str) -> None:
    after = taken(config, told(config, address).message)

    assert {name for name in config if config[name] != after[name]} == {bag}
    before, now = (msgspec.to_builtins(held[bag]) for held in (config, after))
    ((of_before,),) = ([*one.values()] for one in before.values())
    ((of_now,),) = ([*one.values()] for one in now.values())
    assert of_now == of_before | {"mtu": 1400}


def test_the_boot_lines_own_addresses_are_the_boot_lines(config: Config) -> None:
    assert told(config, "10.31.0.1") == Told({}, "privateMtu", 1400)
    # What the server has associated since is said by its message, even if the line said it first.
    assert told(config, "198.51.100.20") == Told({}, "publicMtu", 1400)

    message = with_mtu(json.loads(BOOT_LINE.document), "privateMtu", 1400)
    after = taken(config, message)
    assert after["cmdline"] == msgspec.structs.replace(config["cmdline"], private_mtu=1400)


@pytest.mark.parametrize("address", ["10.31.0.9", "169.254.31.2", "0.0.0.0"])  # noqa: S104 an address that nobody has
def test_the_control_nic_and_strangers_are_not_found(config: Config, address: str) -> None:
    assert retold(Router(config, FACTS), address, 1400) is None
