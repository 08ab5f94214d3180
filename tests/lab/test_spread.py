"""Several public networks on one router: what came in by one of them goes back by it, and nothing is left behind."""

from collections.abc import Iterator

import pytest
from isolated import (
    FAR,
    GATEWAY2,
    NEAR,
    PUBLIC2_MAC,
    PUBLIC_MAC,
    SOURCE_NAT,
    Isolated,
    egress,
    forward,
    ingress,
    isolated,
    mac_of,
    static,
)
from watching import Watch, must, pings

pytestmark = pytest.mark.lab

SECOND, FORWARDS2, STATIC2 = "198.51.100.20", "198.51.100.21", "198.51.100.22"
WANDERER, NEWCOMER = "203.0.113.40", "203.0.113.41"
WEB, APP, DB = "10.31.5.10", "10.31.5.11", "10.31.5.12"
SPARE_MAC = "06:1a:33:00:00:05"


@pytest.fixture(scope="module")
def net() -> Iterator[Isolated]:
    with isolated("spread") as net:
        assert net.plug2() == "eth3"
        net.firewall(egress(1, "all", (), ["10.31.5.0/24"], []))
        net.associate(SECOND, FORWARDS2, STATIC2, mac=PUBLIC2_MAC, nic=3)
        net.forward(
            forward(FORWARDS2, "tcp", "8080:8080", WEB, "80:80"),
            forward(FORWARDS2, "udp", "5300:5300", APP, "53:53"),
        )
        net.static_nat(static(STATIC2, DB))
        net.firewall(
            ingress(11, FORWARDS2, "tcp", [8080, 8080]),
            ingress(12, FORWARDS2, "udp", [5300, 5300]),
            ingress(13, SECOND, "icmp", (), icmp=(8, 0)),
            ingress(14, STATIC2, "icmp", (), icmp=(8, 0)),
            ingress(15, STATIC2, "tcp", [22, 22]),
            ingress(16, SOURCE_NAT, "icmp", (), icmp=(8, 0)),
        )
        yield net


def told(net: Isolated, *argv: str) -> str:
    """What a program on the router prints, errors of tables that do not exist apart."""
    return net.router.shell(argv).text


def check_ways_back(net: Isolated) -> None:
    net.web.serve(80)
    net.app.serve(53, "udp")
    net.db.serve(22)
    watch = Watch(net.world)
    for source in (NEAR, FAR):
        assert net.world.reaches(FORWARDS2, 8080, source=source).address == source
        assert net.world.reaches(FORWARDS2, 5300, "udp", source=source).name == "app1"
        assert net.world.reaches(STATIC2, 22, source=source).name == "db1"
        pings(net.world, SECOND, source)
        pings(net.world, STATIC2, source)
        pings(net.world, SOURCE_NAT, source)
    assert watch.nics(FORWARDS2, "tcp") == {net.nic2}
    assert watch.nics(FORWARDS2, "udp") == {net.nic2}
    assert watch.nics(STATIC2, "tcp") == {net.nic2}
    assert watch.nics(SECOND, "icmp") == {net.nic2}
    assert watch.nics(STATIC2, "icmp") == {net.nic2}
    assert watch.nics(SOURCE_NAT, "icmp") == {net.nic}


def test_replies_leave_by_the_nic_by_which_the_question_came(net: Isolated) -> None:
    check_ways_back(net)


def test_guests_leave_by_the_first_network_and_a_static_nats_own_by_its(net: Isolated) -> None:
    net.world.serve(80)
    net.world.serve(53, "udp")
    watch = Watch(net.world)
    assert net.web.reaches(NEAR, 80).address == SOURCE_NAT
    assert net.web.reaches(FAR, 53, "udp").address == SOURCE_NAT
    assert net.db.reaches(NEAR, 80).address == STATIC2
    assert net.db.reaches(FAR, 53, "udp").address == STATIC2
    net.db.pings(NEAR)
    for proto in ("tcp", "udp"):
        assert watch.nics(SOURCE_NAT, proto) == {net.nic}
        assert watch.nics(STATIC2, proto) == {net.nic2}
    assert watch.nics(STATIC2, "icmp") == {net.nic2}


def test_guests_reach_the_second_networks_neighbours_directly(net: Isolated) -> None:
    net.world.serve(80)
    watch = Watch(net.world)
    assert net.web.reaches(GATEWAY2, 80).address == SECOND
    assert watch.nics(SECOND, "tcp") == {net.nic2}


def test_guests_reach_addresses_of_the_second_network_that_lead_back(net: Isolated) -> None:
    net.web.serve(80)
    net.db.serve(22)
    assert net.app.reaches(FORWARDS2, 8080).name == "web1"
    assert net.web.reaches(STATIC2, 22).name == "db1"
    assert net.db.reaches(STATIC2, 22).name == "db1"


def test_what_the_router_itself_sends_goes_by_its_source(net: Isolated) -> None:
    watch = Watch(net.world)
    for source in (SOURCE_NAT, SECOND, STATIC2):
        done = net.router.shell(["ping", "-q", "-c", "1", "-W", "2", "-I", source, NEAR])
        assert done.code == 0, (source, done.text + done.errors)
    assert watch.nics(SOURCE_NAT, "icmp") == {net.nic}
    assert watch.nics(SECOND, "icmp") == {net.nic2}
    assert watch.nics(STATIC2, "icmp") == {net.nic2}


def test_all_ways_are_there_again_after_a_power_cut(net: Isolated) -> None:
    net.power_cut()
    check_ways_back(net)


def test_an_address_is_announced_once_when_it_comes_and_never_again(net: Isolated) -> None:
    watch = Watch(net.world)
    net.associate(SECOND, FORWARDS2, STATIC2, mac=PUBLIC2_MAC, nic=3)
    net.firewall(ingress(11, FORWARDS2, "tcp", [8080, 8080]))
    assert watch.announced() == set()
    net.associate(NEWCOMER)
    assert watch.announced() == {NEWCOMER}
    watch = Watch(net.world)
    net.associate(NEWCOMER)
    net.firewall(ingress(17, NEWCOMER, "icmp", (), icmp=(8, 0)))
    assert watch.announced() == set()
    pings(net.world, NEWCOMER, NEAR)
    net.associate(NEWCOMER, add=False)
    assert watch.announced() == set()


def test_an_address_moves_between_nics_and_takes_its_rules_along(net: Isolated) -> None:
    net.associate(WANDERER)
    net.forward(forward(WANDERER, "tcp", "8081:8081", WEB, "80:80"))
    net.firewall(ingress(21, WANDERER, "tcp", [8081, 8081]), ingress(22, WANDERER, "icmp", (), icmp=(8, 0)))
    net.web.serve(80)
    assert net.world.reaches(WANDERER, 8081, source=NEAR).name == "web1"
    nic = net.router.plug(net.public, SPARE_MAC)
    watch = Watch(net.world)
    net.associate(WANDERER, mac=SPARE_MAC, nic=int(nic.removeprefix("eth")))
    assert watch.announced() == {WANDERER}
    assert WANDERER not in told(net, "ip", "-4", "address", "show", "dev", "eth2")
    assert WANDERER in told(net, "ip", "-4", "address", "show", "dev", nic)
    assert net.world.reaches(WANDERER, 8081, source=NEAR).address == NEAR
    pings(net.world, WANDERER, FAR)
    assert SPARE_MAC in must(net.world, "ip", "neighbour", "show", WANDERER)
    net.associate(WANDERER, mac=PUBLIC_MAC)
    assert net.world.reaches(WANDERER, 8081, source=NEAR).name == "web1"
    assert PUBLIC_MAC in must(net.world, "ip", "neighbour", "show", WANDERER)
    assert no_trace(net, nic) == []
    net.forward(forward(WANDERER, "tcp", "8081:8081", WEB, "80:80", revoke=True))
    net.associate(WANDERER, add=False)
    net.router.unplug(nic)


def no_trace(net: Isolated, nic: str) -> list[str]:
    """What a nic without addresses still has in routing and NAT; should be nothing."""
    number = int(nic.removeprefix("eth"))
    found = told(net, "ip", "-4", "address", "show", "dev", nic).splitlines()
    for table in (f"Table_{nic}", str(100 + number)):
        found += told(net, "ip", "route", "show", "table", table).splitlines()
    found += [
        line for line in told(net, "ip", "rule").splitlines() if f"Table_{nic}" in line or f"{1000 + number}:" in line
    ]
    rules = told(net, "nft", "list", "table", "inet", "holdfast")
    return found + [line for line in rules.splitlines() if f'"{nic}"' in line]


def test_a_released_address_leaves_nothing_behind(net: Isolated) -> None:
    net.associate(FORWARDS2, mac=PUBLIC2_MAC, nic=3, add=False)
    assert FORWARDS2 not in told(net, "ip", "-4", "address", "show")
    table = told(net, "ip", "route", "show", "table", "Table_eth3")
    assert f"default via {GATEWAY2} dev eth3" in table
    net.world.cannot_reach(FORWARDS2, 8080)
    net.forward(
        forward(FORWARDS2, "tcp", "8080:8080", WEB, "80:80", revoke=True),
        forward(FORWARDS2, "udp", "5300:5300", APP, "53:53", revoke=True),
    )
    net.static_nat(static(STATIC2, DB, revoke=True))
    net.firewall(
        *(ingress(number, FORWARDS2, "tcp", [8080, 8080], revoked=True) for number in (11, 12)),
        *(ingress(number, STATIC2, "icmp", (), icmp=(8, 0), revoked=True) for number in (14, 15)),
        ingress(13, SECOND, "icmp", (), icmp=(8, 0), revoked=True),
    )
    net.associate(SECOND, STATIC2, mac=PUBLIC2_MAC, nic=3, add=False)
    assert no_trace(net, "eth3") == []
    assert "198.51.100." not in told(net, "nft", "list", "ruleset")
    assert "198.51.100." not in told(net, "ip", "route", "show", "table", "all")
    net.world.serve(80)
    assert net.db.reaches(NEAR, 80).address == SOURCE_NAT


def test_a_second_network_that_comes_back_works_again(net: Isolated) -> None:
    net.associate(SECOND, mac=PUBLIC2_MAC, nic=3)
    net.firewall(ingress(13, SECOND, "icmp", (), icmp=(8, 0)))
    watch = Watch(net.world)
    pings(net.world, SECOND, NEAR)
    assert watch.nics(SECOND, "icmp") == {net.nic2}


def test_the_mtu_on_the_wire_is_the_nics_and_the_guests(net: Isolated) -> None:
    net.associate(SECOND, mac=PUBLIC2_MAC, nic=3, mtu=1400)
    assert " mtu 1400 " in told(net, "ip", "link", "show", "dev", "eth3")
    net.associate(SECOND, mac=PUBLIC2_MAC, nic=3, mtu=1500)
    assert " mtu 1500 " in told(net, "ip", "link", "show", "dev", "eth3")
    assert net.web.gets_lease().mtu == 1450
    net.line["privateMtu"] = "1350"
    net.router.shutdown()
    net.boot()
    assert " mtu 1350 " in told(net, "ip", "link", "show", "dev", "eth0")
    lease = net.web.gets_lease()
    assert (lease.address, lease.mtu, lease.options["mtu"]) == (WEB, 1350, "1350")
    assert mac_of(net.web) in net.router.read("/etc/dhcphosts.txt")
