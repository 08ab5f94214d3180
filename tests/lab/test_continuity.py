"""Nothing is lost and nothing leaks while the configuration changes again and again: counted, packet by packet."""

import itertools
import os
import statistics
from collections.abc import Callable, Iterator

import pytest
from isolated import (
    FAR,
    GUEST_NET,
    NEAR,
    PUBLIC2_MAC,
    SOURCE_NAT,
    Isolated,
    Message,
    egress,
    forward,
    ingress,
    isolated,
    static,
)

from holdfast.lab.probe import Flow

pytestmark = [pytest.mark.lab, pytest.mark.alone]

SOAK = bool(os.environ.get("HOLDFAST_SOAK"))
CHANGES, RUNS = (200, 3) if SOAK else (60, 1)

FORWARDS, STATIC, OTHER = "203.0.113.22", "203.0.113.23", "203.0.113.24"
WEB, APP, DB = "10.31.5.10", "10.31.5.11", "10.31.5.12"

Change = Callable[[], object]


@pytest.fixture(scope="module")
def net() -> Iterator[Isolated]:
    with isolated("steady") as net:
        assert net.plug2() == "eth3"
        net.associate(SOURCE_NAT, FORWARDS, STATIC)
        net.forward(forward(FORWARDS, "udp", "5100:5109", WEB, "6100:6109"))
        net.static_nat(static(STATIC, DB))
        net.firewall(
            ingress(1, FORWARDS, "udp", [5100, 5108]),
            ingress(2, STATIC, "udp", [5200, 5209]),
            egress(3, "udp", [5000, 5009]),
            egress(4, "udp", [5300, 5309], [f"{DB}/32"], ["192.0.2.0/24"]),
        )
        yield net


def flows(net: Isolated) -> list[Flow]:
    """Both directions, open and new, through each kind of translation; and at the end what must stay refused."""
    return [
        Flow(net.web, net.world, 5000),
        Flow(net.web, net.world, 5001, kind="new", address=FAR),
        Flow(net.world, net.web, 5100, address=FORWARDS, target_port=6100),
        Flow(net.world, net.web, 5101, kind="new", address=FORWARDS, target_port=6101),
        Flow(net.world, net.db, 5200, address=STATIC),
        Flow(net.world, net.db, 5201, kind="new", address=STATIC),
        Flow(net.db, net.world, 5300),
        Flow(net.db, net.world, 5301, kind="new", address=FAR),
        Flow(net.world, net.web, 5109, kind="new", address=FORWARDS, target_port=6109, refused=True),
        Flow(net.world, net.db, 5210, kind="new", address=STATIC, refused=True),
        Flow(net.web, net.world, 5010, kind="new", address=NEAR, refused=True),
    ]


def changes(net: Isolated) -> Iterator[Change]:
    """Without end: each kind of thing comes and goes, and with some of them the firewall's structure."""

    def rules(*there: Message) -> Iterator[Change]:
        yield lambda: net.firewall(*there, check=False)
        yield lambda: net.firewall(*(rule | {"revoked": True} for rule in there), check=False)

    def doors(*there: Message) -> Iterator[Change]:
        yield lambda: net.forward(*there, check=False)
        yield lambda: net.forward(*(rule | {"revoke": True} for rule in there), check=False)

    for number in itertools.count(100, 10):
        port = 7000 + number % 900
        yield from rules(ingress(number, FORWARDS, "tcp", [port, port + 5], ["192.0.2.0/28", "198.18.0.0/15"]))
        yield from doors(forward(FORWARDS, "udp", f"{port}:{port + 3}", APP, f"{port}:{port + 3}"))
        yield from rules(egress(number + 1, "tcp", [port, port], [f"10.31.5.0/{25 + number // 10 % 6}"]))
        yield from rules(egress(number + 2, "udp", [port, port], [GUEST_NET], [f"{FAR}/32"], default=True))
        yield from rules(egress(number + 3, "icmp", (), [f"{APP}/32"], icmp=(8, -1)))
        yield lambda: net.associate(OTHER, check=False)
        yield lambda: net.static_nat(static(OTHER, APP), check=False)
        yield lambda: net.static_nat(static(OTHER, APP, revoke=True), check=False)
        yield lambda: net.associate(OTHER, add=False, check=False)
        mac, address = f"02:1a:33:00:02:{number // 10 % 256:02x}", f"10.31.5.{100 + number // 10 % 100}"
        yield lambda mac=mac, address=address: net.dhcp("extra", mac, address, check=False)  # type: ignore[misc]
        yield lambda mac=mac, address=address: net.dhcp("extra", mac, address, remove=True, check=False)  # type: ignore[misc]
        yield lambda: net.associate("198.51.100.20", "198.51.100.21", mac=PUBLIC2_MAC, nic=3, check=False)
        yield lambda: net.associate("198.51.100.20", "198.51.100.21", mac=PUBLIC2_MAC, nic=3, add=False, check=False)


@pytest.mark.parametrize("run", range(RUNS))
def test_no_packet_is_lost_or_leaks_while_the_configuration_changes(
    net: Isolated, run: int, capsys: pytest.CaptureFixture[str]
) -> None:
    endless = changes(net)
    before = len(net.seconds)

    def change() -> None:
        del net.seconds[before:]
        for _ in range(CHANGES):
            next(endless)()

    watched = flows(net)
    counts = net.lab.measure(watched, change)
    seconds = net.seconds[before:]
    with capsys.disabled():
        print(  # noqa: T201 the measurement is half of what this is for
            f"\nrun {run}: {len(seconds)} changes, median {statistics.median(seconds):.3f} s, max {max(seconds):.3f} s;"
            f" {sum(count.sent for count in counts)} packets"
        )
    seen = [
        (count.lost, count.leaked, count.sent - count.returned if flow.kind == "established" else 0)
        for flow, count in zip(watched, counts, strict=True)
    ]
    assert seen == [(0, 0, 0)] * len(watched), counts
    assert all(count.sent > CHANGES for count in counts)
    net.converged()


def test_the_count_notices_a_moment_without_rules_and_one_with_wrong_ones(net: Isolated) -> None:
    """Whoever says that nothing was lost has to be able to see a loss."""
    some = [Flow(net.web, net.world, 5000), flows(net)[3], flows(net)[8]]

    def by_hand(*lines: str) -> None:
        done = net.router.shell(["nft", "-f", "-"], stdin="\n".join(lines).encode())
        assert done.code == 0, done.errors

    def change() -> None:
        by_hand("flush chain inet holdfast judge_ingress", "add rule inet holdfast judge_ingress accept")
        by_hand("insert rule inet holdfast prerouting drop")
        net.firewall(ingress(1, FORWARDS, "udp", [5100, 5108]))  # nothing new, but what another hand did is seen

    established, new, refused = net.lab.measure(some, change)
    assert established.lost > 0
    assert new.lost > 0
    assert refused.leaked > 0
    again = net.lab.measure(some, lambda: net.firewall(ingress(1, FORWARDS, "udp", [5100, 5108])))
    assert [(count.lost, count.leaked) for count in again] == [(0, 0)] * 3, again
