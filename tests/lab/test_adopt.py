"""Routers of CloudStack's own agent, of every age, are taken over in place: packets go on, and none is lost."""

import contextlib
import json
import re
import time
from collections.abc import Iterator

import before
import pytest
from isolated import FAR, GATEWAY, GATEWAY2, NEAR, SOURCE_NAT, Isolated
from streams import Busy, Streams
from tiers import APP, BEHIND, PRIVATE_MAC, PUBLIC_MAC, WEB, Vpc
from watching import Watch

import legacy_bags as old
from holdfast.lab.lab import Lab
from holdfast.lab.probe import Flow
from holdfast.lab.process import Result
from holdfast.lab.router import Router

pytestmark = [pytest.mark.lab, pytest.mark.alone, pytest.mark.appliance]

STREAMS = 20
SECOND = 1.0
A_WHILE_S = 0.3


def taken_over(router: Router, said: list[Result]) -> None:
    """Adopt, once, and let what goes on go on for a while."""
    assert not said, "this machine is too busy to measure: a second run would not measure an adoption"
    said.append(before.adopt(router))
    time.sleep(A_WHILE_S)


def isolated_before(net: Isolated, age: str) -> None:
    """Addresses, rules and routes of an isolated network's router; guests have addresses of their own making."""
    two, three = before.number(age, 2), before.number(age, 3)
    before.sh(
        net.router,
        f"""
        for nic in eth0 eth1 eth2 eth3; do ip link set $nic up; done
        ip address add 10.31.5.1/24 brd + dev eth0
        ip address add 169.254.77.3/16 brd + dev eth1
        for last in 21 22 23; do ip address add 203.0.113.$last/24 brd + dev eth2; done
        ip address add {old.FAR_STATIC}/26 brd + dev eth3
        ip route add default via {GATEWAY}
        sysctl -qw net.ipv4.ip_forward=1
        for nic in all eth2 eth3; do sysctl -qw net.ipv4.conf.$nic.rp_filter=0; done
        """,
    )
    before.public(net.router, age, 2, "203.0.113.0/24", GATEWAY, "10.31.5.0/24")
    before.public(net.router, age, 3, "198.51.100.0/26", GATEWAY2, "10.31.5.0/24")
    before.sh(
        net.router,
        f"""
        nft -f - <<'END'
        table ip mangle {{
          chain ONE {{ ct state related,established return; udp dport 5100-5108 return; tcp dport 22 return; drop; }}
          chain TWO {{ ct state related,established return; udp dport 5200-5209 return; drop; }}
          chain THREE {{ ct state related,established return; udp dport 5400-5409 return; drop; }}
          chain PREROUTING {{
            type filter hook prerouting priority mangle; policy accept;
            ct state related,established meta mark set ct mark
            iifname "eth2" ct state new ct mark set {two}
            iifname "eth3" ct state new ct mark set {three}
            ip daddr {old.FORWARDS} jump ONE
            ip daddr {old.STATIC} jump TWO
            ip daddr {old.FAR_STATIC} jump THREE
          }}
        }}
        table ip nat {{
          chain PREROUTING {{
            type nat hook prerouting priority dstnat; policy accept;
            ip daddr {old.FORWARDS} udp dport 5100-5109 dnat to {old.WEB}:6100-6109
            ip daddr {old.FORWARDS} tcp dport 22 dnat to {old.WEB}:22
            ip daddr {old.STATIC} dnat to {old.DB}
            ip daddr {old.FAR_STATIC} dnat to {old.APP}
          }}
          chain POSTROUTING {{
            type nat hook postrouting priority srcnat; policy accept;
            oifname "eth2" ip saddr {old.DB} snat to {old.STATIC}
            oifname "eth3" ip saddr {old.APP} snat to {old.FAR_STATIC}
            oifname "eth2" snat to {SOURCE_NAT}
          }}
        }}
        table ip filter {{
          chain FW_OUTBOUND {{
            ct state related,established accept
            ip saddr 10.31.5.0/24 udp dport 5000-5009 accept
            ip saddr {old.DB} udp dport 5300-5309 accept
          }}
          chain INPUT {{ type filter hook input priority filter; policy drop; ct state established accept; }}
          chain FORWARD {{
            type filter hook forward priority filter; policy drop;
            iifname {{ "eth2", "eth3" }} oifname "eth0" ct state related,established accept
            iifname "eth0" oifname {{ "eth2", "eth3" }} jump FW_OUTBOUND
            iifname {{ "eth2", "eth3" }} oifname "eth0" ct status dnat accept
          }}
          chain OUTPUT {{ type filter hook output priority filter; policy accept; }}
        }}
END
        """,
    )
    for guest, address in ((net.web, old.WEB), (net.app, old.APP), (net.db, old.DB)):
        guest.address("eth0", f"{address}/24")
        guest.route("default", "10.31.5.1")


@contextlib.contextmanager
def isolated_router(age: str) -> Iterator[Isolated]:
    with Lab("adopt") as lab:
        net = Isolated(lab)
        assert net.plug2() == "eth3"
        before.boots_alone(net.router)
        isolated_before(net, age)
        before.leftovers(net.router)
        before.with_bags(net.router, old.isolated(age), age)
        yield net


def isolated_flows(net: Isolated) -> list[Flow]:
    return [
        Flow(net.web, net.world, 5000),
        Flow(net.web, net.world, 5001, kind="new", address=FAR),
        Flow(net.world, net.web, 5100, address=old.FORWARDS, target_port=6100),
        Flow(net.world, net.web, 5101, kind="new", address=old.FORWARDS, target_port=6101),
        Flow(net.world, net.db, 5200, address=old.STATIC),
        Flow(net.db, net.world, 5300),
        Flow(net.world, net.app, 5400, address=old.FAR_STATIC, source_address=NEAR),
        Flow(net.world, net.app, 5401, kind="new", address=old.FAR_STATIC, source_address=NEAR),
        Flow(net.world, net.web, 5109, kind="new", address=old.FORWARDS, target_port=6109, refused=True),
        Flow(net.world, net.db, 5210, kind="new", address=old.STATIC, refused=True),
        Flow(net.web, net.world, 5010, kind="new", address=NEAR, refused=True),
    ]


@pytest.mark.parametrize("age", old.ISOLATED_AGES)
def test_an_isolated_router_is_taken_over_and_no_packet_is_lost(age: str, capsys: pytest.CaptureFixture[str]) -> None:
    with isolated_router(age) as net:
        dry = before.adopt(net.router, "--dry-run")
        assert dry.code == 0, dry.text + dry.errors
        told = json.loads(before.adopt(net.router, "--dry-run", "--json").text)
        assert len(told["read"]) >= len(re.findall(r"^read: ", dry.text, re.MULTILINE)) > 0
        assert "firewall tables: ip filter, ip mangle, ip nat" in told["cleared"][0]
        assert "would go: firewall tables: ip filter, ip mangle, ip nat" in dry.text
        assert "table ip filter" in before.sh(net.router, "nft list tables")
        watched = isolated_flows(net)
        said: list[Result] = []
        there = Watch(net.world)
        with Streams(net.world, net.web, old.FORWARDS, 22, STREAMS) as streams:
            with Busy(streams) as busy:
                counts = net.lab.measure(watched, lambda: taken_over(net.router, said))
            assert said[0].code == 0, said[0].text + said[0].errors
            assert (busy.broken, streams.alive(3)) == (0, STREAMS)
            assert max(busy.stalls_s) < SECOND
        with capsys.disabled():
            packets, stall = sum(count.sent for count in counts), max(busy.stalls_s)
            print(f"\n{age}: {said[0].seconds:.2f} s, {packets} packets, longest pause of TCP {stall:.3f} s")  # noqa: T201
        seen = [
            (count.lost, count.leaked, count.sent - count.returned if flow.kind == "established" else 0)
            for flow, count in zip(watched, counts, strict=True)
        ]
        assert seen == [(0, 0, 0)] * len(watched), f"{counts}\n{said[0].text}"
        net.converged()
        before.nothing_of_theirs(net.router)
        after = net.lab.measure(watched, lambda: None)
        assert [(count.lost, count.leaked) for count in after] == [(0, 0)] * len(watched), after
        assert there.nics(old.FAR_STATIC, "udp") == {net.nic2}, "answers leave by the nic by which was asked"
        assert net.web.gets_lease().address == old.WEB
        refused = before.adopt(net.router)
        assert (refused.code, "a configuration of its own" in refused.errors) == (2, True)


def test_what_was_adopted_survives_a_power_cut() -> None:
    with isolated_router("4.22") as net:
        assert before.adopt(net.router).code == 0
        before.sh(net.router, f"systemctl enable --quiet {' '.join(before.UNITS)}")
        net.power_cut()
        after = net.lab.measure(isolated_flows(net), lambda: None)
        assert [(count.lost, count.leaked) for count in after] == [(0, 0)] * len(after), after
        assert before.sh(net.router, "nft list tables") == "table inet holdfast\ntable inet holdfast_usage\n"


def vpc_before(net: Vpc, age: str) -> None:
    """Addresses, rules and routes of a VPC's router."""
    before.sh(
        net.router,
        f"""
        for nic in eth0 eth1 eth2 eth3 eth4; do ip link set $nic up; done
        ip address add 169.254.61.3/16 brd + dev eth0
        ip address add 203.0.113.61/24 brd + dev eth1
        ip address add 172.16.61.10/24 brd + dev eth2
        ip address add 10.61.1.1/24 brd + dev eth3
        ip address add 10.61.2.1/24 brd + dev eth4
        ip route add default via {GATEWAY}
        ip route add 192.168.61.0/24 via 172.16.61.1
        sysctl -qw net.ipv4.ip_forward=1
        """,
    )
    before.public(net.router, age, 1, "203.0.113.0/24", GATEWAY, "10.61.1.0/24")
    before.public(net.router, age, 2, "172.16.61.0/24", "172.16.61.1", "10.61.1.0/24")
    before.sh(
        net.router,
        f"""
        nft -f - <<'END'
        table ip mangle {{
          chain PREROUTING {{
            type filter hook prerouting priority mangle; policy accept;
            iifname {{ "eth3", "eth4" }} ct state related,established meta mark set ct mark
            iifname "eth1" ct state new ct mark set {before.number(age, 1)}
            iifname "eth2" ct state new ct mark set {before.number(age, 2)}
          }}
        }}
        table ip nat {{
          chain POSTROUTING {{
            type nat hook postrouting priority srcnat; policy accept;
            oifname "eth1" snat to 203.0.113.61
          }}
        }}
        table ip filter {{
          chain ACL_INBOUND_eth3 {{
            ip saddr {{ 192.0.2.10, 10.61.2.0/24 }} udp dport 5100-5109 accept
            drop
          }}
          chain INPUT {{ type filter hook input priority filter; policy drop; ct state established accept; }}
          chain FORWARD {{
            type filter hook forward priority filter; policy drop;
            ct state related,established accept
            ip saddr 10.61.0.0/16 ip daddr != 10.61.0.0/16 accept
            oifname "eth3" jump ACL_INBOUND_eth3
          }}
        }}
END
        """,
    )
    for guest, tier, address in (net.guests[0], net.guests[2]):
        guest.address("eth0", f"{address}/24")
        guest.route("default", tier.gateway)


@pytest.mark.parametrize("age", old.VPC_AGES)
def test_a_vpc_router_is_taken_over_and_no_packet_is_lost(age: str, capsys: pytest.CaptureFixture[str]) -> None:
    with Lab("adopt") as lab:
        net = Vpc(lab)
        segments = (net.public, PUBLIC_MAC), (net.private, PRIVATE_MAC), *((net.segments[t], t.mac) for t in (WEB, APP))
        assert [net.plug(segment, mac) for segment, mac in segments] == ["eth1", "eth2", "eth3", "eth4"]
        before.boots_alone(net.router)
        vpc_before(net, age)
        before.leftovers(net.router)
        before.with_bags(net.router, old.vpc(age), age)
        watched = [
            Flow(net.app1, net.web1, 5100),
            Flow(net.app1, net.web1, 5101, kind="new"),
            Flow(net.web1, net.world, 5000),
            Flow(net.web1, net.world, 5001, kind="new", address=FAR),
            Flow(net.web1, net.peer, 5002, address=BEHIND),
            Flow(net.app1, net.web1, 5110, kind="new", refused=True),
        ]
        said: list[Result] = []
        counts = net.lab.measure(watched, lambda: taken_over(net.router, said))
        assert said[0].code == 0, said[0].text + said[0].errors
        with capsys.disabled():
            print(f"\n{age}: {said[0].seconds:.2f} s, {sum(count.sent for count in counts)} packets")  # noqa: T201
        seen = [
            (count.lost, count.leaked, count.sent - count.returned if flow.kind == "established" else 0)
            for flow, count in zip(watched, counts, strict=True)
        ]
        assert seen == [(0, 0, 0)] * len(watched), f"{counts}\n{said[0].text}"
        net.converged()
        before.nothing_of_theirs(net.router)
        after = net.lab.measure(watched, lambda: None)
        assert [(count.lost, count.leaked) for count in after] == [(0, 0)] * len(watched), after
