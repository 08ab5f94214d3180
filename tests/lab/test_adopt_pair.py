"""A pair of routers of CloudStack's own agent is taken over, one after the other, while one of them serves."""

import contextlib
import time
from collections.abc import Iterator

import before
import pytest
from pair import GATEWAY, IsolatedPair

import legacy_bags as old
from holdfast.lab.lab import Lab
from holdfast.lab.probe import Count, Flow
from holdfast.lab.process import Result
from holdfast.lab.router import Router

pytestmark = [pytest.mark.lab, pytest.mark.alone, pytest.mark.appliance]

AGE = "4.22"
OUTAGE_S = 15.0
"""Generous: the machine is shared, and measured are seconds of convergence and of an election."""
LISTENS_S = 8.0
"""Longer than a router listens before it takes over."""
DROP_IN = "/usr/lib/systemd/system/keepalived.service.d"
ELECTION = """
global_defs {{ router_id {name} }}
vrrp_instance inside_network {{
    state BACKUP
    nopreempt
    interface eth0
    virtual_router_id 51
    priority 100
    advert_int 1
    authentication {{
        auth_type AH
        auth_pass 4f2a91c0
    }}
    virtual_ipaddress {{
        {gateway} brd 10.70.1.255 dev eth0
    }}
    notify_master "/root/role up"
    notify_backup "/root/role down"
    notify_fault "/root/role down"
}}
"""
ROLE = f"""#!/bin/sh
ip link set eth2 "$1"
[ "$1" = down ] || ip route replace default via {GATEWAY}
"""


class Watched:
    """How often both, or neither, were seen to serve while something went on."""

    def __init__(self, pair: IsolatedPair) -> None:
        self.pair = pair
        self.seen: list[list[str]] = []

    def look(self, seconds: float) -> None:
        end = time.monotonic() + seconds
        while time.monotonic() < end:
            inside = [router.name for router in self.pair.serving()]
            outside = [router.name for router in self.pair.routers if self.pair.outside(router)]
            self.seen.append([*inside, *outside])


def bags(pair: IsolatedPair, number: int) -> dict[str, old.Json]:
    """What a router of the pair has stored."""
    line = dict(pair.line(number))
    egress = {
        "id": 0, "src_ip": "", "protocol": "all", "revoked": False, "already_added": False, "source_cidr_list": [],
        "dest_cidr_list": [], "purpose": "Firewall", "traffic_type": "Egress", "default_egress_policy": True,
    }  # fmt: skip
    nics = {
        "eth0": [old.booted(pair.address(number), "255.255.255.0", "eth0", "guest", AGE)],
        "eth1": [old.booted(line["eth1ip"], "255.255.0.0", "eth1", "control", AGE)],
        "eth2": [old.address(pair.source_nat, "eth2", AGE, vif_mac_address=pair.public_mac, source_nat=True)],
    }
    return {"cmdline": {"config": line}, "ips": nics, "firewallrules": {"0": egress}}


def begins(pair: IsolatedPair, number: int) -> None:
    """Configure one as its own agent would, and let it elect; the package of ours is not there yet."""
    router = pair.routers[number]
    router.write("/etc/keepalived/keepalived.conf", ELECTION.format(name=router.name, gateway=pair.gateway))
    router.write("/root/role", ROLE, mode=0o755)
    before.with_bags(router, bags(pair, number), AGE)
    before.sh(
        router,
        f"""
        ip link set eth0 up; ip link set eth1 up
        ip address add {pair.address(number)}/24 brd + dev eth0
        ip address add 169.254.70.{number + 1}/16 brd + dev eth1
        ip address add {pair.source_nat}/24 brd + dev eth2
        sysctl -qw net.ipv4.ip_forward=1
        nft 'table ip nat {{ chain POSTROUTING {{
          type nat hook postrouting priority srcnat; oifname "eth2" snat to {pair.source_nat}; }}; }}'
        nft 'table ip filter {{ chain FORWARD {{ type filter hook forward priority filter; policy accept; }}; }}'
        mv {DROP_IN} /root/drop-in
        systemctl daemon-reload
        systemctl start keepalived
        """,
    )


def installed(router: Router) -> None:
    """The package comes: its drop-ins lie there, and systemd has read them."""
    before.sh(router, f"mv /root/drop-in {DROP_IN}; systemctl daemon-reload")


@contextlib.contextmanager
def theirs() -> Iterator[IsolatedPair]:
    with Lab("adopt") as lab:
        pair = IsolatedPair(lab)
        for number, router in enumerate(pair.routers):
            before.boots_alone(router)
            begins(pair, number)
            if not number:
                router.eventually(lambda: bool(pair.serving()), "serves", 15)
        pair.settles()
        pair.web1.address("eth0", f"{pair.web}/24")
        pair.web1.route("default", pair.gateway)
        yield pair


def flow(pair: IsolatedPair) -> Flow:
    return Flow(pair.web1, pair.world, 5000)


def run(pair: IsolatedPair, router: Router, *words: str) -> tuple[Result, Count, Watched]:
    """Adopt one while a guest's packets go out, and look who serves."""
    said: list[Result] = []
    watched = Watched(pair)

    def act() -> None:
        installed(router)
        said.append(before.adopt(router, *words))
        watched.look(LISTENS_S)

    (count,) = pair.lab.measure([flow(pair)], act)
    return said[0], count, watched


def test_one_after_the_other_and_never_two_serve(capsys: pytest.CaptureFixture[str]) -> None:
    with theirs() as pair:
        first, second = pair.backup, pair.master
        refused = before.adopt(second)
        assert (refused.code, "adopt the other one first" in refused.errors) == (2, True), refused.errors

        done, count, watched = run(pair, first)
        assert done.code == 0, done.text + done.errors
        assert "warning: keepalived is held back" in done.text
        assert {*map(tuple, watched.seen)} == {(second.name, second.name)}
        assert count.lost == 0, count
        with capsys.disabled():
            print(f"\nbackup: {done.seconds:.2f} s, {count}")  # noqa: T201

        done, count, watched = run(pair, second, "--force")
        with capsys.disabled():
            print(f"serving: {done.seconds:.2f} s, {count}")  # noqa: T201
        assert done.code == 0, done.text + done.errors
        assert {name for seen in watched.seen for name in seen} == {second.name}
        assert count.silence_s < OUTAGE_S, count

        (count,) = pair.lab.measure([flow(pair)], lambda: released(pair, first))
        assert count.lost == 0, count
        assert pair.serving() == [second]
        for router in pair.routers:
            pair.idle(router)
            again = before.adopt(router)
            assert "still there" not in again.text + again.errors
        pair.hand_over()
        assert pair.serving() == [first]


def released(pair: IsolatedPair, router: Router) -> None:
    """Let one that was held back take part."""
    done = router.run("manage_service.sh", "start", "keepalived")
    assert done.code == 0, done.text + done.errors
    watched = Watched(pair)
    watched.look(LISTENS_S)
    assert len({*map(tuple, watched.seen)}) == 1, watched.seen
    assert pair.says(router) == "BACKUP"
