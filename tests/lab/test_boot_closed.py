"""Throughout a boot nothing passes that the firewall in force afterwards drops, whoever sets links up meanwhile."""

import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from itertools import count
from typing import NamedTuple

import pytest
from raw import Raw, Side
from replay import BOOT_LINE, HOLDFAST, NICS, Site, firewall, forward, forwards, ingress, ips, said, site

from holdfast.lab.host import Host
from holdfast.lab.network import batch

pytestmark = [pytest.mark.lab, pytest.mark.appliance]

LEAST = 10_000
SEEN_S = 15
CONTROL, GUEST, PUBLIC, OPEN = "169.254.216.73", "10.1.1.1", "203.0.113.10", "203.0.113.12"
MGMT, VM, FAR = "169.254.0.1", "10.1.1.9", "192.0.2.10"
ROUTER6, PROBER6 = "fe80::1:1", "fe80::66"
PROBER = {"guest": "10.1.1.66", "control": "169.254.0.66", "public": "192.0.2.66"}
KINDS = {
    "public": [
        *(("tcp", PUBLIC, port) for port in (22, 53, 80, 3922, 8080)),
        *(("udp", PUBLIC, port) for port in (53, 123, 161)),
        ("tcp", "203.0.113.11", 443), ("icmp", PUBLIC, 0), ("tcp", CONTROL, 3922),
        ("tcp", VM, 22), ("udp", VM, 53), ("icmp", VM, 0), ("tcp", MGMT, 22),
    ],
    "guest": [
        ("tcp", GUEST, 22), ("tcp", GUEST, 3922), ("udp", GUEST, 123), ("tcp", PUBLIC, 3922), ("tcp", CONTROL, 3922),
        ("tcp", FAR, 22), ("udp", FAR, 53), ("icmp", FAR, 0), ("tcp", MGMT, 22),
    ],
    "control": [
        *(("tcp", CONTROL, port) for port in (22, 53, 80, 8080)), ("udp", CONTROL, 53), ("udp", CONTROL, 161),
        ("tcp", VM, 22), ("udp", VM, 53), ("icmp", VM, 0), ("tcp", FAR, 22), ("tcp", PUBLIC, 3922),
    ],
}  # fmt: skip
"""What the firewall in force would drop, by the side that it comes from."""
ALSO = (("tcp", ROUTER6, 22), ("tcp", ROUTER6, 8080), ("udp", ROUTER6, 53))
"""The same from every side, over IPv6; what finds neighbours there is accepted by every firewall."""
EARLY = """[Unit]
Description=The worst neighbour: links, addresses and forwarding as soon as anybody may
DefaultDependencies=no
Wants=network-pre.target
After=network-pre.target
Before=cloud-early-config.service
[Service]
Type=oneshot
RemainAfterExit=yes
ExecStart=/bin/sh -c '{}'
[Install]
WantedBy=sysinit.target
"""
SETUP = "; ".join([
    "sysctl -qw net.ipv4.ip_forward=1 net.ipv6.conf.all.disable_ipv6=0 net.ipv4.icmp_ratelimit=0",
    *(f"ip link set eth{n} up; ip address add {ROUTER6}/64 dev eth{n} nodad" for n in range(3)),
    f"ip address add {GUEST}/24 dev eth0", f"ip address add {CONTROL}/16 dev eth1",
    *(f"ip address add {address}/24 dev eth2" for address in (PUBLIC, "203.0.113.11", OPEN)),
    "ip route add default via 203.0.113.1",
])  # fmt: skip


class Around(NamedTuple):
    """A router that has no boot line yet, and a host on each of its sides."""

    site: Site
    hosts: dict[str, Host]

    def sides(self, packets: dict[str, dict[int, Raw]]) -> dict[str, Side]:
        """Probers on all sides; each sees what the router sends to its own."""
        return {
            segment: Side(self.hosts[segment], mac, packets[segment], [PROBER[segment], PROBER6])
            for segment, mac in NICS
        }

    def listed(self) -> str:
        """All that is in force."""
        return self.site.router.shell(["nft", "list", "ruleset"]).text


@pytest.fixture(scope="module")
def around() -> Iterator[Around]:
    with site("closed") as made:
        lab = made.lab
        mgmt = lab.mgmt(lab.segment("control"), f"{MGMT}/16")
        world = lab.world(lab.segment("public"), "203.0.113.1/24", (FAR, PROBER["public"]))
        guest = Host(lab._place, "neighbour")  # noqa: SLF001 a host that asks nobody for its address
        lab.hosts["neighbour"] = guest
        guest.address(guest.plug(lab.segment("guest"), "02:00:4c:5e:00:01"), f"{VM}/24")
        hosts: dict[str, Host] = {"guest": guest, "control": mgmt, "public": world}
        for segment, host in hosts.items():
            nic = next(iter(host.ports))
            own = [] if segment == "public" else [f"address add {PROBER[segment]}/32 dev {nic}"]
            batch(host.namespace, [*own, f"address add {PROBER6}/64 dev {nic} nodad"])
        made.router.boot()
        yield Around(made, hosts)


def test_until_there_is_a_boot_line_it_stays_closed(around: Around) -> None:
    router, closed = around.site.router, around.listed()
    assert closed.count("policy drop;") == 2

    for words in (["converge"], ["boot"]):
        done = router.shell([HOLDFAST, *words])
        assert done.code == 0, said(done)
        assert around.listed() == closed
    done = around.site.tell(ips(PUBLIC))
    assert done.code == 0, said(done)
    assert around.listed() == closed
    assert around.site.plan()["changes"] == []


def _packets() -> dict[str, dict[int, Raw]]:
    numbers = count()
    found = {
        segment: {
            next(numbers): Raw(PROBER6 if ":" in target else PROBER[segment], target, proto, port)
            for proto, target, port in (*kinds, *ALSO)
        }
        for segment, kinds in KINDS.items()
    }
    found["public"][next(numbers)] = Raw(PROBER["public"], OPEN, "tcp", 443, allowed=True)
    return found


def test_nothing_passes_that_the_firewall_would_drop(around: Around, tell: Callable[[str], None]) -> None:
    router, packets = around.site.router, _packets()
    router.write("/var/cache/cloud/cmdline", BOOT_LINE)
    done = router.shell([HOLDFAST, "boot"])
    assert done.code == 0, said(done)
    around.site.told(ips(PUBLIC, "203.0.113.11", OPEN))
    around.site.told(firewall(ingress(1, 443) | {"src_ip": OPEN}))
    around.site.told(forwards(forward(443, VM, 443)))
    router.write("/etc/systemd/system/early.service", EARLY.format(SETUP))
    router.shell(["systemctl", "enable", "early.service"])
    boots = [_booted(around, packets)]
    while min(map(sum, zip(*boots, strict=True))) < LEAST:
        boots.append(_booted(around, packets))
    during, heard = map(sum, zip(*boots, strict=True))
    tell(f"{during} packets throughout {len(boots)} boots, {heard} of them heard by a nic that was up")
    _seen_without_a_firewall(around, packets)


def _booted(around: Around, packets: dict[str, dict[int, Raw]]) -> tuple[int, int]:
    """How many were sent throughout a boot after a power cut, and heard by nics that were up; none that must not came.

    How many there are is the machine's to say: the quicker it boots, the fewer.
    """
    router = around.site.router
    everything = {number: raw for own in packets.values() for number, raw in own.items()}
    allowed = {number for number, raw in everything.items() if raw.allowed}
    router.power_cut()
    with ExitStack() as stack:
        sides = {name: stack.enter_context(side) for name, side in around.sides(packets).items()}
        router.boot()
        during = sum(side.sent for side in sides.values())
        router.eventually(lambda: allowed <= _came(sides), "lets in what its rules allow")
        assert around.site.plan()["changes"] == []
        heard = sum(int(router.read(f"/sys/class/net/eth{n}/statistics/rx_packets")) for n in range(3))
    assert [f"{name}: {everything[n]}" for name, side in sides.items() for n in sorted(side.came - allowed)] == []
    assert heard, "a boot that hears nothing proves nothing, however often it is repeated"
    return during, heard


def _came(sides: dict[str, Side]) -> set[int]:
    return {number for side in sides.values() for number in side.came}


def _seen_without_a_firewall(around: Around, packets: dict[str, dict[int, Raw]]) -> None:
    """Each of these packets would have been seen: it is nothing but the firewall that they do not pass."""
    router = around.site.router
    router.shell(["sh", "-c", f"nft flush ruleset; {SETUP}"])
    for name in ("all", "default", "eth0", "eth1", "eth2"):
        router.shell(["sysctl", "-qw", f"net.ipv4.conf.{name}.rp_filter=0"])
    everything = {number: raw for own in packets.values() for number, raw in own.items() if not raw.allowed}
    with ExitStack() as stack:
        sides = {name: stack.enter_context(side) for name, side in around.sides(packets).items()}
        until = time.monotonic() + SEEN_S
        while unseen := everything.keys() - _came(sides):
            assert time.monotonic() < until, [str(everything[number]) for number in unseen]
            time.sleep(0.1)
