"""What the demo claims of the isolated router in `examples/isolated-router`, each claim proven with packets."""

import json
import re
from collections.abc import Callable
from typing import NamedTuple

from holdfast.lab.host import Host, Reply
from holdfast.lab.sentence import NotSo
from holdfast.lab.story import Stage, holdfast

SOURCE_NAT, FORWARDS, STATIC = "203.0.113.70", "203.0.113.71", "198.51.100.140"
GATEWAY, DOMAIN, CONTROL, SSH = "10.20.30.1", "shop.example", "169.254.87.12", 3922
OFFICE, ELSEWHERE = "192.0.2.10", "192.0.2.200"
ADDRESSES = {"web1": "10.20.30.21", "web2": "10.20.30.22", "db1": "10.20.30.23"}
_FEW = 4
"""More packets than ARP needs, fewer than a connection has."""


class Sentence(NamedTuple):
    """A claim and what proves it: NotSo if it is false."""

    text: str
    proves: Callable[[Stage], None]


def prepare(stage: Stage) -> None:
    """Let everybody listen who is asked later, and make the world one that drops what comes by the wrong nic."""
    web1, web2, db1 = (stage.guests[name] for name in ("web1", "web2", "db1"))
    listens = {
        stage.world: [("tcp", 25), ("tcp", 80), ("tcp", 443), ("tcp", 5000)],
        web1: [("tcp", 22), ("tcp", 443), ("tcp", 9000), ("tcp", 8081)],
        web2: [("tcp", 80), *(("udp", port) for port in (6000, 6009, 6010))],
        db1: [("tcp", 3306), ("tcp", 3307), ("tcp", 80)],
    }
    for host, services in listens.items():
        for proto, port in services:
            host.serve(port, proto)
    for nic in stage.world.ports:
        # A neighbour that does not answer yet is asked again soon, or the wait for ARP would be measured.
        # Its ARP asks with the nic's own address, as a gateway's does that forwards for hosts behind it.
        settings = [f"net.ipv4.conf.{nic}.rp_filter=1", f"net.ipv4.conf.{nic}.arp_announce=2"]
        settings.append(f"net.ipv4.neigh.{nic}.retrans_time_ms=50")
        done = stage.world.run(["sysctl", "-q", "-w", *settings])
        if done.code:
            raise NotSo(done.errors)


def said(reply: Reply, name: str, seen: str) -> None:
    """NotSo unless this host answered and saw the question come from this address."""
    if (reply.name, reply.address) != (name, seen):
        raise NotSo(f"{reply.name} answered and saw {reply.address}, where {name} was to see {seen}")


def _leases(stage: Stage) -> None:
    for name, guest in stage.guests.items():
        lease = guest.gets_lease()
        got = (lease.address, lease.router, lease.dns[:1], lease.domain)
        if got != (ADDRESSES[name], GATEWAY, (GATEWAY,), DOMAIN):
            raise NotSo(f"{name}'s lease says {got}")


def _names(stage: Stage) -> None:
    web1 = stage.guests["web1"]
    for asked, kind, wanted in (
        ("web2", "A", ADDRESSES["web2"]),
        (f"db1.{DOMAIN}", "A", ADDRESSES["db1"]),
        (ADDRESSES["db1"], "PTR", f"db1.{DOMAIN}"),
    ):
        found = web1.resolves(asked, kind=kind)
        if wanted not in [name.rstrip(".") for name in found]:
            raise NotSo(f"web1 asked for {asked} and got {', '.join(found)}, not {wanted}")


def _source_nat(stage: Stage) -> None:
    for name in ("web1", "web2"):
        said(stage.guests[name].can_fetch(OFFICE), "world", SOURCE_NAT)


def _egress(stage: Stage) -> None:
    web1, web2 = stage.guests["web1"], stage.guests["web2"]
    web1.reaches(OFFICE, 443)
    web1.cannot_reach(OFFICE, 25)
    web1.pings(OFFICE)
    web2.cannot_ping(OFFICE)


def _forward(stage: Stage) -> None:
    for source in (OFFICE, ELSEWHERE):
        said(stage.world.can_fetch(FORWARDS, 8080, source=source), "web2", source)


def _range(stage: Stage) -> None:
    for port in (6000, 6009):
        said(stage.world.reaches(FORWARDS, port, "udp", source=OFFICE), "web2", OFFICE)
    stage.world.cannot_reach(FORWARDS, 6010, "udp", source=OFFICE)


def _only_from_office(port: int) -> Callable[[Stage], None]:
    def check(stage: Stage) -> None:
        said(stage.world.reaches(FORWARDS, port, source=OFFICE), "web1", OFFICE)
        stage.world.cannot_reach(FORWARDS, port, source=ELSEWHERE)

    return check


def _ping(stage: Stage) -> None:
    stage.world.pings(FORWARDS)
    stage.world.cannot_ping(SOURCE_NAT)


def _hairpin(stage: Stage) -> None:
    for name in ("web1", "web2"):
        said(stage.guests[name].can_fetch(FORWARDS, 8080), "web2", GATEWAY)


def _static_in(stage: Stage) -> None:
    said(stage.world.reaches(STATIC, 3306, source=OFFICE), "db1", OFFICE)
    stage.world.cannot_reach(STATIC, 3307, source=OFFICE)


def _static_out(stage: Stage) -> None:
    said(stage.guests["db1"].can_fetch(OFFICE), "world", STATIC)


def _own_nic(stage: Stage) -> None:
    before = _received(stage.world)
    for _ in range(3):
        stage.world.reaches(STATIC, 3306, source=OFFICE)
    first, second = (after - had for after, had in zip(_received(stage.world), before, strict=True))
    if second <= _FEW or first > _FEW:
        raise NotSo(f"{second} packets came by the second public network and {first} by the first")


def _received(world: Host) -> tuple[int, int]:
    shown = json.loads(world.run(["ip", "-json", "-stats", "link"]).text)
    packets = {link["ifname"]: int(link["stats64"]["rx"]["packets"]) for link in shown}
    return packets["eth0"], packets["eth1"]


def _closed(stage: Stage) -> None:
    stage.world.cannot_reach(FORWARDS, 8081, source=OFFICE)
    stage.world.cannot_reach(SOURCE_NAT, 80, source=OFFICE)
    stage.world.cannot_reach(STATIC, 80, source=OFFICE)


def _revoked(stage: Stage) -> None:
    stage.world.cannot_reach(FORWARDS, 9000, source=OFFICE)
    stage.guests["web1"].cannot_reach(OFFICE, 5000)


def _management(stage: Stage) -> None:
    answer = stage.mgmt.reaches(CONTROL, SSH).text
    if not answer.startswith("SSH-2.0-"):
        raise NotSo(f"{CONTROL}:{SSH} says {answer!r}")
    for host, address in ((stage.guests["web1"], GATEWAY), (stage.guests["web1"], CONTROL), (stage.world, SOURCE_NAT)):
        host.cannot_reach(address, SSH)


def _agrees(stage: Stage) -> None:
    plan = holdfast(stage.router, "plan")
    differs = [line for line in plan.text.splitlines() if not line.startswith("pending: ")]
    if plan.code or differs != ["nothing to do"]:
        raise NotSo("; ".join(["holdfast plan:", *(differs or [plan.errors.strip()])]))


SENTENCES = (
    Sentence("web1, web2 and db1 each get their address, gateway, DNS server and domain by DHCP", _leases),
    Sentence("web1 resolves web2 and db1.shop.example, and db1's address back to its name", _names),
    Sentence(f"web1 and web2 fetch a page from the Internet and are seen as {SOURCE_NAT}", _source_nat),
    Sentence("egress: web1 may use 443 and ping, port 25 is denied to it and ping to web2", _egress),
    Sentence(f"{FORWARDS}:8080 leads to web2's port 80, and web2 sees who asks", _forward),
    Sentence(f"{FORWARDS} udp 6000-6009 leads to web2 one to one, 6010 does not", _range),
    Sentence(f"{FORWARDS}:8443 leads to web1 for {OFFICE}, the firewall refuses {ELSEWHERE}", _only_from_office(8443)),
    Sentence(f"{FORWARDS}:2222 leads to web1 for {OFFICE}, the forward refuses {ELSEWHERE}", _only_from_office(2222)),
    Sentence(f"{FORWARDS} answers a ping, {SOURCE_NAT}, where no rule allows it, does not", _ping),
    Sentence(f"hairpin: web1, and web2 itself, reach web2 by {FORWARDS}:8080", _hairpin),
    Sentence(f"static NAT in: {STATIC}:3306 is db1; port 3307 stays closed", _static_in),
    Sentence(f"static NAT out: db1 is seen as {STATIC}", _static_out),
    Sentence("replies of the second public network leave by its own nic", _own_nic),
    Sentence("ports that nobody opened stay closed, on all three public addresses", _closed),
    Sentence("what was revoked stays revoked: port 9000 inwards, 5000 outwards", _revoked),
    Sentence(f"management reaches ssh at {CONTROL}:{SSH}; guests and the Internet do not", _management),
    Sentence("holdfast plan: the machine is as its documents say", _agrees),
)


def generation(stage: Stage) -> int:
    """The generation that is in force; NotSo if the router does not say."""
    found = re.search(r'"generation":(\d+)', holdfast(stage.router, "status", "--json").text)
    if found is None:
        raise NotSo("holdfast status names no generation")
    return int(found[1])
