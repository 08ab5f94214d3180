"""What a VPC's router does with packets, proved with packets; and all of it again after a power cut."""

import json
from collections.abc import Callable, Iterator

import pytest
from isolated import forward, static
from tiers import (
    APP,
    APP1,
    APP2,
    BEHIND,
    BEHIND_NET,
    CIDR,
    CONTROL,
    DB,
    DB1,
    FAR,
    MANAGEMENT,
    NEAR,
    PEER,
    PRIVATE,
    PRIVATE_NET,
    RESOLVER,
    SOURCE_NAT,
    TIERS,
    WEB,
    WEB1,
    WEB2,
    Vpc,
    also,
    deny,
    route,
    rule,
    vpc,
)
from watching import Watch, Wire, are_cut, must

from holdfast.lab.host import Host
from holdfast.lab.lab import Lab
from holdfast.lab.probe import Flow

pytestmark = pytest.mark.lab

FORWARDS, UNUSED = "203.0.113.62", "203.0.113.63"
FORWARDS2, STATIC = "198.51.100.62", "198.51.100.61"
ROUTED, ROUTED_NET = "172.28.61.1", "172.28.61.0/24"  # behind app2, or app1
PROTOS = ("tcp", "udp")
GRE, ESP, ECHO, TIMESTAMP = 47, 50, 8, 13

WEB_IN = [
    deny("tcp", f"{NEAR}/32", [8085, 8085]),
    deny("tcp", BEHIND_NET, [8084, 8084]),
    rule("tcp", "0.0.0.0/0,::/0", [8080, 8087]),
    deny("tcp", "0.0.0.0/0", [8080, 8087]),
    rule("udp", f"192.0.2.0/28,{APP.net}", [5300, 5301]),
    rule("47", f"{APP1}/32"),
    rule("icmp", APP.net, icmp=(ECHO, 0)),
    rule("all", DB.net),
]
WEB_OUT = [
    deny("tcp", "0.0.0.0/0", [25, 25]),
    deny("udp", f"{FAR}/32"),
    rule("udp", "192.0.2.0/24"),
    rule("tcp", "192.0.2.0/24", [80, 81]),
    deny("tcp", "192.0.2.0/24", [81, 81]),
    rule("tcp", f"{APP.net},{BEHIND_NET},{PRIVATE_NET},{ROUTED_NET},203.0.113.0/24,198.51.100.0/24", [8080, 8089]),
    rule("tcp", CIDR, [7001, 7001]),
    rule("tcp", "198.51.100.0/24", [22, 22]),
    rule("icmp", f"{CIDR},{BEHIND_NET}"),
]
APP_IN = [
    deny("all", DB.net),
    rule("tcp", CIDR, [8080, 8088]),
    rule("tcp", WEB.net, [7002, 7002]),
    rule("tcp", f"192.0.2.0/24,{CIDR}", [22, 22]),
    rule("udp", f"{NEAR}/32", [5300, 5300]),
    rule("icmp", CIDR, icmp=(ECHO, -1)),
]
PRIVATE_IN = [rule("tcp", WEB.net, [8080, 8085]), rule("icmp", CIDR, icmp=(ECHO, -1))]
PRIVATE_OUT = [
    deny("tcp", WEB.net, [8086, 8086]),
    rule("tcp", WEB.net, [8080, 8089]),
    rule("tcp", APP.net, [22, 22]),
]
SIDE, CUT = ([rule(p, "0.0.0.0/0", [n, n + 9]) for p in PROTOS] for n in (9100, 9200))
OPEN = [*SIDE, *CUT]
"""Rules that stay, and rules that go while connections are open."""
ROUTES = [route(BEHIND_NET, PEER, own=PRIVATE), route(ROUTED_NET, APP2)]

Sentence = Callable[[Vpc], None]
SENTENCES: list[Sentence] = []


def holds(sentence: Sentence) -> Sentence:
    """Add a sentence to those that hold for the standing configuration."""
    SENTENCES.append(sentence)
    return sentence


def configure(net: Vpc) -> None:
    """ACLs on web and app, none on db; forwards on both public nics, static NAT on the second; routes of both kinds."""
    must(
        net.world, "dnsmasq", "--conf-file=/dev/null", "--no-resolv", "--no-hosts", "--pid-file=", "--user=root",
        "--bind-interfaces", f"--listen-address={RESOLVER}", f"--address=/far.example/{FAR}",
    )  # fmt: skip
    for guest in (net.app1, net.app2):
        must(guest, "ip", "address", "add", f"{ROUTED}/32", "dev", "lo")
    net.associate(FORWARDS, UNUSED)
    net.associate(FORWARDS2, STATIC)
    net.private_acl(PRIVATE_IN, PRIVATE_OUT)
    net.routes(*ROUTES)
    net.static_nat(static(STATIC, APP1))
    net.forward(
        forward(FORWARDS, "tcp", "8080:8087", WEB1, "8080:8087"),
        forward(FORWARDS, "tcp", "9000:9000", WEB1, "8089:8089"),
        forward(FORWARDS, "tcp", "8443:8443", WEB2, "8086:8086", f"{FAR}/32,198.18.0.0/15"),
        forward(FORWARDS, "udp", "5300:5301", WEB1, "5300:5301"),
        forward(FORWARDS, "tcp", "2222:2222", DB1, "22:22"),
        forward(FORWARDS2, "tcp", "8081:8081", WEB1, "8081:8081"),
    )
    net.forward(*(forward(FORWARDS, p, f"{n}:{n + 9}", WEB1, f"{n}:{n + 9}") for p in PROTOS for n in (9100, 9200)))
    net.acl(WEB, WEB_IN, WEB_OUT)
    net.acl(APP, APP_IN)


@pytest.fixture(scope="module")
def net() -> Iterator[Vpc]:
    with vpc("vpackets") as net:
        configure(net)
        yield net


def name_of(sentence: Sentence) -> str:
    return sentence.__name__


@pytest.mark.parametrize("sentence", SENTENCES, ids=name_of)
def test_vpc(net: Vpc, sentence: Sentence) -> None:
    sentence(net)


class Raw:
    """Takes down protocols and ICMP types that arrive at a host from now on, by source."""

    _TABLE = """
    table inet raw {
      set protocols { type ipv4_addr . inet_proto; flags dynamic; size 4096; }
      set types { type ipv4_addr . icmp_type; flags dynamic; size 4096; }
      chain arrived {
        type filter hook prerouting priority -400
        meta l4proto { 47, 50 } update @protocols { ip saddr . meta l4proto }
        meta l4proto icmp update @types { ip saddr . icmp type }
      }
    }"""

    def __init__(self, host: Host) -> None:
        self.host = host
        must(host, "/bin/sh", "-c", f"nft -f - <<'END'\nadd table inet raw\ndelete table inet raw\n{self._TABLE}\nEND")

    def seen(self, name: str) -> set[tuple[str, int]]:
        told = json.loads(must(self.host, "nft", "--json", "--numeric", "list", "set", "inet", "raw", name))
        elements = next(item["set"].get("elem", []) for item in told["nftables"] if "set" in item)
        names = {"gre": GRE, "esp": ESP, "echo-request": ECHO, "timestamp-request": TIMESTAMP}
        return {(row["concat"][0], int(names.get(row["concat"][1], row["concat"][1]))) for row in elements}


def sends(host: Host, target: str, *packets: tuple[int, bytes]) -> None:
    """Send packets of some protocols, in this order."""
    program = (
        "import socket, sys\n"
        "for proto, data in zip(sys.argv[2::2], sys.argv[3::2]):\n"
        "    with socket.socket(socket.AF_INET, socket.SOCK_RAW, int(proto)) as raw:\n"
        "        raw.sendto(bytes.fromhex(data), (sys.argv[1], 0))\n"
    )
    words = [word for proto, data in packets for word in (str(proto), data.hex())]
    must(host, "/usr/bin/python3", "-I", "-c", program, target, *words)


def icmp(kind: int) -> tuple[int, bytes]:
    body = bytes([kind, 0, 0, 0, 0x61, 0x61, 0, 1]) + bytes(12)
    total = sum(int.from_bytes(body[at : at + 2]) for at in range(0, len(body), 2))
    check = ~(total + (total >> 16)) & 0xFFFF
    return 1, body[:2] + check.to_bytes(2) + body[4:]


BARE_GRE, BARE_ESP = (GRE, bytes.fromhex("00000800") + bytes(20)), (ESP, bytes.fromhex("0000616100000001") + bytes(32))


def lies(liar: Host, listener: Host, source: str, target: str, port: int) -> None:
    """Send what claims to come from somewhere else: it does not arrive."""
    watch = Watch(listener)
    with also(liar, source):
        liar.cannot_reach(target, port, source=source, timeout_s=0.2)
        liar.cannot_reach(target, port, "udp", source=source, timeout_s=0.2)
    assert {packet for packet in watch.packets() if packet.proto != "icmp"} == set()


@holds
def each_tier_has_its_own_dhcp(net: Vpc) -> None:
    for guest, tier, address in net.guests:
        lease = guest.gets_lease()
        assert (lease.address, lease.prefix, lease.hostname) == (address, 24, guest.name)
        assert (lease.router, lease.server) == (tier.gateway, tier.gateway)
        assert lease.dns == (tier.gateway, RESOLVER)
        assert (lease.domain, lease.mtu) == (tier.domain, tier.mtu)
        assert lease.seconds == 0xFFFFFFFF


@holds
def a_mac_of_another_tier_gets_no_lease(net: Vpc) -> None:
    stranger = net.lab.hosts.get("stranger") or net.lab.guest("stranger", net.segments[WEB], "02:1a:61:03:01:99")
    assert hasattr(stranger, "gets_no_lease")
    net.lab.cable(stranger, "eth0", up=True)
    stranger.gets_no_lease(timeout_s=1.5)
    net.lab.cable(stranger, "eth0", up=False)  # its client never gives up


@holds
def names_are_known_across_tiers(net: Vpc) -> None:
    for guest in (net.web1, net.app1, net.db1):
        for name, address in (("web1", WEB1), ("app2", APP2), ("db1", DB1)):
            assert guest.resolves(f"{name}.vpc.example") == (address,)
        guest.cannot_resolve("nobody.vpc.example")
    assert net.web1.resolves("app1") == (APP1,)
    for guest, tier in ((net.web1, WEB), (net.app1, APP), (net.db1, DB)):
        assert guest.resolves("data-server", server=tier.gateway) == (tier.gateway,)
        assert guest.resolves("r-61-VM.vpc.example", server=tier.gateway) == (tier.gateway,)
        assert guest.resolves("far.example", server=tier.gateway) == (FAR,)
    assert net.web1.resolves(DB1, kind="PTR")[0].startswith("db1.")


@holds
def from_tier_to_tier_both_lists_are_asked(net: Vpc) -> None:
    for port in (8080, 8088):
        net.app1.serve(port)
        reply = net.web1.reaches(net.app1, port)
        assert (reply.name, reply.address) == ("app1", WEB1)
    watch = Watch(net.app1)
    net.web1.cannot_reach(net.app1, 8089)  # egress of web alone
    net.web1.cannot_reach(net.app1, 7001)  # egress of web alone
    net.web1.cannot_reach(net.app1, 7002)  # ingress of app alone
    net.web1.cannot_reach(net.app1, 7003)
    net.web1.cannot_reach(net.app1, 8080, "udp")
    assert watch.packets() == set()
    net.web1.pings(APP1)


@holds
def what_is_denied_before_it_is_allowed_is_denied(net: Vpc) -> None:
    net.db1.cannot_reach(net.app1, 8080)
    net.app1.serve(8080)
    net.web1.reaches(net.app1, 8080)
    net.web1.serve(8085)
    net.world.cannot_reach(FORWARDS, 8085, source=NEAR)
    net.world.reaches(FORWARDS, 8085, source=FAR)
    net.web1.cannot_reach(NEAR, 25, on=net.world)
    net.web1.cannot_reach(FAR, 6000, "udp", on=net.world)
    net.world.serve(6000, "udp")
    net.web1.reaches(NEAR, 6000, "udp")


@holds
def what_is_allowed_before_it_is_denied_is_allowed(net: Vpc) -> None:
    net.world.serve(81)
    net.web1.reaches(NEAR, 81)
    net.web1.serve(8087)
    net.world.reaches(FORWARDS, 8087, source=NEAR)


@holds
def one_rule_may_name_several_networks_and_a_range_of_ports(net: Vpc) -> None:
    net.web1.serve(5300, "udp")
    net.web1.serve(5301, "udp")
    assert net.world.reaches(FORWARDS, 5301, "udp", source=NEAR).address == NEAR
    assert net.app1.reaches(net.web1, 5300, "udp").address == APP1
    net.world.cannot_reach(FORWARDS, 5300, "udp", source=FAR)
    net.app1.cannot_reach(net.web1, 5302, "udp")
    for port in (8080, 8083, 8087):
        net.web1.serve(port)
        net.app1.reaches(net.web1, port)
    net.app1.cannot_reach(net.web1, 8079)
    net.app1.cannot_reach(net.web1, 8088)


@holds
def a_protocol_is_allowed_by_its_number(net: Vpc) -> None:
    raw = Raw(net.web1)
    sends(net.app2, WEB1, BARE_GRE)
    sends(net.app1, WEB1, BARE_ESP, BARE_GRE)
    assert raw.seen("protocols") == {(APP1, GRE)}


@holds
def icmp_is_allowed_by_its_type(net: Vpc) -> None:
    raw = Raw(net.web1)
    sends(net.app1, WEB1, icmp(TIMESTAMP))
    net.app1.pings(WEB1)
    assert {seen for seen in raw.seen("types") if seen[0] == APP1} == {(APP1, ECHO)}


@holds
def all_is_every_protocol(net: Vpc) -> None:
    raw = Raw(net.web1)
    sends(net.db1, WEB1, BARE_GRE, BARE_ESP, icmp(TIMESTAMP))
    net.db1.pings(WEB1)
    assert raw.seen("protocols") == {(DB1, GRE), (DB1, ESP)}
    assert raw.seen("types") == {(DB1, TIMESTAMP), (DB1, ECHO)}
    for port, proto in ((7777, "tcp"), (7777, "udp")):
        net.web1.serve(port, proto)
        net.db1.reaches(net.web1, port, proto)


@holds
def without_an_acl_a_tier_is_closed_inwards_and_open_outwards(net: Vpc) -> None:
    watch = Watch(net.db1)
    net.web1.cannot_reach(net.db1, 7001)
    net.app1.cannot_reach(net.db1, 8080, "udp")
    net.app1.cannot_ping(net.db1)
    net.world.cannot_reach(FORWARDS, 2222, source=NEAR, on=net.db1)
    assert watch.packets() == set()
    for port, proto in ((4001, "tcp"), (4001, "udp")):
        net.world.serve(port, proto)
        assert net.db1.reaches(FAR, port, proto).address == SOURCE_NAT
    net.db1.pings(NEAR)


@holds
def tiers_leave_by_the_source_address(net: Vpc) -> None:
    net.world.serve(80)
    watch = Watch(net.world)
    for guest in (net.web1, net.web2, net.app2, net.db1):
        assert guest.can_fetch(NEAR).address == SOURCE_NAT
    assert watch.nics(SOURCE_NAT, "tcp") == {net.nic}
    net.web1.cannot_reach(NEAR, 82, on=net.world)
    net.web1.cannot_ping(NEAR)


@holds
def a_port_forward_needs_the_acl_too(net: Vpc) -> None:
    net.web1.serve(8080)
    watch = Watch(net.web1)
    net.world.cannot_reach(FORWARDS, 9000, source=NEAR)
    net.web1.serve(8089)
    net.world.cannot_reach(FORWARDS, 9000, source=FAR)
    net.world.cannot_reach(UNUSED, 8080, source=FAR)
    net.world.cannot_reach(SOURCE_NAT, 8080, source=FAR)
    assert {packet for packet in watch.packets() if packet.proto == "tcp"} == set()
    # After that: on a busy machine the last packet of this one would come while the others are counted.
    reply = net.world.reaches(FORWARDS, 8080, source=NEAR)
    assert (reply.name, reply.address) == ("web1", NEAR)


@holds
def a_port_forward_with_sources_is_for_them_alone(net: Vpc) -> None:
    net.web2.serve(8086)
    assert net.world.reaches(FORWARDS, 8443, source=FAR).name == "web2"
    net.world.cannot_reach(FORWARDS, 8443, source=NEAR)


@holds
def static_nat_is_one_address_both_ways_on_the_second_nic(net: Vpc) -> None:
    net.app1.serve(22)
    net.world.serve(4002)
    net.world.serve(4002, "udp")
    net.app1.serve(5300, "udp")
    watch = Watch(net.world)
    reply = net.world.reaches(STATIC, 22, source=NEAR)
    assert (reply.name, reply.address) == ("app1", NEAR)
    assert net.app1.reaches(FAR, 4002).address == STATIC
    assert net.app1.reaches(NEAR, 4002, "udp").address == STATIC
    assert net.world.reaches(STATIC, 5300, "udp", source=NEAR).name == "app1"
    assert watch.nics(STATIC, "tcp") | watch.nics(STATIC, "udp") == {net.nic2}
    net.world.cannot_reach(STATIC, 8080, source=NEAR, on=net.app1)
    net.world.cannot_reach(STATIC, 5300, "udp", source=FAR)
    assert APP1 not in {packet.source for packet in watch.packets()}


@holds
def replies_leave_by_the_nic_of_entry(net: Vpc) -> None:
    net.web1.serve(8081)
    watch = Watch(net.world)
    for address in (FORWARDS, FORWARDS2):
        reply = net.world.reaches(address, 8081, source=NEAR)
        assert (reply.name, reply.address) == ("web1", NEAR)
    assert watch.nics(FORWARDS, "tcp") == {net.nic}
    assert watch.nics(FORWARDS2, "tcp") == {net.nic2}


@holds
def public_addresses_lead_back_into_the_same_tier(net: Vpc) -> None:
    net.web1.serve(8080)
    for guest in (net.web1, net.web2):
        reply = guest.reaches(FORWARDS, 8080)
        assert (reply.name, reply.address) == ("web1", WEB.gateway)
    net.app1.serve(8080)
    for guest in (net.app1, net.app2):
        reply = guest.reaches(STATIC, 8080)
        assert (reply.name, reply.address) == ("app1", APP.gateway)
    net.web1.cannot_reach(FORWARDS, 9000, on=net.web1)


@holds
def public_addresses_lead_from_tier_to_tier_by_both_lists(net: Vpc) -> None:
    net.web1.serve(8082)
    assert net.app2.reaches(FORWARDS, 8082).name == "web1"
    net.app1.serve(22)
    reply = net.web1.reaches(STATIC, 22)
    assert (reply.name, reply.address) == ("app1", WEB1)
    net.web1.cannot_reach(STATIC, 7002, on=net.app1)
    net.db1.cannot_reach(STATIC, 22)
    net.app2.cannot_reach(FORWARDS, 2222, on=net.db1)


@holds
def a_private_gateway_is_judged_by_its_acl_both_ways(net: Vpc) -> None:
    net.peer.serve(8080)
    for address in (PEER, BEHIND):
        reply = net.web1.reaches(address, 8080)
        assert (reply.name, reply.address) == ("peer", WEB1)
    net.web1.cannot_reach(BEHIND, 8086, on=net.peer)  # the gateway's ingress
    net.app1.cannot_reach(BEHIND, 8080)
    net.db1.cannot_reach(PEER, 8080)
    net.web1.pings(BEHIND)
    net.web1.serve(8083)
    for source in (PEER, BEHIND):
        reply = net.peer.reaches(net.web1, 8083, source=source)
        assert (reply.name, reply.address) == ("web1", source)
    net.peer.cannot_reach(net.web1, 8086, source=BEHIND)  # the gateway's egress: denied before it is allowed
    net.peer.cannot_reach(net.web1, 8084, source=BEHIND)  # the tier's ingress
    net.peer.cannot_reach(net.app1, 22, source=BEHIND)  # the tier's ingress
    net.peer.cannot_reach(net.db1, 22, source=BEHIND)


@holds
def a_route_leads_to_a_next_hop_in_a_tier(net: Vpc) -> None:
    net.app2.serve(8080)
    assert net.web1.reaches(ROUTED, 8080).name == "app2"
    net.web1.serve(8080)
    assert net.app2.reaches(net.web1, 8080, source=ROUTED).address == ROUTED
    net.web1.cannot_reach(ROUTED, 8089, on=net.app2)
    net.db1.cannot_reach(ROUTED, 8080)


@holds
def a_private_gateway_is_no_way_out(net: Vpc) -> None:
    at_world, at_mgmt = Watch(net.world), Watch(net.mgmt)
    for target, listener in ((NEAR, net.world), (MANAGEMENT, net.mgmt)):
        net.peer.route(f"{target}/32", PRIVATE)
        try:
            net.peer.cannot_reach(target, 4001, source=BEHIND, on=listener, timeout_s=0.3)
        finally:
            must(net.peer, "ip", "route", "delete", f"{target}/32")
    assert at_mgmt.packets() == set()
    assert BEHIND not in {packet.source for packet in at_world.packets()}


@holds
def the_routers_own_ports_are_closed(net: Vpc) -> None:
    for address in (SOURCE_NAT, UNUSED, FORWARDS2):
        for port, proto in ((3922, "tcp"), (22, "tcp"), (53, "tcp"), (53, "udp")):
            net.world.cannot_reach(address, port, proto, source=NEAR, timeout_s=0.1)
    net.peer.cannot_reach(PRIVATE, 3922, timeout_s=0.1)
    net.peer.cannot_reach(PRIVATE, 53, "udp", timeout_s=0.1)
    for guest, tier in ((net.db1, DB), (net.web1, WEB)):
        for address in (*(tier.gateway for tier in TIERS), SOURCE_NAT, PRIVATE, CONTROL):
            guest.cannot_reach(address, 3922, timeout_s=0.1)
            guest.cannot_reach(address, 22, timeout_s=0.1)
        guest.pings(tier.gateway)


@holds
def management_reaches_ssh(net: Vpc) -> None:
    assert net.mgmt.reaches(CONTROL, 3922).text.startswith("SSH-2.0-")
    net.mgmt.cannot_reach(CONTROL, 53, "udp")


@holds
def tiers_do_not_reach_the_control_network(net: Vpc) -> None:
    watch = Watch(net.mgmt)
    for guest in (net.db1, net.app1, net.app2):
        guest.cannot_reach(MANAGEMENT, 8443, on=net.mgmt, timeout_s=0.2)
        guest.cannot_ping(MANAGEMENT, timeout_s=0.2)
    assert watch.packets() == set()


@holds
def nothing_gets_to_a_private_address_from_outside(net: Vpc) -> None:
    watches = [Watch(guest) for guest in (net.web1, net.app1, net.mgmt, net.peer)]
    targets = {WEB.net: WEB1, APP.net: APP1, f"{MANAGEMENT}/32": MANAGEMENT, BEHIND_NET: BEHIND}
    for gateway in (SOURCE_NAT, STATIC):
        for network, target in targets.items():
            net.world.route(network, gateway)
            try:
                net.world.cannot_reach(target, 8080, source=FAR, timeout_s=0.2)
                net.world.cannot_reach(target, 5300, "udp", source=NEAR, timeout_s=0.2)
            finally:
                must(net.world, "ip", "route", "delete", network)
    assert [watch.packets() for watch in watches] == [set()] * 4


@holds
def a_tier_with_a_foreign_address_is_refused(net: Vpc) -> None:
    net.world.serve(4001)
    net.world.serve(4001, "udp")
    for source in ("172.20.9.9", "192.0.2.99", SOURCE_NAT, "10.61.1.77", BEHIND):
        lies(net.db1, net.world, source, NEAR, 4001)
    lies(net.app1, net.web1, "10.61.3.77", WEB1, 8080)
    lies(net.app1, net.web1, DB1, WEB1, 7777)


@holds
def an_outsider_with_a_tiers_address_is_refused(net: Vpc) -> None:
    lies(net.world, net.web1, "10.61.3.77", FORWARDS, 8080)
    lies(net.peer, net.web1, "10.61.3.77", WEB1, 8080)


# What follows changes the configuration, and puts it back.


def test_an_empty_acl_is_as_none(net: Vpc) -> None:
    net.acl(DB)
    without_an_acl_a_tier_is_closed_inwards_and_open_outwards(net)


def test_one_egress_rule_closes_all_other_ways_out(net: Vpc) -> None:
    net.world.serve(4001)
    net.db1.reaches(NEAR, 4001)
    net.acl(DB, (), [rule("tcp", "192.0.2.0/24", [80, 80])])
    try:
        net.world.serve(80)
        net.db1.reaches(NEAR, 80)
        net.db1.cannot_reach(NEAR, 4001)
        net.db1.cannot_reach(NEAR, 80, "udp", on=net.world)
        net.db1.cannot_reach(net.web1, 7777)
        net.db1.cannot_ping(NEAR)
        net.db1.cannot_reach(FORWARDS, 8080, on=net.web1)
        net.db1.pings(DB.gateway)
        assert net.db1.resolves("web1.vpc.example") == (WEB1,)
        assert net.db1.gets_lease().address == DB1
    finally:
        net.acl(DB)
    net.db1.reaches(NEAR, 4001)


def test_ingress_rules_alone_leave_the_way_out_open(net: Vpc) -> None:
    net.acl(DB, [rule("tcp", WEB.net, [7001, 7001])])
    try:
        net.db1.serve(7001)
        net.web1.reaches(net.db1, 7001)
        net.app1.cannot_reach(net.db1, 7001)
        net.world.serve(4001)
        net.db1.reaches(NEAR, 4001)
    finally:
        net.acl(DB)
    net.web1.cannot_reach(net.db1, 7001)


def test_the_order_of_rules_decides(net: Vpc) -> None:
    net.web1.serve(8085)
    net.web1.serve(8080)
    net.acl(WEB, [*WEB_IN[2:], *WEB_IN[:2]], WEB_OUT)
    net.world.reaches(FORWARDS, 8085, source=NEAR)
    net.acl(WEB, [WEB_IN[3], *WEB_IN[:3], *WEB_IN[4:]], WEB_OUT)
    net.world.cannot_reach(FORWARDS, 8080, source=NEAR)
    net.world.cannot_reach(FORWARDS, 8085, source=FAR)
    net.acl(WEB, WEB_IN, WEB_OUT)
    net.world.cannot_reach(FORWARDS, 8085, source=NEAR)
    net.world.reaches(FORWARDS, 8085, source=FAR)


def test_a_route_that_changes_or_goes(net: Vpc) -> None:
    net.app1.serve(8080)
    net.app2.serve(8080)
    net.routes(ROUTES[0], route(ROUTED_NET, APP1))
    assert net.web1.reaches(ROUTED, 8080).name == "app1"
    net.routes(ROUTES[0], route(ROUTED_NET, APP1, revoke=True))
    watches = [Watch(net.app1), Watch(net.app2)]
    net.web1.cannot_reach(ROUTED, 8080)
    assert [watch.packets() for watch in watches] == [set()] * 2
    net.routes(ROUTES[0] | {"revoke": True}, ROUTES[1])
    net.peer.serve(8080)
    net.web1.cannot_reach(BEHIND, 8080)
    net.web1.reaches(PEER, 8080)
    assert net.web1.reaches(ROUTED, 8080).name == "app2"
    net.routes(*ROUTES)
    net.web1.reaches(BEHIND, 8080)


def test_a_private_gateway_with_source_nat_hides_the_tiers(net: Vpc) -> None:
    net.peer.serve(8080)
    net.private_gateway(source_nat=True)
    try:
        assert net.web1.reaches(BEHIND, 8080).address == PRIVATE
        assert net.web1.reaches(PEER, 8080).address == PRIVATE
    finally:
        net.private_gateway()
    assert net.web1.reaches(BEHIND, 8080).address == WEB1


def test_a_private_gateway_that_goes_and_comes_back(net: Vpc) -> None:
    net.peer.serve(8080)
    net.private_acl(check=False)
    net.web1.cannot_reach(PEER, 8080)
    # Its routes wait for it: the server revokes them first, but what did not arrive must do no harm.
    net.routes(ROUTES[1])
    net.private_gateway(add=False)
    net.web1.cannot_reach(PEER, 8080)
    net.private_gateway()
    net.peer.serve(8081)
    net.web1.cannot_reach(PEER, 8081)
    net.private_acl(PRIVATE_IN, PRIVATE_OUT)
    net.routes(*ROUTES)
    a_private_gateway_is_judged_by_its_acl_both_ways(net)


def test_a_tier_that_goes_and_comes_back_inherits_nothing(net: Vpc) -> None:
    net.tier(DB, add=False)
    net.web1.serve(7777)
    net.db1.cannot_reach(net.web1, 7777)
    net.tier(DB)
    net.dhcp(net.db1, DB, DB1)
    net.db1.gets_lease()
    without_an_acl_a_tier_is_closed_inwards_and_open_outwards(net)
    net.db1.reaches(net.web1, 7777)


def four(host: Host, address: str, port: int, vm: Host, source: str = "") -> list[Wire]:
    """Four flows, TCP and UDP, to ports from this one on."""
    protos = enumerate((*PROTOS, *PROTOS), port)
    return [Wire(host, address, number, vm, number, proto, source) for number, proto in protos]


@pytest.fixture
def cutting(net: Vpc) -> Iterator[Vpc]:
    """What may stay and what may go is allowed in every list but db's, which has none; put back at the end."""
    net.acl(WEB, OPEN, OPEN, check=False)
    net.acl(APP, OPEN, check=False)
    net.private_acl(OPEN, OPEN)
    yield net
    Wire.close_all()
    net.acl(DB, check=False)
    net.acl(WEB, WEB_IN, WEB_OUT, check=False)
    net.acl(APP, APP_IN, check=False)
    net.private_acl(PRIVATE_IN, PRIVATE_OUT)


def cut_and_nothing_else(net: Vpc, wires: list[Wire], others: list[Wire], revoke: Callable[[], object]) -> None:
    """Revoke while other flows are measured: the wires are cut whichever end speaks first, the others lose nothing."""
    flows = [
        Flow(net.world, net.web1, 9108, address=FORWARDS, source_address=NEAR),
        Flow(net.web1, net.world, 9108),
        Flow(net.app2, net.web1, 9109, kind="new"),
        Flow(net.web1, net.app1, 9107),
    ]

    def once() -> None:
        revoke()
        are_cut(wires)
        for wire in others:
            wire.works()

    counts = net.lab.measure(flows, once)
    assert [count.lost for count in counts] == [0] * 4, counts
    assert [count.sent - count.returned for count in counts if count is not counts[2]] == [0] * 3, counts
    assert all(count.sent > 100 for count in counts)


def test_a_revoked_ingress_rule_cuts_what_it_let_in(cutting: Vpc) -> None:
    net = cutting
    wires = [*four(net.world, FORWARDS, 9200, net.web1, NEAR), *four(net.app1, WEB1, 9204, net.web1)]
    others = [*four(net.world, FORWARDS, 9100, net.web1, NEAR), *four(net.web1, NEAR, 9200, net.world)]
    others += four(net.web1, APP1, 9200, net.app1)
    cut_and_nothing_else(net, wires, others, lambda: net.acl(WEB, SIDE, OPEN))


def test_a_revoked_ingress_rule_cuts_what_came_by_a_public_address(cutting: Vpc) -> None:
    net = cutting
    wires = [*four(net.world, STATIC, 9200, net.app1, FAR), *four(net.web1, STATIC, 9204, net.app1)]
    others = [*four(net.world, STATIC, 9100, net.app1, FAR), *four(net.app1, NEAR, 9200, net.world)]
    others += four(net.web2, FORWARDS, 9200, net.web1)
    cut_and_nothing_else(net, wires, others, lambda: net.acl(APP, SIDE))


def test_a_revoked_egress_rule_cuts_what_it_let_out(cutting: Vpc) -> None:
    net = cutting
    wires = [*four(net.web1, NEAR, 9200, net.world), *four(net.web1, APP1, 9200, net.app1)]
    wires += four(net.web1, STATIC, 9204, net.app1)
    others = [*four(net.web1, NEAR, 9100, net.world), *four(net.web2, APP1, 9100, net.app1)]
    others += four(net.world, FORWARDS, 9200, net.web1, NEAR)
    cut_and_nothing_else(net, wires, others, lambda: net.acl(WEB, OPEN, SIDE))


def test_a_rule_that_denies_before_cuts_what_was_allowed(cutting: Vpc) -> None:
    net = cutting
    wires = [*four(net.world, FORWARDS, 9200, net.web1, NEAR), *four(net.web1, NEAR, 9204, net.world)]
    others = [*four(net.world, FORWARDS, 9204, net.web1, FAR), *four(net.web1, FAR, 9204, net.world)]
    first = [deny(proto, f"{NEAR}/32", [9200, 9209]) for proto in PROTOS]
    cut_and_nothing_else(net, wires, others, lambda: net.acl(WEB, [*first, *OPEN], [*first, *OPEN]))


def test_the_first_egress_rule_cuts_all_that_it_does_not_allow(cutting: Vpc) -> None:
    net = cutting
    wires = [*four(net.db1, NEAR, 9200, net.world), *four(net.db1, WEB1, 9200, net.web1)]
    others = [*four(net.db1, NEAR, 9100, net.world), *four(net.db1, WEB1, 9100, net.web1)]
    cut_and_nothing_else(net, wires, others, lambda: net.acl(DB, (), SIDE))


@pytest.mark.parametrize("inwards", [True, False])
def test_a_revoked_rule_of_a_private_gateway_cuts(cutting: Vpc, inwards: bool) -> None:  # noqa: FBT001 a parameter
    net = cutting
    out, back = four(net.web1, BEHIND, 9200, net.peer), four(net.peer, WEB1, 9204, net.web1, BEHIND)
    others = [*four(net.web1, BEHIND, 9100, net.peer), *four(net.peer, WEB1, 9104, net.web1, BEHIND)]
    left = (SIDE, OPEN) if inwards else (OPEN, SIDE)
    wires, stay = (out, back) if inwards else (back, out)
    cut_and_nothing_else(net, wires, [*others, *stay], lambda: net.private_acl(*left))


def test_an_emptied_acl_cuts_all_that_came_in(cutting: Vpc) -> None:
    net = cutting
    wires = [*four(net.world, FORWARDS, 9200, net.web1, NEAR), *four(net.app1, WEB1, 9204, net.web1)]
    others = [*four(net.web1, NEAR, 9200, net.world), *four(net.web1, APP1, 9100, net.app1)]
    net.acl(WEB)
    are_cut(wires)
    for wire in others:
        wire.works()


def test_all_of_it_is_so_again_after_a_power_cut(net: Vpc) -> None:
    net.power_cut()  # last: this is also the proof that everything was put back
    for sentence in SENTENCES:
        sentence(net)


OUTER = "10.61.1.254"


@pytest.fixture(scope="module")
def inner() -> Iterator[Vpc]:
    """A VPC without a public network: its outer gateway is in the web tier, which is not the first that was put up."""
    with Lab("vinner") as lab:
        net = Vpc(lab)
        net.line["has_public_network"] = "false"
        del net.line["source_nat_ip"]
        net.world.attach(net.segments[WEB], f"{OUTER}/24")
        net.world.route(APP.net, WEB.gateway)
        net.world.route(DB.net, WEB.gateway)
        net.boot()
        net.tier(APP)
        net.tier(WEB, gateway=OUTER, own=False)
        net.tier(DB)
        net.leases()
        yield net


def test_without_a_public_network_tiers_leave_by_the_lowest_ones_gateway(inner: Vpc) -> None:
    net = inner
    default = net.router.shell(["ip", "route", "show", "default"]).text
    assert default.startswith(f"default via {OUTER} dev {net.nics[WEB.mac]} "), default
    lease = net.web1.gets_lease()
    assert (lease.router, lease.dns) == (OUTER, (WEB.gateway, RESOLVER))
    assert net.app1.gets_lease().router == APP.gateway
    for port, proto in ((4001, "tcp"), (4001, "udp")):
        net.world.serve(port, proto)
        assert net.app1.reaches(NEAR, port, proto).address == APP1
        assert net.db1.reaches(FAR, port, proto).address == DB1
        assert net.web1.reaches(NEAR, port, proto).address == WEB1
    net.app1.pings(NEAR)
    net.app1.pings(OUTER)


def test_without_a_public_network_it_is_so_again_after_a_power_cut(inner: Vpc) -> None:
    inner.power_cut()
    test_without_a_public_network_tiers_leave_by_the_lowest_ones_gateway(inner)


def test_without_a_public_network_the_control_network_and_ssh_are_closed_too(inner: Vpc) -> None:
    net = inner
    watch = Watch(net.mgmt)
    net.world.route(f"{MANAGEMENT}/32", WEB.gateway)
    for host in (net.app1, net.web1, net.world):
        host.cannot_reach(MANAGEMENT, 8443, on=net.mgmt, timeout_s=0.2)
        host.cannot_reach(WEB.gateway, 3922, timeout_s=0.2)
        host.cannot_reach(CONTROL, 3922, timeout_s=0.2)
    assert watch.packets() == set()
