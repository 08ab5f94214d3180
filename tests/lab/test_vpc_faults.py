"""What cannot be a tier is refused, what another hand did to one is put right, what was stored wrong is survived."""

from collections.abc import Iterator
from typing import Any, NamedTuple

import pytest
from by_mac import difference
from replay import HOLDFAST, Site, ips, said
from vpc import PUBLIC, host, mac, net, nic, plug, tell, tier, up, vpc

from holdfast import config as bags
from holdfast.shared import Tier, Tiers
from holdfast.store import Store

pytestmark = pytest.mark.lab


@pytest.fixture(scope="module")
def made() -> Iterator[Site]:
    """One tier that serves, and the nic of another."""
    with vpc("tierfaults") as made:
        up(made, 1)
        plug(made, 2)
        yield made


WRONG: dict[str, tuple[dict[str, Any], str]] = {
    "the same network on two tiers": ({"router_guest_ip": f"{net(1)}.2"}, "router_guest_ip"),
    "a part of another tier's network": (
        {"router_guest_ip": f"{net(1)}.129", "router_guest_netmask": "255.255.255.128"}, "router_guest_ip"
    ),
    "a network with another tier in it": (
        {"router_guest_ip": f"{net(3)}.1", "router_guest_netmask": "255.255.0.0"}, "router_guest_ip"
    ),
    "the public network": ({"router_guest_ip": "203.0.113.99"}, "router_guest_ip"),
    "the control network": ({"router_guest_ip": "169.254.7.1"}, "router_guest_ip"),
    "a netmask with a hole": ({"router_guest_netmask": "255.0.255.0"}, "router_guest_netmask"),
    "a netmask of nothing": ({"router_guest_netmask": "0.0.0.0"}, "router_guest_netmask"),  # noqa: S104 no bind
    "no address": ({"router_guest_ip": None}, "router_guest_ip"),
    "a gateway elsewhere": ({"router_guest_gateway": f"{net(3)}.1"}, "router_guest_gateway"),
    "a gateway that is none": ({"router_guest_gateway": f"{net(2)}.1\nport=0"}, "router_guest_gateway"),
    "a name server that is none": ({"dns": "192.0.2.53,dns.example"}, "dns"),
    "a domain that is none": ({"domain_name": "a b\nlog-queries"}, "domain_name"),
}  # fmt: skip


@pytest.mark.parametrize("case", WRONG)
def test_what_cannot_be_is_refused_whole_and_named(made: Site, case: str) -> None:
    changed, path = WRONG[case]
    told: dict[str, Any] = {"router_guest_gateway": changed.get("router_guest_ip") or f"{net(2)}.1"} | changed
    before, footprints = made.state(), made.footprints()
    done = made.tell(tier(2, **told), f"guest_network.json.{len(case)}")
    assert done.code == 2, said(done)
    assert f"{path}: " in done.text, said(done)
    assert made.state() == before
    assert made.footprints() == footprints


def test_a_public_network_that_a_tier_has_is_refused_too(made: Site) -> None:
    before, footprints = made.state(), made.footprints()
    done = made.tell(ips(f"{net(1)}.77", mac=PUBLIC, number=1, gateway=f"{net(1)}.1"))
    assert done.code == 2, said(done)
    assert "ip_address[0].public_ip: " in done.text
    assert made.state() == before
    assert made.footprints() == footprints


class Damage(NamedTuple):
    """What is done in the router's shell, `NIC` being the tier's, and the words by which an answer names it."""

    script: str
    named: str


DAMAGES = {
    "address deleted": Damage(f"ip address del {net(1)}.1/24 dev NIC", f"+ address NIC {net(1)}.1/24"),
    "foreign address": Damage(f"ip address add {net(1)}.99/24 dev NIC", f"- address NIC {net(1)}.99/24"),
    "link down": Damage("ip link set NIC down", "~ link NIC up False -> True"),
    "MTU": Damage("ip link set NIC mtu 1300", "~ link NIC mtu 1300 -> 1500"),
    "throw route": Damage(f"ip route del throw {net(1)}.0/24 table 101", f"+ route {net(1)}.0/24 throw table 101"),
    "table names": Damage("sed -i /Table_NIC/d /etc/iproute2/rt_tables.d/holdfast.conf", "~ file /etc/iproute2/rt_tab"),
    "ACL element removed": Damage(
        "nft delete element inet holdfast acl_in_NIC_0_allow_port '{ 192.0.2.0/24 . tcp . 443 }'",
        "+ firewall acl_in_NIC_0_allow_port { 192.0.2.0/24 . tcp . 443 }",
    ),
    "ACL element added": Damage(
        "nft add element inet holdfast acl_in_NIC_0_allow_port '{ 192.0.2.0/24 . tcp . 22 }'",
        "- firewall acl_in_NIC_0_allow_port { 192.0.2.0/24 . tcp . 22 }",
    ),
    "ACL opened": Damage("nft add element inet holdfast acl_open '{ \"NIC\" }'", '- firewall acl_open { "NIC" }'),
    "ACL chain flushed": Damage("nft flush chain inet holdfast acl_in_NIC", "firewall structure"),
    "source NAT": Damage(
        'nft delete element inet holdfast source_nat \'{ "NIC" . "eth1" }\'', '+ firewall source_nat { "NIC" . "eth1"'
    ),
    "DHCP range": Damage("sed -i /^dhcp-range/d /etc/dnsmasq.conf", "~ file /etc/dnsmasq.conf"),
    "DHCP host": Damage("sed -i /vm1-21/d /etc/dhcphosts.txt", "~ file /etc/dhcphosts.txt"),
    "reverse path filter": Damage("sysctl -q -w net.ipv4.conf.NIC.rp_filter=0", "NIC/rp_filter value 0 -> 1"),
    "connected route": Damage(f"ip route del {net(1)}.0/24 dev NIC", f"route {net(1)}.0/24"),
}


@pytest.mark.parametrize("case", DAMAGES)
def test_what_another_hand_takes_from_a_tier_any_command_gives_back(made: Site, case: str) -> None:
    name = nic(made, 1)
    script, words = (text.replace("NIC", name) for text in DAMAGES[case])
    before = made.state()
    done = made.router.shell(["sh", "-ec", script])
    assert done.code == 0, said(done)
    answer = made.told(ips("203.0.113.51", mac=PUBLIC, number=1))
    assert made.plan()["changes"] == []
    assert difference(before, made.state()) == {}
    assert words in answer


def test_of_two_stored_tiers_with_one_network_the_older_wins_at_boot_and_the_other_is_named(made: Site) -> None:
    older, newer = nic(made, 1), nic(made, 2)
    store = Store(made.path("/etc/cloudstack"))
    held = store.load()
    assert held
    config = bags.load(held.documents)
    rival = Tier(address=f"{net(1)}.2", prefix=24, gateway=f"{net(1)}.2", network_id=302)
    both = {**config, "guestnetwork": Tiers(tiers={**config["guestnetwork"].tiers, mac(2): rival})}
    store.accept(store.propose(bags.dump(both), events=[], cause="another hand"))

    made.router.power_cut()
    made.router.boot()

    status = made.router.shell([HOLDFAST, "status"])
    assert status.code == 0, said(status)
    assert f"tier {net(1)}.0/24 waits for {mac(1)} to leave that network" in status.text
    addresses = made.state()["addresses"]
    assert (older, f"{net(1)}.1/24") in addresses
    assert newer not in [device for device, _ in addresses]
    assert made.plan()["changes"] == []
    tell(made, host(1, 22))  # life goes on

    tell(made, tier(1, add=False))

    assert (newer, f"{net(1)}.2/24") in made.state()["addresses"]
    assert made.plan() == {"changes": [], "pending": [], "refused": [], "conflicts": []}
