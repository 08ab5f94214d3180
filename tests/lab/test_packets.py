"""What an isolated network's router does with packets, proved with packets; and all of it again after a power cut."""

from collections.abc import Callable, Iterator

import pytest
from isolated import (
    CONTROL,
    FAR,
    GATEWAY,
    GUEST_GATEWAY,
    GUEST_NET,
    MANAGEMENT,
    NEAR,
    RESOLVER,
    SOURCE_NAT,
    Isolated,
    default_egress,
    egress,
    forward,
    ingress,
    isolated,
    static,
)
from watching import Packet, Watch, cannot_ping, must, pings

from holdfast.lab.host import Host

pytestmark = pytest.mark.lab

FORWARDS, STATIC, UNUSED = "203.0.113.22", "203.0.113.23", "203.0.113.24"
WEB, APP, DB = "10.31.5.10", "10.31.5.11", "10.31.5.12"
INSIDER = "10.31.5.77"  # an address of the guest network that only a liar outside has

Sentence = Callable[[Isolated], None]
DENYING: list[Sentence] = []
ALLOWING: list[Sentence] = []


def by_default(sentences: list[Sentence]) -> Callable[[Sentence], Sentence]:
    """Add a sentence to those of the router that denies, or allows, egress by default."""

    def add(sentence: Sentence) -> Sentence:
        sentences.append(sentence)
        return sentence

    return add


denies, allows = by_default(DENYING), by_default(ALLOWING)


def configure(net: Isolated) -> None:
    """Egress denied by default; port forwards on one address, static NAT on another, nothing on a third."""
    must(
        net.world, "dnsmasq", "--conf-file=/dev/null", "--no-resolv", "--no-hosts", "--pid-file=", "--user=root",
        "--bind-interfaces", f"--listen-address={RESOLVER}", f"--address=/far.example/{FAR}",
    )  # fmt: skip
    net.associate(SOURCE_NAT, FORWARDS, STATIC, UNUSED)
    net.firewall(
        egress(1, "tcp", [80, 80]),
        egress(2, "udp", [5300, 5300], [f"{APP}/32"], [f"{FAR}/32"]),
        egress(3, "icmp", (), [GUEST_NET], [f"{NEAR}/32"], icmp=(8, 0)),
        egress(4, "all", (), [f"{DB}/32"], []),
        egress(5, "tcp", [7000, 7010], [], ["192.0.2.0/24"]),
        egress(6, "tcp", (), ["10.31.5.8/29"], [f"{FAR}/32"]),
    )
    net.forward(
        forward(FORWARDS, "tcp", "8080:8080", WEB, "80:80"),
        forward(FORWARDS, "tcp", "9000:9002", WEB, "9000:9002"),
        forward(FORWARDS, "tcp", "9100:9102", APP, "7100:7102"),
        forward(FORWARDS, "udp", "5300:5300", APP, "53:53"),
        forward(FORWARDS, "tcp", "8443:8443", WEB, "443:443", f"{FAR}/32"),
        forward(FORWARDS, "tcp", "9900:9902", APP, "9950:9950"),
        forward(FORWARDS, "tcp", "2222:2222", DB, "22:22"),
    )
    net.firewall(
        ingress(11, FORWARDS, "tcp", [8080, 8080]),
        ingress(12, FORWARDS, "tcp", [9000, 9102], [f"{NEAR}/32", GUEST_NET]),
        ingress(13, FORWARDS, "udp", [5300, 5300], ["192.0.2.0/28", "198.18.0.0/15"]),
        ingress(14, FORWARDS, "tcp", [8443, 8443]),
        ingress(15, FORWARDS, "icmp", (), [f"{NEAR}/32"], icmp=(8, 0)),
        ingress(16, FORWARDS, "tcp", [9900, 9905]),
        ingress(17, FORWARDS, "tcp", [9950, 9950]),
    )
    net.static_nat(static(STATIC, DB))
    net.firewall(
        ingress(21, STATIC, "tcp", [22, 22]),
        ingress(22, STATIC, "udp", (), [f"{FAR}/32"]),
        ingress(23, STATIC, "icmp", (), [f"{FAR}/32"], icmp=(-1, -1)),
    )


@pytest.fixture(scope="module")
def denying() -> Iterator[Isolated]:
    with isolated("packets") as net:
        configure(net)
        yield net


@pytest.fixture(scope="module")
def allowing() -> Iterator[Isolated]:
    with isolated("allow") as net:
        net.firewall(default_egress(allow=True))
        net.firewall(
            egress(31, "tcp", [25, 25], default=True),
            egress(32, "udp", (), [f"{APP}/32"], [f"{FAR}/32"], default=True),
            egress(33, "icmp", (), [f"{APP}/32"], ["0.0.0.0/0"], icmp=(8, -1), default=True),
            egress(34, "all", (), [GUEST_NET], [f"{RESOLVER}/32"], default=True),
            egress(35, "tcp", [7000, 7010], [], [f"{NEAR}/32"], default=True),
        )
        yield net


def name_of(sentence: Sentence) -> str:
    return sentence.__name__


@pytest.mark.parametrize("sentence", DENYING, ids=name_of)
def test_denied_by_default(denying: Isolated, sentence: Sentence) -> None:
    sentence(denying)


@pytest.mark.parametrize("sentence", ALLOWING, ids=name_of)
def test_allowed_by_default(allowing: Isolated, sentence: Sentence) -> None:
    sentence(allowing)


def test_all_of_it_is_so_again_after_a_power_cut(denying: Isolated) -> None:
    denying.power_cut()
    for sentence in DENYING:
        sentence(denying)


def test_all_of_that_is_so_again_after_a_power_cut(allowing: Isolated) -> None:
    allowing.power_cut()
    for sentence in ALLOWING:
        sentence(allowing)


@denies
def known_macs_get_their_lease(net: Isolated) -> None:
    for guest, address in ((net.web, WEB), (net.app, APP), (net.db, DB)):
        lease = guest.gets_lease()
        assert (lease.address, lease.prefix, lease.hostname) == (address, 24, guest.name)
        assert (lease.router, lease.dns) == (GUEST_GATEWAY, (GUEST_GATEWAY, RESOLVER))
        assert (lease.domain, lease.mtu, lease.server) == ("ring.example", 1450, GUEST_GATEWAY)
        assert lease.seconds == 0xFFFFFFFF


@denies
def an_unknown_mac_gets_none(net: Isolated) -> None:
    stranger = net.lab.hosts.get("stranger") or net.lab.guest("stranger", net.guest_segment, "02:1a:33:00:01:99")
    assert hasattr(stranger, "gets_no_lease")
    stranger.gets_no_lease()


@denies
def guests_find_each_other_and_the_world_by_name(net: Isolated) -> None:
    assert net.web.resolves("web1") == (WEB,)
    assert net.web.resolves("app1.ring.example") == (APP,)
    assert net.db.resolves("web1.ring.example") == (WEB,)
    assert net.web.resolves(APP, kind="PTR") == ("app1.ring.example",)
    assert net.app.resolves("data-server") == (GUEST_GATEWAY,)
    assert net.web.resolves("far.example", server=GUEST_GATEWAY) == (FAR,)
    net.web.cannot_resolve("nobody.ring.example")


@denies
def guests_leave_by_the_source_address(net: Isolated) -> None:
    net.world.serve(80)
    assert net.web.can_fetch(NEAR).address == SOURCE_NAT
    assert net.app.can_fetch(FAR).address == SOURCE_NAT


@denies
def egress_is_what_the_rules_allow_and_nothing_else(net: Isolated) -> None:
    net.world.serve(80)
    net.web.reaches(NEAR, 80)
    net.web.cannot_reach(NEAR, 81, on=net.world)
    net.web.cannot_reach(NEAR, 80, "udp", on=net.world)
    net.world.serve(5300, "udp")
    net.app.reaches(FAR, 5300, "udp")
    net.app.cannot_reach(NEAR, 5300, "udp", on=net.world)
    net.web.cannot_reach(FAR, 5300, "udp", on=net.world)
    net.world.serve(7010)
    net.web.reaches(NEAR, 7010)
    net.web.cannot_reach(NEAR, 6999, on=net.world)
    net.web.cannot_reach(NEAR, 7011, on=net.world)
    net.world.serve(4001)
    net.web.reaches(FAR, 4001)
    net.web.cannot_reach(NEAR, 4001, on=net.world)


@denies
def egress_of_pings_is_by_type_source_and_destination(net: Isolated) -> None:
    net.web.pings(NEAR)
    net.web.cannot_ping(FAR)
    net.db.pings(FAR)


@denies
def ingress_is_by_address_port_and_source(net: Isolated) -> None:
    net.web.serve(80)
    assert net.world.reaches(FORWARDS, 8080, source=FAR).name == "web1"
    net.web.serve(9001)
    assert net.world.reaches(FORWARDS, 9001, source=NEAR).address == NEAR
    net.world.cannot_reach(FORWARDS, 9001, source=FAR, on=net.web)
    net.app.serve(53, "udp")
    net.world.reaches(FORWARDS, 5300, "udp", source=NEAR)
    net.world.cannot_reach(FORWARDS, 5300, "udp", source=FAR)


@denies
def ingress_of_pings_is_by_type_and_source(net: Isolated) -> None:
    pings(net.world, FORWARDS, NEAR)
    cannot_ping(net.world, FORWARDS, FAR)
    pings(net.world, STATIC, FAR)
    cannot_ping(net.world, STATIC, NEAR)
    cannot_ping(net.world, UNUSED, NEAR)


@denies
def port_forwards_lead_where_they_say(net: Isolated) -> None:
    for guest, ports in ((net.web, (80, 9000, 9001, 9002)), (net.app, (7100, 7101, 7102, 9950))):
        for port in ports:
            guest.serve(port)
    for port in (9000, 9002):
        reply = net.world.reaches(FORWARDS, port, source=NEAR)
        assert (reply.name, reply.address) == ("web1", NEAR)
    watch = Watch(net.app)
    for port in (9100, 9101, 9102, 9900, 9902):
        assert net.world.reaches(FORWARDS, port, source=NEAR).name == "app1"
    assert {packet.port for packet in watch.packets() if packet.target == APP} == {7100, 7101, 7102, 9950}
    net.app.serve(53, "udp")
    assert net.world.reaches(FORWARDS, 5300, "udp", source=NEAR).name == "app1"


@denies
def a_port_forward_with_sources_is_for_them_alone(net: Isolated) -> None:
    net.web.serve(443)
    assert net.world.reaches(FORWARDS, 8443, source=FAR).name == "web1"
    net.world.cannot_reach(FORWARDS, 8443, source=NEAR)


@denies
def a_port_forward_without_a_firewall_rule_stays_closed(net: Isolated) -> None:
    net.db.serve(22)
    net.app.serve(9950)
    at_db, at_app = Watch(net.db), Watch(net.app)
    for port in (2222, 9903, 9950):
        net.world.cannot_reach(FORWARDS, port, source=NEAR)
    assert at_db.packets() | at_app.packets() == set()


@denies
def static_nat_is_one_address_both_ways(net: Isolated) -> None:
    net.db.serve(22)
    reply = net.world.reaches(STATIC, 22, source=NEAR)
    assert (reply.name, reply.address) == ("db1", NEAR)
    net.world.cannot_reach(STATIC, 23, on=net.db)
    net.db.serve(4500, "udp")
    assert net.world.reaches(STATIC, 4500, "udp", source=FAR).name == "db1"
    net.world.cannot_reach(STATIC, 4500, "udp", source=NEAR)
    net.world.serve(4002)
    assert net.db.reaches(FAR, 4002).address == STATIC
    net.world.serve(4002, "udp")
    assert net.db.reaches(NEAR, 4002, "udp").address == STATIC


@denies
def guests_reach_public_addresses_of_their_own_network(net: Isolated) -> None:
    net.web.serve(80)
    for guest in (net.web, net.app, net.db):
        reply = guest.reaches(FORWARDS, 8080)
        assert (reply.name, reply.address) == ("web1", GUEST_GATEWAY), guest.name
    net.app.serve(7101)
    assert net.web.reaches(FORWARDS, 9101).name == "app1"
    net.db.serve(22)
    for guest in (net.web, net.db):
        reply = guest.reaches(STATIC, 22)
        assert (reply.name, reply.address) == ("db1", GUEST_GATEWAY), guest.name
    net.web.cannot_reach(STATIC, 23, on=net.db)


@denies
def the_routers_own_ports_are_closed(net: Isolated) -> None:
    for address in (SOURCE_NAT, FORWARDS, UNUSED):
        for port, proto in ((3922, "tcp"), (53, "tcp"), (53, "udp")):
            net.world.cannot_reach(address, port, proto, timeout_s=0.2)
    for guest in (net.web, net.db):
        for address in (GUEST_GATEWAY, SOURCE_NAT, CONTROL):
            guest.cannot_reach(address, 3922, timeout_s=0.2)
            guest.cannot_reach(address, 22, timeout_s=0.2)
    net.web.pings(GUEST_GATEWAY)


@denies
def management_reaches_ssh(net: Isolated) -> None:
    assert net.mgmt.reaches(CONTROL, 3922).text.startswith("SSH-2.0-")
    net.mgmt.cannot_reach(CONTROL, 53, "udp")
    net.mgmt.cannot_reach(CONTROL, 22)


@denies
def guests_do_not_reach_the_control_network(net: Isolated) -> None:
    watch = Watch(net.mgmt)
    net.db.cannot_reach(MANAGEMENT, 8443, on=net.mgmt)
    net.db.cannot_ping(MANAGEMENT)
    assert watch.packets() == set()


@denies
def nothing_gets_to_a_private_address_from_outside(net: Isolated) -> None:
    watch, controlled = Watch(net.web), Watch(net.mgmt)
    net.world.route(GUEST_NET, SOURCE_NAT)
    net.world.route(f"{MANAGEMENT}/32", SOURCE_NAT)
    try:
        net.world.cannot_reach(WEB, 80, on=net.web)
        net.world.cannot_reach(WEB, 5353, "udp", on=net.web)
        net.world.cannot_ping(WEB)
        net.world.cannot_reach(MANAGEMENT, 8443, on=net.mgmt)
    finally:
        must(net.world, "ip", "route", "delete", GUEST_NET)
        must(net.world, "ip", "route", "delete", f"{MANAGEMENT}/32")
    assert watch.packets() == set()
    assert controlled.packets() == set()


def lies(liar: Host, listener: Host, packet: Packet) -> None:
    """Send what claims to come from somewhere else: it does not arrive."""
    watch = Watch(listener)
    must(liar, "ip", "address", "add", f"{packet.source}/32", "dev", "lo")
    try:
        liar.cannot_reach(packet.target, packet.port, packet.proto, source=packet.source, timeout_s=0.3)
    finally:
        must(liar, "ip", "address", "delete", f"{packet.source}/32", "dev", "lo")
    assert watch.packets() == set()


@denies
def an_outsider_with_an_insiders_address_is_refused(net: Isolated) -> None:
    net.web.serve(80)
    lies(net.world, net.web, Packet("", INSIDER, FORWARDS, "tcp", 8080))


@denies
def a_guest_with_a_foreign_address_is_refused(net: Isolated) -> None:
    for source in ("172.20.9.9", "192.0.2.99", SOURCE_NAT):
        lies(net.web, net.world, Packet("", source, NEAR, "tcp", 7005))


@allows
def everything_is_open_but_what_the_rules_deny(net: Isolated) -> None:
    for port in (80, 26, 7005):
        net.world.serve(port)
    assert net.web.reaches(NEAR, 80).address == SOURCE_NAT
    net.web.reaches(NEAR, 26)
    net.web.cannot_reach(NEAR, 25, on=net.world)
    net.web.reaches(FAR, 7005)
    net.web.cannot_reach(NEAR, 7005, on=net.world)
    net.world.serve(5300, "udp")
    net.app.reaches(NEAR, 5300, "udp")
    net.app.cannot_reach(FAR, 5300, "udp", on=net.world)
    net.web.reaches(FAR, 5300, "udp")
    net.web.cannot_reach(RESOLVER, 80, on=net.world)
    net.web.cannot_ping(RESOLVER)
    net.web.pings(FAR)
    net.app.cannot_ping(FAR)


@allows
def open_is_not_open_for_liars(net: Isolated) -> None:
    for source in ("172.20.9.9", "192.0.2.99", GATEWAY):
        lies(net.web, net.world, Packet("", source, NEAR, "udp", 5300))


@allows
def open_is_not_open_towards_the_control_network(net: Isolated) -> None:
    watch = Watch(net.mgmt)
    net.web.cannot_reach(MANAGEMENT, 8443, on=net.mgmt)
    net.web.cannot_ping(MANAGEMENT)
    assert watch.packets() == set()


@allows
def open_is_not_open_from_outside(net: Isolated) -> None:
    net.world.cannot_reach(SOURCE_NAT, 3922)
    cannot_ping(net.world, SOURCE_NAT, NEAR)
    watch = Watch(net.web)
    net.world.route(GUEST_NET, SOURCE_NAT)
    try:
        net.world.cannot_reach(WEB, 80, on=net.web)
    finally:
        must(net.world, "ip", "route", "delete", GUEST_NET)
    assert watch.packets() == set()
