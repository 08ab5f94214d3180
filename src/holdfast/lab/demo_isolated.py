"""What the demo claims of the isolated router in `examples/isolated-router`, each claim proven with packets."""

import json
from collections.abc import Callable, Mapping
from functools import partial

from holdfast.lab.demo_act import (
    AGREES,
    ELSEWHERE,
    OFFICE,
    Act,
    Sentence,
    all_refused,
    leases,
    listen,
    management,
    resolved,
    said,
)
from holdfast.lab.host import Connection, Host
from holdfast.lab.sentence import NotSo
from holdfast.lab.story import Stage

SOURCE_NAT, FORWARDS, STATIC = "203.0.113.70", "203.0.113.71", "198.51.100.140"
GATEWAY, DOMAIN, CONTROL = "10.20.30.1", "shop.example", "169.254.87.12"
ADDRESSES = {"web1": "10.20.30.21", "web2": "10.20.30.22", "db1": "10.20.30.23"}
SERVICES = {
    "world": [("tcp", 25), ("tcp", 80), ("tcp", 443), ("tcp", 5000)],
    "web1": [("tcp", 22), ("tcp", 443), ("tcp", 9000), ("tcp", 8081)],
    "web2": [("tcp", 80), *(("udp", port) for port in (6000, 6009, 6010))],
    "db1": [("tcp", 3306), ("tcp", 3307), ("tcp", 80)],
}
PASSWORD, NONE_WAITS = "kiwi-Hafen-4711", "saved_password"
RECEIPTS = "/var/lib/holdfast-guest/receipts"
_FEW = 4
"""More packets than ARP needs, fewer than a connection has."""


def _prepare(stage: Stage) -> None:
    listen(stage, SERVICES)


def _connects(stage: Stage) -> Mapping[str, Connection]:
    world, web1 = stage.world, stage.guests["web1"]
    for guest in stage.guests.values():
        guest.gets_lease()
    return {
        "ingress": world.connects(FORWARDS, 9000, source=OFFICE),
        "egress": web1.connects(OFFICE, 5000),
        "inwards": world.connects(FORWARDS, 8080, source=OFFICE),
        "outwards": web1.connects(OFFICE, 443),
    }


def _leases(stage: Stage) -> None:
    leases(stage, {name: (address, GATEWAY) for name, address in ADDRESSES.items()}, DOMAIN)


def _names(stage: Stage) -> None:
    web1 = stage.guests["web1"]
    resolved(web1, "web2", ADDRESSES["web2"])
    resolved(web1, f"db1.{DOMAIN}", ADDRESSES["db1"])
    resolved(web1, ADDRESSES["db1"], f"db1.{DOMAIN}", "PTR")


def _source_nat(stage: Stage) -> None:
    for name in ("web1", "web2"):
        said(stage.guests[name].can_fetch(OFFICE), "world", SOURCE_NAT)


def _egress(stage: Stage) -> None:
    web1, web2 = stage.guests["web1"], stage.guests["web2"]
    web1.reaches(OFFICE, 443)
    web1.pings(OFFICE)
    all_refused(partial(web1.cannot_reach, OFFICE, 25), partial(web2.cannot_ping, OFFICE))


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
    asked = ((FORWARDS, 8081), (SOURCE_NAT, 80), (STATIC, 80))
    all_refused(*(partial(stage.world.cannot_reach, address, port, source=OFFICE) for address, port in asked))


def _revoked(stage: Stage) -> None:
    all_refused(
        partial(stage.world.cannot_reach, FORWARDS, 9000, source=OFFICE),
        partial(stage.guests["web1"].cannot_reach, OFFICE, 5000),
    )


def _metadata(stage: Stage) -> None:
    web1 = stage.guests["web1"]
    for path, wanted in (("meta-data/local-hostname", "web1"), ("user-data", "#cloud-config\nhostname: web1\n")):
        got = web1.can_fetch(GATEWAY, path=f"/latest/{path}").text
        if got != wanted:
            raise NotSo(f"web1 asked for {path} and got {got!r}")


def _password(stage: Stage) -> None:
    """Delivered until it is acknowledged, and then never again: after the power cut none waits any more."""
    web1 = stage.guests["web1"]
    known = stage.router.shell(["cat", RECEIPTS]).text
    expected = NONE_WAITS if f"acknowledged {ADDRESSES['web1']}" in known else PASSWORD
    words = {"send_my_password": [expected, expected], "saved_password": [NONE_WAITS]}
    for word, answers in [*words.items(), ("send_my_password", [NONE_WAITS])]:
        for wanted in answers:
            got = web1.can_fetch(GATEWAY, 8080, headers={"DomU_Request": word}).text
            if got != wanted:
                raise NotSo(f"web1 said {word} and got {got!r}, not {wanted!r}")


def _balanced(stage: Stage) -> None:
    seen = [stage.world.can_fetch(FORWARDS, 8090, source=OFFICE) for _ in range(4)]
    if {(reply.name, reply.address) for reply in seen} != {("web1", GATEWAY), ("web2", GATEWAY)}:
        raise NotSo(f"answers came from {', '.join(reply.name for reply in seen)}")


SENTENCES = (
    Sentence("web1, web2 and db1 each get their address, gateway, DNS server and domain by DHCP", _leases),
    Sentence("web1 resolves web2 and db1.shop.example, and db1's address back to its name", _names),
    Sentence("web1 reads its name and its user data at the router", _metadata),
    Sentence("web1 is given its password until it says that it has it, and never again", _password),
    Sentence(f"web1 and web2 fetch a page from the Internet and are seen as {SOURCE_NAT}", _source_nat),
    Sentence("egress: web1 may use 443 and ping, port 25 is denied to it and ping to web2", _egress),
    Sentence(f"{FORWARDS}:8080 leads to web2's port 80, and web2 sees who asks", _forward),
    Sentence(f"{FORWARDS} udp 6000-6009 leads to web2 one to one, 6010 does not", _range),
    Sentence(f"{FORWARDS}:8443 leads to web1 for {OFFICE}, the firewall refuses {ELSEWHERE}", _only_from_office(8443)),
    Sentence(f"{FORWARDS}:2222 leads to web1 for {OFFICE}, the forward refuses {ELSEWHERE}", _only_from_office(2222)),
    Sentence(f"{FORWARDS} answers a ping, {SOURCE_NAT}, where no rule allows it, does not", _ping),
    Sentence(f"hairpin: web1, and web2 itself, reach web2 by {FORWARDS}:8080", _hairpin),
    Sentence(f"load balancing: {FORWARDS}:8090 is answered by web1 and web2 in turn", _balanced),
    Sentence(f"static NAT in: {STATIC}:3306 is db1; port 3307 stays closed", _static_in),
    Sentence(f"static NAT out: db1 is seen as {STATIC}", _static_out),
    Sentence("replies of the second public network leave by its own nic", _own_nic),
    Sentence("ports that nobody opened stay closed, on all three public addresses", _closed),
    Sentence("what was revoked stays revoked: port 9000 inwards, 5000 outwards", _revoked),
    management(CONTROL, [("web1", GATEWAY), ("web1", CONTROL), ("world", SOURCE_NAT)]),
    AGREES,
)

ISOLATED = Act(
    name="isolated-router",
    title="An isolated router",
    cast="a router that knows nothing, three guests, an Internet, a management side",
    sentences=SENTENCES,
    prepare=_prepare,
    connects=_connects,
    opened="four connections are open while rules are revoked, two in and two out",
    again="the whole network sent again changes nothing",
    first=(FORWARDS, 6000),
    refused=(FORWARDS, 8080),
)
