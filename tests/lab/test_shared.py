"""Shared networks: recorded stories of both servers, guests of every subnet, leases and names that outlive changes."""

import json
import os
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import pytest
from recorded import Player, Step, begin, story
from replay import HOLDFAST, Nics, Site, said
from slack import SLACK
from tiers import vpc

from holdfast.lab.guest import Guest, Lease
from holdfast.lab.lab import Lab

pytestmark = pytest.mark.lab

NICS: Nics = (("guest", "06:00:2d:00:00:32"), ("control", "0e:00:a9:fe:21:07"))
MAIN, ALIAS = "10.0.32.50", "10.0.33.50"
BASIC1, BASIC2, BASIC4 = "06:00:2d:00:00:61", "06:00:2d:00:00:62", "06:00:2d:00:01:61"
LEASES = "/var/lib/misc/dnsmasq.leases"
LINE = (
    "template=domP name=r-40-VM eth0ip=10.0.32.50 eth0mask=255.255.255.0 gateway=10.0.32.1 domain=cs2cloud.internal "
    "cidrsize=24 dhcprange=10.0.32.1 eth1ip=169.254.33.7 eth1mask=255.255.0.0 type=dhcpsrvr disable_rp_filter=true "
    "dns1=8.8.8.8 dns2=8.8.4.4\n"
)
MANY = 2000

# A DHCPREQUEST of a client that remembers an address, and the type of what comes back: 5 ACK, 6 NAK, nothing.
_ASK = """
import socket, struct, sys
mac, address = bytes.fromhex(sys.argv[1].replace(":", "")), socket.inet_aton(sys.argv[2])
s = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
for option in (socket.SO_REUSEADDR, socket.SO_BROADCAST):
    s.setsockopt(socket.SOL_SOCKET, option, 1)
s.setsockopt(socket.SOL_SOCKET, socket.SO_BINDTODEVICE, b"eth0")
s.bind(("", 68))
head = struct.pack("!4BI2H4s4s4s4s16s192x4B", 1, 1, 6, 0, 0x51AFE, 0, 0x8000, *[bytes(4)] * 4, mac, 99, 130, 83, 99)
s.sendto(head + bytes([53, 1, 3, 50, 4]) + address + b"\\xff", ("255.255.255.255", 67))
s.settimeout(1)
try:
    answer = s.recv(2000)
except TimeoutError:
    sys.exit(0)
print(answer[answer.index(b"\\x35\\x01", 240) + 2])
"""


@contextmanager
def site(name: str) -> Iterator[Site]:
    """Make a router of a shared network that is off; it and its lab are removed at the end."""
    if os.geteuid() != 0:
        pytest.skip("the lab needs root: it makes network namespaces and containers")
    with Lab(name) as lab:
        yield Site(lab, NICS)


def asks(guest: Guest, mac: str, address: str) -> str:
    """What a client hears that asks for an address which it had before: "5" yes, "6" no, or nothing."""
    done = guest.run(["/usr/bin/python3", "-I", "-c", _ASK, mac, address])
    assert done.code == 0, done.errors
    return done.text.strip()


def main_pid(made: Site) -> str:
    """The DHCP server's process: another one after a restart, the same after a reload."""
    return made.units()["dnsmasq.service"]["MainPID"]


def leased(made: Site) -> dict[str, str]:
    """Addresses by MAC, as the server remembers them."""
    lines = made.path(LEASES).read_text().splitlines()
    return {line.split()[1]: line.split()[2] for line in lines}


def entry(name: str, mac: str, address: str, gateway: str, *, remove: bool = False) -> dict[str, Any]:
    """A VM's nic."""
    return {
        "host_name": name, "mac_address": mac, "ipv4_address": address, "ipv6_duid": f"00:03:00:01:{mac}",
        "dns_addresses": MAIN, "default_gateway": gateway, "default_entry": True, "remove": remove,
        "type": "dhcpentry",
    }  # fmt: skip


def aliases(*units: tuple[bool, str, int]) -> dict[str, Any]:
    """Aliases: revoked, address, number."""
    return {
        "aliases": [{"revoke": r, "ip_address": a, "netmask": "255.255.255.0", "count": n} for r, a, n in units],
        "type": "ipaliases",
    }


def told(made: Site, payload: dict[str, Any]) -> None:
    """Send a message that must be taken in whole and leave nothing to do."""
    done = made.tell(payload, {"ipaliases": "ip_aliases.json"}.get(payload["type"], ""))
    assert done.code == 0, said(done)
    assert made.plan()["changes"] == []


@contextmanager
def shared(name: str) -> Iterator[Site]:
    """Make a shared network's router with two subnets, no VM known."""
    with site(name) as made:
        booted = made.boot(LINE)
        assert booted.code == 0, said(booted)
        told(made, aliases((False, ALIAS, 5)))
        yield made


@pytest.fixture(scope="module")
def made() -> Iterator[Site]:
    with shared("shared") as made:
        yield made


def parts(steps: list[Step]) -> list[list[Step]]:
    """A story cut where a router starts: what comes before each boot line, the line's step first."""
    cuts = [index for index, step in enumerate(steps) if step.boot_line]
    return [
        [step for step in steps[start:end] if not any(event[1] == "bootArgs.txt" for event in step.events)]
        for start, end in zip([0, *cuts], [*cuts, len(steps)], strict=True)
    ]


@pytest.mark.parametrize("version", ["4.22", pytest.param("4.6.1", marks=pytest.mark.appliance)])
def test_every_step_of_a_shared_network_leaves_nothing_to_do_and_a_power_cut_changes_nothing(version: str) -> None:
    with site("basic") as made:
        steps = begin(made, story(version, "S4"))
        first, again, advanced = parts(steps)
        segment = made.lab.segment("guest")
        vm = {name: made.lab.guest(name, segment, mac) for name, mac in (("basic1", BASIC1), ("basic4", BASIC4))}
        player, pids = Player(made), []
        for step in first:
            player.play(step)
            spoken = {event[1].partition(".")[0] for event in step.events}
            pids += [main_pid(made)] if spoken & {"vm_dhcp_entry", "vm_password", "vm_metadata"} else []
            if step.command == "DhcpEntryCommand" and step.mac == BASIC4 and len(vm["basic4"].leases) == 0:
                of_each_subnet(vm["basic1"].gets_lease(), vm["basic4"].gets_lease())
                assert vm["basic4"].resolves("basic1", server=ALIAS) == ("10.0.32.61",)
        assert player.commands > 15
        # Nine messages about VMs of the first subnet, three about the alias's: one server each, never restarted.
        assert len(set(pids[:9])) == 1
        vm["basic4"].gets_no_lease()
        assert vm["basic1"].renews_lease().router == "10.0.32.1"

        lived = made.state()
        made.router.power_cut()
        assert again[0].boot_line
        restored = made.boot(again[0].boot_line)
        assert restored.code == 0, said(restored)
        assert made.plan()["changes"] == []
        assert made.state() == lived
        for step in again[1:]:
            player.play(step)
        started = made.state()
        made.router.reboot()
        assert made.plan()["changes"] == [], made.router.journal(60)
        assert made.state() == started
        assert vm["basic1"].gets_lease().address == "10.0.32.61"
        player.asking.told_and_kept_secret()
    with site("shared1") as other:
        assert advanced[0].boot_line
        booted = other.boot(advanced[0].boot_line)
        assert booted.code == 0, said(booted)
        player = Player(other)
        for step in advanced[1:]:
            player.play(step)
        lease = other.lab.guest("shared1", other.lab.segment("guest"), "06:00:77:00:00:14").gets_lease()
        assert (lease.address, lease.prefix, lease.router) == ("192.0.2.20", 25, "192.0.2.1")
        assert lease.dns == ("192.0.2.9", "8.8.8.8", "8.8.4.4")
        player.asking.told_and_kept_secret()


def of_each_subnet(one: Lease, other: Lease) -> None:
    """Each guest is told its own subnet's gateway, and the router's address there for names."""
    assert (one.address, one.prefix, one.router) == ("10.0.32.61", 24, "10.0.32.1")
    assert (other.address, other.prefix, other.router) == ("10.0.33.61", 24, "10.0.33.1")
    assert one.dns == (MAIN, "8.8.8.8", "8.8.4.4")
    assert other.dns == (ALIAS, "8.8.8.8", "8.8.4.4")
    assert one.domain == other.domain == "cs2cloud.internal"


def test_a_network_without_vms_is_silent_and_a_stranger_is_never_told_off(made: Site) -> None:
    stranger = made.lab.guest("stranger", made.lab.segment("guest"), "06:00:2d:00:00:99")
    assert asks(stranger, BASIC1, "10.0.32.61") == ""
    assert "DHCPREQUEST" not in made.router.journal(200)  # the firewall: the server has not even heard it
    told(made, entry("basic1", BASIC1, "10.0.32.61", "10.0.32.1"))

    assert asks(stranger, BASIC1, "10.0.32.61") == "5"
    assert asks(stranger, BASIC1, "10.0.32.77") == "6"
    assert asks(stranger, "06:00:2d:00:00:99", "10.0.32.77") == ""
    assert "DHCPREQUEST" in made.router.journal(200)


def test_names_are_answered_at_the_addresses_that_guests_know_and_nowhere_else(made: Site) -> None:
    told(made, entry("basic1", BASIC1, "10.0.32.61", "10.0.32.1"))
    lines = [line.split()[1] for line in made.router.read("/proc/net/udp").splitlines()[1:]]
    at = [address for address, _, port in (line.partition(":") for line in lines) if port == "0035"]
    found = {".".join(str(byte) for byte in reversed(bytes.fromhex(address))) for address in at}
    assert found == {"127.0.0.1", MAIN, ALIAS}
    pid = main_pid(made)
    made.router.plug(made.second, "06:00:2d:00:00:aa")
    told(made, entry("basic2", BASIC2, "10.0.32.62", "10.0.32.1"))
    assert main_pid(made) == pid


def test_leases_and_names_outlive_what_others_are_told(made: Site) -> None:
    segment = made.lab.segment("guest")
    told(made, entry("basic1", BASIC1, "10.0.32.61", "10.0.32.1"))
    told(made, entry("basic4", BASIC4, "10.0.33.61", "10.0.33.1"))
    one, other = made.lab.guest("basic1", segment, BASIC1), made.lab.guest("basic4", segment, BASIC4)
    of_each_subnet(one.gets_lease(), other.gets_lease())
    pid, held = main_pid(made), leased(made)
    assert held == {BASIC1: "10.0.32.61", BASIC4: "10.0.33.61"}

    for number in range(3):
        told(made, entry(f"more{number}", f"06:00:2d:00:03:0{number}", f"10.0.32.10{number}", "10.0.32.1"))
        assert other.resolves(f"more{number}.cs2cloud.internal", server=ALIAS) == (f"10.0.32.10{number}",)
    told(made, entry("more0", "06:00:2d:00:03:00", "10.0.32.100", "10.0.32.1", remove=True))
    other.cannot_resolve("more0.cs2cloud.internal")
    assert (main_pid(made), leased(made)) == (pid, held)

    # A subnet more is a restart; what is leased is leased.
    told(made, aliases((False, "10.0.36.50", 7)))
    assert main_pid(made) != pid
    assert leased(made) == held
    assert one.renews_lease().address == "10.0.32.61"
    # Each asks for its data where its own subnet's router is.
    assert one.resolves("data-server.cs2cloud.internal", server=MAIN) == (MAIN,)
    assert other.resolves("data-server.cs2cloud.internal", server=ALIAS) == (ALIAS,)

    # The address goes to another VM, and the MAC to another address: neither finds the old lease in its way.
    heir = made.lab.guest("heir", segment, "06:00:2d:00:01:62")
    told(made, entry("heir", "06:00:2d:00:01:62", "10.0.33.61", "10.0.33.1"))
    assert BASIC4 not in leased(made)
    assert heir.gets_lease().address == "10.0.33.61"
    told(made, entry("basic4", BASIC4, "10.0.33.62", "10.0.33.1"))
    assert other.gets_lease().address == "10.0.33.62"

    # The subnet goes: its guests are served no more.
    told(made, aliases((True, "10.0.36.50", 7), (True, ALIAS, 5)))
    other.gets_no_lease()
    assert leased(made) == {BASIC1: "10.0.32.61"}
    assert one.renews_lease().address == "10.0.32.61"
    # What comes there next is told anew: of the old one nobody is known any more.
    told(made, aliases((False, ALIAS, 5)))
    assert "10.0.33.62" not in made.path("/etc/dhcphosts.txt").read_text()
    told(made, entry("basic4", BASIC4, "10.0.33.62", "10.0.33.1"))
    assert other.gets_lease().router == "10.0.33.1"


def test_names_that_mean_something_else_and_names_that_two_have(made: Site) -> None:
    guest = made.lab.guest("odd", made.lab.segment("guest"), "06:00:2d:00:04:01")
    for number, name in enumerate(("ignore", "twin", "twin", "data-server"), 1):
        told(made, entry(name, f"06:00:2d:00:04:0{number}", f"10.0.32.20{number}", "10.0.32.1"))
    lease = guest.gets_lease()
    assert (lease.address, lease.seconds) == ("10.0.32.201", 0xFFFFFFFF)
    assert guest.resolves("ignore.cs2cloud.internal", server=MAIN) == ("10.0.32.201",)
    assert sorted(guest.resolves("twin", server=MAIN)) == ["10.0.32.202", "10.0.32.203"]
    assert guest.resolves("data-server", server=MAIN) == (MAIN,)
    assert guest.resolves("data-server.cs2cloud.internal", server=MAIN) == (MAIN,)


@pytest.mark.parametrize("signal", ["KILL", "TERM"])
def test_the_server_is_back_within_a_second_and_stays_away_when_it_is_stopped(made: Site, signal: str) -> None:
    pid, held = main_pid(made), leased(made)
    began = time.monotonic()
    assert made.router.shell(["kill", f"-{signal}", pid]).code == 0
    made.router.eventually(lambda: main_pid(made) not in (pid, "0"), "dnsmasq is back", SLACK * 1.0)
    print(f"{signal}: back after {time.monotonic() - began:.2f} s")  # noqa: T201 a measurement
    assert leased(made) == held
    assert made.router.read("/run/dnsmasq/dnsmasq.pid").strip() == main_pid(made)
    assert made.router.shell(["systemctl", "stop", "dnsmasq"]).code == 0
    time.sleep(0.5)
    assert not made.router.active("dnsmasq")
    assert made.router.shell([HOLDFAST, "boot"]).code == 0
    assert made.router.active("dnsmasq")


def test_two_thousand_vms_wait_for_nothing() -> None:
    line = LINE.replace("eth0mask=255.255.255.0", "eth0mask=255.255.240.0").replace("10.0.32.50", "10.0.40.50")
    with site("crowd") as crowd:
        booted = crowd.boot(line)
        assert booted.code == 0, said(booted)
        text = "".join(
            f"<file>\n/var/cache/cloud/vm_dhcp_entry.json.{n}\n"
            f"{json.dumps(entry(f'vm{n}', f'06:00:2d:01:{n >> 8:02x}:{n & 255:02x}', f'10.0.{32 + n // 250}.{n % 250 + 1}', '10.0.32.1'))}\n"  # noqa: E501 one line
            f"</file>\n<script>\n/opt/cloud/bin/update_config.py vm_dhcp_entry.json.{n}\n</script>\n"
            for n in range(MANY)
        )
        crowd.router.send(f"#Apache\n<version>\n1.0\n</version>\n{text}".encode(), "VR-1.cfg")
        done = crowd.router.run("vr_cfg.sh", "-c", "/var/cache/cloud/VR-1.cfg")
        assert done.code == 0, said(done)[-2000:]
        print(f"a bundle of {MANY} VMs: {done.seconds:.2f} s")  # noqa: T201 a measurement
        guest = crowd.lab.guest("vm1", crowd.lab.segment("guest"), "06:00:2d:01:00:01")
        assert guest.gets_lease().address == "10.0.32.2"
        pid = main_pid(crowd)
        began = time.monotonic()
        told(crowd, entry("heir", "06:00:2d:02:00:01", "10.0.32.2", "10.0.32.1"))
        print(f"one VM's address to another: {time.monotonic() - began:.2f} s with the plan")  # noqa: T201 same
        assert leased(crowd) == {}
        assert main_pid(crowd) == pid
        assert guest.resolves("heir.cs2cloud.internal", server="10.0.40.50") == ("10.0.32.2",)
        print(crowd.router.shell(["sh", "-ec", "grep VmRSS /proc/$(cat /run/dnsmasq/dnsmasq.pid)/status"]).text)  # noqa: T201 same


def test_an_internal_load_balancer_answers_no_guest() -> None:
    with site("ilb") as made:
        booted = made.boot(LINE.replace("type=dhcpsrvr", "type=ilbvm"))
        assert booted.code == 0, said(booted)
        assert made.plan()["changes"] == []
        assert not made.router.active("dnsmasq")
        assert "default via 10.0.32.1 dev eth0" in made.router.shell(["ip", "route"]).text
        assert made.router.read("/proc/sys/net/ipv4/ip_forward").strip() == "0"
        lived = made.state()
        made.router.reboot()
        assert made.state() == lived


def test_a_tier_with_a_domain_of_its_own() -> None:
    with vpc("names") as net:
        for guest in (net.db1, net.web1):
            assert guest.resolves("db1.db.example") == ("10.61.3.10",)
            assert guest.resolves("db1.vpc.example") == ("10.61.3.10",)
            assert guest.resolves("db1") == ("10.61.3.10",)
            assert guest.resolves("web1.vpc.example") == ("10.61.1.10",)
        assert net.web1.resolves("10.61.3.10", kind="PTR") == ("db1.db.example",)
        assert net.db1.leases["eth0"].domain == "db.example"
        assert net.db1.resolves("data-server.db.example") == ("10.61.3.1",)


def test_outer_name_servers_a_search_list_and_an_mtu() -> None:
    line = f"{LINE.strip()} useextdns=true dnssearchorder=corp.example,lab.example privateMtu=1400\n"
    with site("outer") as made:
        booted = made.boot(line)
        assert booted.code == 0, said(booted)
        told(made, entry("basic1", BASIC1, "10.0.32.61", "10.0.32.1"))
        lease = made.lab.guest("basic1", made.lab.segment("guest"), BASIC1).gets_lease()
        assert lease.dns == ("8.8.8.8", "8.8.4.4")
        assert (lease.domain, lease.search, lease.mtu) == ("cs2cloud.internal", "corp.example lab.example", 1400)
        assert lease.hostname == "basic1"
        assert ":0035 " not in made.router.read("/proc/net/udp")
        assert ":0045 " in made.router.read("/proc/net/udp")  # TFTP, which the firewall keeps from everybody
