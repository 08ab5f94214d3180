"""What guests are served: leases, metadata, user data and passwords, each its own and nobody else's."""

import gzip
import json
from collections.abc import Callable, Iterator
from urllib.parse import unquote

import pytest
from isolated import BOOT, GUEST_GATEWAY, GUEST_NET, SOURCE_NAT, Isolated, isolated, mac_of
from served import NONE_WAITS, NOTHING, Message, asks, bundle, hears_nothing, listed, metadata, password, read, told
from tiers import APP, APP1, DB, TIERS, WEB, WEB1, WEB2, Vpc, also, vpc
from watching import must

from holdfast.lab import cloud_init
from holdfast.lab.guest import Guest
from holdfast.lab.host import REFUSED_S

pytestmark = pytest.mark.lab

MACHINES = 200
WEB_ADDRESS, APP_ADDRESS, DB_ADDRESS = "10.31.5.10", "10.31.5.11", "10.31.5.12"
SECRET = "only-web1-may-know"  # noqa: S105 what others must not see
SECRET_PASSWORD = "web1-s3cret"  # noqa: S105 same


@pytest.fixture(scope="module")
def net() -> Iterator[Isolated]:
    with isolated("guests") as net:
        yield net


@pytest.fixture(scope="module")
def tiers() -> Iterator[Vpc]:
    with vpc("guesttiers") as net:
        for guest, _, address in net.guests:
            net.command("vm_metadata", metadata(address, named(guest.name), guest.name.encode()), check=False)
            net.command("vm_password", password(address, f"pw-{guest.name}"), check=False)
        net.converged()
        yield net


def named(name: str) -> dict[str, str]:
    """The least metadata that cloud-init takes for metadata."""
    return {"local-hostname": name, "instance-id": f"id-of-{name}", "availability-zone": "zone1"}


def about(name: str) -> dict[str, str | None]:
    """Metadata as the management server sends it."""
    return {
        "service-offering": "Small Instance, 1 vCPU, 1 GB",
        "availability-zone": "z\\u00fcrich",
        "local-hostname": name,
        "instance-id": f"id-of-{name}",
        "public-keys": f"ssh-ed25519 AAAA{name} alice@laptop",
        "hypervisor-host-name": None,
    }


def seen(name: str) -> dict[str, str]:
    """The same as the VM reads it: a value that is null is an empty file."""
    return {key: value or "" for key, value in about(name).items()}


def learns(net: Isolated, address: str, name: str, userdata: bytes | None = None, secret: str = "") -> None:
    net.command("vm_metadata", metadata(address, about(name), userdata), check=not secret)
    if secret:
        net.command("vm_password", password(address, secret))


def test_a_vm_reads_its_own_metadata_and_user_data_over_http_and_https(net: Isolated) -> None:
    binary = bytes(range(256)) * 300
    learns(net, WEB_ADDRESS, "web1", binary)
    learns(net, APP_ADDRESS, "app1", b"")

    assert read(net.web, GUEST_GATEWAY) == seen("web1")
    assert read(net.app, GUEST_GATEWAY) == seen("app1")
    assert asks(net.web, GUEST_GATEWAY, "/latest/user-data") == (200, binary)
    assert asks(net.web, GUEST_GATEWAY, "/latest/user-data", port=443, tls=True) == (200, binary)
    assert asks(net.app, GUEST_GATEWAY, "/latest/user-data") == (200, b"")
    assert asks(net.web, GUEST_GATEWAY, "/latest/instance-id") == (200, b"id-of-web1")
    assert asks(net.web, GUEST_GATEWAY, f"/metadata/{WEB_ADDRESS}/instance-id") == (200, b"id-of-web1")

    # A message replaces all that was known; content that is "" is no file.
    gone = [["userdata", "user-data", ""], ["metadata", "vm-id", ""]]
    net.command("vm_metadata", metadata(APP_ADDRESS, {}) | {"vm_metadata": gone})
    assert asks(net.app, GUEST_GATEWAY, "/latest/user-data").status == 404
    assert asks(net.app, GUEST_GATEWAY, "/latest/vm-id").status == 404
    net.command("vm_metadata", metadata(WEB_ADDRESS, {"local-hostname": "web1"}))
    assert read(net.web, GUEST_GATEWAY) == {"local-hostname": "web1"}
    assert asks(net.web, GUEST_GATEWAY, "/latest/user-data").status == 404
    assert asks(net.db, GUEST_GATEWAY, "/latest/user-data").status == 404
    assert listed(net.db, GUEST_GATEWAY) == []


def restart(net: Isolated) -> None:
    done = net.router.shell(["systemctl", "restart", "holdfast-guest.service"])
    assert done.code == 0, done.errors


def crash(net: Isolated) -> None:
    net.router.crash()
    net.router.boot()
    net.converged()


@pytest.mark.parametrize("disrupt", [restart, crash, Isolated.power_cut])
def test_a_password_is_given_until_it_was_taken_and_never_again(
    net: Isolated, disrupt: Callable[[Isolated], None]
) -> None:
    word = disrupt.__name__
    net.command("vm_password", password(WEB_ADDRESS, f"taken {word} =&'\" ü"))
    net.command("vm_password", password(APP_ADDRESS, f"waits {word}"))
    net.command("vm_password", password(DB_ADDRESS, NONE_WAITS))
    for _ in range(2):
        assert told(net.web, GUEST_GATEWAY) == f"taken {word} =&'\" ü"
    assert told(net.app, GUEST_GATEWAY) == f"waits {word}"
    assert told(net.web, GUEST_GATEWAY, NONE_WAITS) == NONE_WAITS
    assert told(net.web, GUEST_GATEWAY) == NONE_WAITS

    disrupt(net)

    assert told(net.web, GUEST_GATEWAY) == NONE_WAITS
    assert told(net.app, GUEST_GATEWAY) == f"waits {word}"
    assert told(net.app, GUEST_GATEWAY, NONE_WAITS) == NONE_WAITS
    assert told(net.app, GUEST_GATEWAY) == NONE_WAITS
    assert told(net.db, GUEST_GATEWAY) == NONE_WAITS
    net.converged()

    # Set once more, even to what it was, it waits again.
    net.command("vm_password", password(APP_ADDRESS, f"waits {word}"))
    net.command("vm_password", password(WEB_ADDRESS, f"new {word}"))
    assert told(net.app, GUEST_GATEWAY) == f"waits {word}"
    assert told(net.web, GUEST_GATEWAY) == f"new {word}"
    for guest in (net.web, net.app):
        assert told(guest, GUEST_GATEWAY, NONE_WAITS) == NONE_WAITS
        assert told(guest, GUEST_GATEWAY) == NONE_WAITS


def test_an_acknowledgement_is_for_what_was_delivered(net: Isolated) -> None:
    net.command("vm_password", password(WEB_ADDRESS, "first"))
    assert told(net.web, GUEST_GATEWAY) == "first"
    net.command("vm_password", password(WEB_ADDRESS, "second"))
    restart(net)

    assert told(net.web, GUEST_GATEWAY, NONE_WAITS) == NONE_WAITS

    assert told(net.web, GUEST_GATEWAY) == "second"
    assert told(net.web, GUEST_GATEWAY, NONE_WAITS) == NONE_WAITS
    assert told(net.web, GUEST_GATEWAY) == NONE_WAITS


@pytest.mark.parametrize("word", ["", "save_password", "send_my_password2", "x" * 2000])
def test_an_unknown_word_gets_no_password(net: Isolated, word: str) -> None:
    net.command("vm_password", password(WEB_ADDRESS, SECRET_PASSWORD))
    answer = asks(net.web, GUEST_GATEWAY, "/", port=8080, headers=[f"DomU_Request: {word}"])
    assert SECRET_PASSWORD.encode() not in answer.body
    assert answer.body.strip() == b"bad_request"


def test_cloud_init_reads_everything(net: Isolated) -> None:
    config = b"#cloud-config\nfinal_message: unpacked\n"
    packed = gzip.compress(config)
    learns(net, WEB_ADDRESS, "web1", packed, "for cloud-init")
    learns(net, APP_ADDRESS, "app1", bytes(range(256)))

    found = cloud_init.reads(net.web)

    assert found["router"] == GUEST_GATEWAY
    assert found["metadata"] == seen("web1")
    assert found["userdata"] == packed
    assert ("text/cloud-config", config.decode()) in map(tuple, found["parts"])
    assert found["password"] == "for cloud-init"  # noqa: S105 the test's own
    assert told(net.web, GUEST_GATEWAY) == NONE_WAITS
    other = cloud_init.reads(net.app)
    assert other["metadata"] == seen("app1")
    assert other["userdata"] == bytes(range(256))
    assert other["password"] is None


def test_two_hundred_vms_boot_at_once_and_each_gets_its_own(net: Isolated) -> None:
    macs = [f"02:1a:33:00:02:{number:02x}" for number in range(MACHINES)]
    addresses = [f"10.31.5.{20 + number}" for number in range(MACHINES)]
    net.router.send(bundle(messages(macs, addresses)), "VR-200.cfg")
    done = net.router.run("vr_cfg.sh", "-c", "/var/cache/cloud/VR-200.cfg")
    assert done.code == 0, done.text + done.errors
    net.converged()

    booted = net.lab.swarm(net.guest_segment, macs).boots()

    for number, vm in enumerate(booted):
        assert (vm.mac, vm.lease.address) == (macs[number], addresses[number])
        assert (vm.lease.router, vm.lease.domain, vm.lease.mtu) == (GUEST_GATEWAY, BOOT["domain"], 1450)
        assert vm.lease.hostname == f"vm{number}"
        assert vm.metadata == seen(f"vm{number}")
        assert vm.userdata == f"#!/bin/sh\n# {number}\n".encode()
        assert (vm.password, vm.acknowledged, vm.again) == (f"pw-{number}", NONE_WAITS, NONE_WAITS)
    told_by = net.router.shell(["ip", "-4", "-j", "neighbour", "show", "dev", "eth0"]).text
    neighbours = {entry["dst"]: entry.get("lladdr") for entry in json.loads(told_by)}
    assert {address: neighbours[address] for address in addresses} == dict(zip(addresses, macs, strict=True))
    slowest, lease = max(vm.seconds for vm in booted), max(vm.lease_s for vm in booted)
    print(f"{MACHINES} VMs: bundle {done.seconds:.2f} s, leases {lease:.2f} s, all {slowest:.2f} s")  # noqa: T201 measured


def messages(macs: list[str], addresses: list[str]) -> Iterator[tuple[str, Message]]:
    """Everything that makes VMs known."""
    for number, (mac, address) in enumerate(zip(macs, addresses, strict=True)):
        entry = {
            "host_name": f"vm{number}",
            "mac_address": mac,
            "ipv4_address": address,
            "ipv6_duid": f"00:03:00:01:{mac}",
            "dns_addresses": GUEST_GATEWAY,
            "default_gateway": GUEST_GATEWAY,
            "default_entry": True,
            "remove": False,
            "type": "dhcpentry",
        }
        yield "vm_dhcp_entry", entry
        yield "vm_password", password(address, f"pw-{number}")
        yield "vm_metadata", metadata(address, about(f"vm{number}"), f"#!/bin/sh\n# {number}\n".encode())


@pytest.fixture
def secret(net: Isolated) -> None:
    """web1 has something to hide."""
    net.command("vm_metadata", metadata(WEB_ADDRESS, {"local-hostname": SECRET}, SECRET.encode()))
    net.command("vm_password", password(WEB_ADDRESS, SECRET_PASSWORD))
    net.command("vm_metadata", metadata(APP_ADDRESS, {"local-hostname": "app1"}, b"app1"))
    net.command("vm_password", password(APP_ADDRESS, "pw-app1"))


TARGETS = (
    f"/metadata/{WEB_ADDRESS}/local-hostname",
    f"/metadata/{WEB_ADDRESS}/meta-data",
    f"/userdata/{WEB_ADDRESS}/user-data",
    f"/metadata/{WEB_ADDRESS}/",
    f"//metadata/{WEB_ADDRESS}/local-hostname",
    f"/metadata//{WEB_ADDRESS}//local-hostname",
    f"/metadata/{APP_ADDRESS}/../{WEB_ADDRESS}/local-hostname",
    f"/latest/../metadata/{WEB_ADDRESS}/local-hostname",
    f"/latest/meta-data/../../metadata/{WEB_ADDRESS}/local-hostname",
    f"/latest/%2e%2e/metadata/{WEB_ADDRESS}/local-hostname",
    f"/latest/%2E%2E/%2e%2e/userdata/{WEB_ADDRESS}/user-data",
    f"/metadata/{APP_ADDRESS}/%2e%2e%2f{WEB_ADDRESS}%2flocal-hostname",
    f"/metadata/%31%30.31.5.10/local-hostname",  # noqa: F541 beside its like
    "/latest/meta-data/../../../run/holdfast/guest/view.json",
    "/../../../../run/holdfast/guest/view.json",
    "/latest/%2e%2e/%2e%2e/%2e%2e/var/lib/holdfast-guest/receipts",
    "/latest/meta-data/%2e%2e%2f%2e%2e%2f%2e%2e%2fetc%2fpasswd",
    "/latest/meta-data/local-hostname%00",
    f"http://{WEB_ADDRESS}/metadata/{WEB_ADDRESS}/local-hostname",
    f"/latest/meta-data/local-hostname?ip={WEB_ADDRESS}",
)


@pytest.mark.usefixtures("secret")
def test_nothing_that_a_vm_can_write_into_a_question_gets_it_anothers_answer(net: Isolated) -> None:
    for target in TARGETS:
        for port, tls in ((80, False), (443, True), (8080, False)):
            answer = asks(net.app, GUEST_GATEWAY, target, port=port, tls=tls)
            assert not reveals(answer.body), (target, port, answer)
            assert b"root:" not in answer.body, (target, port)
            # The last one asks for its own name, with a word that means nothing.
            assert port == 8080 or "?" in target or answer.status in (400, 403, 404), (target, port, answer)
    headers = [f"{name}: {WEB_ADDRESS}" for name in ("X-Forwarded-For", "Host", "X-Real-IP", "Forwarded", "Client-IP")]
    assert asks(net.app, GUEST_GATEWAY, "/latest/local-hostname", headers=headers) == (200, b"app1")
    assert asks(net.app, GUEST_GATEWAY, "/latest/user-data", headers=headers) == (200, b"app1")
    word = "DomU_Request: send_my_password"
    answer = asks(net.app, GUEST_GATEWAY, f"/?ip={WEB_ADDRESS}", port=8080, headers=[word, *headers])
    assert answer.body.strip() == b"pw-app1"
    assert told(net.web, GUEST_GATEWAY) == SECRET_PASSWORD


def reveals(body: bytes) -> bool:
    return SECRET.encode() in body or SECRET_PASSWORD.encode() in body


NAMES = ("../x", "a/b", "..", ".", "two\nlines", "per%2ecent", "sp ace", "c\r\nX-Evil: 1", "nul\0", "ö", "a" * 300)


@pytest.mark.usefixtures("secret")
def test_names_of_any_kind_do_no_harm(net: Isolated) -> None:
    values: dict[str, str | None] = {name: f"value {number}" for number, name in enumerate(NAMES)}
    net.command("vm_metadata", metadata(APP_ADDRESS, {"local-hostname": "app1", **values}), check=False)
    net.converged()

    found = read(net.app, GUEST_GATEWAY)

    # A line of the list is a name, spelled so that it can be asked for as it stands: none is torn apart or invented.
    assert {unquote(line): value for line, value in found.items()} == {"local-hostname": "app1", **values}
    for name in NAMES:
        plain = asks(net.app, GUEST_GATEWAY, f"/latest/meta-data/{name}")
        assert not reveals(plain.body), name
    assert read(net.web, GUEST_GATEWAY) == {"local-hostname": SECRET}
    assert told(net.web, GUEST_GATEWAY) == SECRET_PASSWORD


@pytest.mark.usefixtures("secret")
def test_a_vm_that_takes_anothers_address_gets_nothing(net: Isolated) -> None:
    stranger = net.lab.guest("stranger", net.guest_segment, "02:1a:33:00:01:99")
    stranger.address("eth0", f"{WEB_ADDRESS}/24")
    # The owner is off, so nobody contends for the address.
    net.lab.cable(net.web, "eth0", up=False)
    try:
        hears_nothing(stranger, GUEST_GATEWAY)
        must(stranger, "ip", "address", "flush", "dev", "eth0")
        must(net.app, "ip", "address", "add", f"{WEB_ADDRESS}/24", "dev", "eth0")
        hears_nothing(net.app, GUEST_GATEWAY, source=WEB_ADDRESS)
        assert asks(net.app, GUEST_GATEWAY, "/latest/local-hostname", source=APP_ADDRESS) == (200, b"app1")
        must(net.app, "ip", "address", "delete", f"{WEB_ADDRESS}/24", "dev", "eth0")
    finally:
        net.lab.cable(net.web, "eth0", up=True)
    net.router.eventually(
        lambda: asks(net.web, GUEST_GATEWAY, "/latest/local-hostname") == (200, SECRET.encode()),
        "web1 reads its own again",
    )
    assert told(net.web, GUEST_GATEWAY) == SECRET_PASSWORD


@pytest.mark.usefixtures("secret")
def test_nobody_outside_the_network_is_answered(net: Isolated) -> None:
    net.world.route(GUEST_NET, SOURCE_NAT)
    hears_nothing(net.world, SOURCE_NAT, GUEST_GATEWAY)
    hears_nothing(net.web, SOURCE_NAT)
    # The sockets to which the firewall hands over.
    for port in (8580, 8543, 8588):
        assert asks(net.web, GUEST_GATEWAY, "/latest/local-hostname", port=port, timeout_s=REFUSED_S) == NOTHING


@pytest.mark.parametrize("told_to_go", [True, False])
def test_the_next_vm_at_an_address_sees_nothing_of_the_last(net: Isolated, *, told_to_go: bool) -> None:
    address, old_mac, new_mac = "10.31.5.15", f"02:1a:33:00:03:0{told_to_go:d}", f"02:1a:33:00:04:0{told_to_go:d}"
    net.dhcp("old", old_mac, address)
    net.command("vm_metadata", metadata(address, {"local-hostname": SECRET, "vm-id": SECRET}, SECRET.encode()))
    net.command("vm_password", password(address, SECRET_PASSWORD))
    old = net.lab.guest(f"old{told_to_go:d}", net.guest_segment, old_mac)
    old.gets_lease()
    assert told(old, GUEST_GATEWAY) == SECRET_PASSWORD
    old.unplug("eth0")
    if told_to_go:
        net.dhcp("old", old_mac, address, remove=True)

    net.dhcp("new", new_mac, address)
    new = net.lab.guest(f"new{told_to_go:d}", net.guest_segment, new_mac)
    assert new.gets_lease().address == address

    assert listed(new, GUEST_GATEWAY) == []
    for target in ("user-data", "local-hostname", "meta-data/vm-id"):
        assert asks(new, GUEST_GATEWAY, f"/latest/{target}").status == 404
    assert told(new, GUEST_GATEWAY) == NONE_WAITS
    assert told(new, GUEST_GATEWAY, NONE_WAITS) == NONE_WAITS
    net.command("vm_password", password(address, "its own"))
    net.command("vm_metadata", metadata(address, {"local-hostname": "new"}, b"new"))
    assert read(new, GUEST_GATEWAY) == {"local-hostname": "new"}
    assert asks(new, GUEST_GATEWAY, "/latest/user-data") == (200, b"new")
    assert told(new, GUEST_GATEWAY) == "its own"
    net.dhcp("new", new_mac, address, remove=True)
    assert told(new, GUEST_GATEWAY) == NONE_WAITS


def test_every_tier_serves_its_own_guests_at_its_own_gateway(tiers: Vpc) -> None:
    for guest, tier, _ in tiers.guests:
        assert read(guest, tier.gateway) == named(guest.name)
        assert asks(guest, tier.gateway, "/latest/user-data") == (200, guest.name.encode())
        assert told(guest, tier.gateway) == f"pw-{guest.name}"


def test_no_other_tiers_gateway_answers(tiers: Vpc) -> None:
    for guest, tier, _ in (tiers.guests[0], tiers.guests[2]):
        hears_nothing(guest, *(other.gateway for other in TIERS if other != tier))
    hears_nothing(tiers.peer, *(tier.gateway for tier in TIERS))


def test_an_address_of_another_tier_gets_nothing(tiers: Vpc) -> None:
    with also(tiers.app1, WEB2):
        hears_nothing(tiers.app1, APP.gateway, WEB.gateway, source=WEB2)
    with also(tiers.web1, WEB2):
        hears_nothing(tiers.web1, WEB.gateway, source=WEB2)
    assert told(tiers.app1, APP.gateway, source=APP1) == "pw-app1"
    assert asks(tiers.web1, WEB.gateway, "/latest/local-hostname", source=WEB1) == (200, b"web1")
    assert told(tiers.web2, WEB.gateway) == "pw-web2"


def test_a_vm_in_two_tiers_has_one_default_nic(tiers: Vpc) -> None:
    guest: Guest = tiers.lab.guest("both", tiers.segments[WEB], "02:1a:61:01:01:09")
    second = guest.plug(tiers.segments[APP], "02:1a:61:02:01:09")
    tiers.dhcp(guest, WEB, "10.61.1.40", check=False)
    entry = {
        "host_name": "both",
        "mac_address": guest.ports[second].mac,
        "ipv4_address": "10.61.2.40",
        "ipv6_duid": f"00:03:00:01:{guest.ports[second].mac}",
        "default_gateway": APP.gateway,
        "default_entry": False,
        "remove": False,
        "type": "dhcpentry",
    }
    tiers.command("vm_dhcp_entry", entry)
    for address, name in (("10.61.1.40", "first"), ("10.61.2.40", "second")):
        tiers.command("vm_metadata", metadata(address, {"local-hostname": name}))

    first, other = guest.gets_lease(), guest.gets_lease(second)

    assert (first.address, first.router, first.domain) == ("10.61.1.40", WEB.gateway, WEB.domain)
    assert (first.dns[0], first.mtu, first.hostname) == (WEB.gateway, WEB.mtu, "both")
    assert (other.address, other.router, other.dns, other.domain) == ("10.61.2.40", "", (), "")
    assert must(guest, "ip", "route", "show", "default").split()[:3] == ["default", "via", WEB.gateway]
    assert read(guest, WEB.gateway) == {"local-hostname": "first"}
    assert asks(guest, APP.gateway, "/latest/local-hostname", source="10.61.2.40") == (200, b"second")
    assert mac_of(guest) != guest.ports[second].mac


def test_a_tier_that_goes_takes_its_guests_answers_along(tiers: Vpc) -> None:
    assert told(tiers.db1, DB.gateway) == "pw-db1"
    tiers.tier(DB, add=False, check=False)
    assert asks(tiers.db1, DB.gateway, "/latest/meta-data/", timeout_s=REFUSED_S) == NOTHING
    assert read(tiers.web1, WEB.gateway) == named("web1")
    # What comes there next may be another's network: it inherits nothing, until its own is told.
    tiers.tier(DB, check=False)
    tiers.router.eventually(
        lambda: asks(tiers.db1, DB.gateway, "/latest/meta-data/").status == 404, "the tier's service answers again"
    )
    assert told(tiers.db1, DB.gateway) == NONE_WAITS


def test_cloud_init_finds_its_own_router_in_each_tier(tiers: Vpc) -> None:
    for guest, tier, address in (tiers.guests[1], tiers.guests[3]):
        found = cloud_init.reads(guest)
        assert found["router"] == tier.gateway
        assert found["metadata"] == named(guest.name)
        assert found["userdata"] == guest.name.encode()
        assert found["password"] == f"pw-{guest.name}"
        assert told(guest, tier.gateway) == NONE_WAITS
        tiers.command("vm_password", password(address, f"pw-{guest.name}"))
