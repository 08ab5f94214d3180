"""What netusage.sh and vpc_netusage.sh tell of traffic of known size, to the byte, whatever happens to the router."""

import contextlib
import json
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor

import pytest
from isolated import PUBLIC2_MAC, SOURCE_NAT, Isolated, egress, forward, ingress, isolated
from tiers import FAR, NEAR, WEB, WEB1, Vpc, rule, vpc
from tiers import SOURCE_NAT as VPC_ADDRESS
from watching import must

from holdfast.lab.host import Host
from holdfast.lab.router import Router
from holdfast.usage_table import KINDS
from java_reader import pairs

pytestmark = pytest.mark.lab

PACKETS, PAYLOAD = 1000, 100
SIZE = PACKETS * (PAYLOAD + 28)
"""Bytes of whole IP packets."""
SECOND = "198.51.100.12"
VPC_SECOND = "198.51.100.62"
_SINK = """
import socket, sys
port, wanted = map(int, sys.argv[1:])
sink = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
sink.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 1 << 22)
sink.bind(("", port))
sink.settimeout(15)
sink.recv(2048)
sink.settimeout(2)
came = 1
try:
    while came < wanted:
        sink.recv(2048)
        came += 1
except TimeoutError:
    pass
print(came)
"""
_SOURCE = """
import socket, sys, time
address, port, number, size = sys.argv[1], *map(int, sys.argv[2:])
time.sleep(0.5)
source = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
source.connect((address, port))
for at in range(number):
    source.send(b"x" * size)
    if at % 20 == 19:
        time.sleep(0.002)
"""


def send(source: Host, target: Host, address: str, port: int, packets: int = PACKETS) -> None:
    """So many datagrams one way, unanswered; all of them arrive."""
    with ThreadPoolExecutor(1) as pool:
        sink = pool.submit(must, target, "/usr/bin/python3", "-c", _SINK, str(port), str(packets))
        must(source, "/usr/bin/python3", "-c", _SOURCE, address, str(port), str(packets), str(PAYLOAD))
        assert sink.result() == f"{packets}\n"


def said(router: Router, script: str, *options: str) -> str:
    done = router.run(script, *options)
    assert (done.code, done.errors) == (0, ""), done
    return done.text


def numbers(text: str) -> list[int]:
    assert text.endswith(":")
    found = [int(word) for word in text[:-1].split(":")]
    assert len(found) == len(KINDS)
    return found


@pytest.fixture(scope="module")
def net() -> Iterator[Isolated]:
    with isolated("usage") as net:
        net.associate(SOURCE_NAT)
        net.firewall(egress(1, "udp"), ingress(2, SOURCE_NAT, "udp", [5000, 5009]))
        net.firewall(ingress(3, SOURCE_NAT, "tcp", [8443, 8443]))
        net.forward(forward(SOURCE_NAT, "udp", "5000:5009", "10.31.5.10", "5000:5009"))
        yield net


@contextlib.contextmanager
def unchanged(router: Router, script: str, *options: str) -> Iterator[list[int]]:
    before = numbers(said(router, script, *options))
    yield before
    assert numbers(said(router, script, *options)) == before


def test_an_isolated_networks_traffic_is_counted_to_the_byte(net: Isolated) -> None:
    router = net.router
    for option in ("-c", "-aeth2"):
        assert said(router, "netusage.sh", option) == ""
    assert said(router, "netusage.sh", "-a", "eth2") == ""
    begun = numbers(said(router, "netusage.sh", "-g"))

    send(net.web, net.world, FAR, 5300)
    send(net.world, net.web, SOURCE_NAT, 5005)

    expected = [begun[0] + SIZE, begun[1] + SIZE, *begun[2:]]
    assert numbers(said(router, "netusage.sh", "-g")) == expected
    assert numbers(said(router, "netusage.sh", "-g", "-l", SOURCE_NAT)) == expected
    assert said(router, "netusage.sh", "-g", "-l", SECOND) == ""  # no such address: nothing, and no failure
    assert pairs(said(router, "netusage.sh", "-g")) == (sum(expected[::2]), sum(expected[1::2]))

    net.firewall(egress(1, "udp", revoked=True))
    with unchanged(router, "netusage.sh", "-g"):  # what never leaves was never sent
        must(net.web, "/usr/bin/python3", "-c", _SOURCE, NEAR, "5301", "20", "100")
    net.firewall(egress(1, "udp"))


def test_the_routers_own_tcp_is_counted_as_the_wire_saw_it(net: Isolated) -> None:
    net.world.serve(8000)
    wire = "add table inet wire; add counter inet wire from; add counter inet wire to; "
    for hook, side, counter in (("input", "saddr", "from"), ("output", "daddr", "to")):
        wire += f"add chain inet wire {hook} {{ type filter hook {hook} priority 0; }}; "
        wire += f"add rule inet wire {hook} meta l4proto tcp ip {side} {SOURCE_NAT} counter name {counter}; "
    must(net.world, "nft", wire)
    begun = numbers(said(net.router, "netusage.sh", "-g"))

    fetch = f"import urllib.request as u; [u.urlopen('http://{FAR}:8000/').read() for _ in range(20)]"
    assert net.router.shell(["python3", "-c", fetch]).code == 0

    time.sleep(0.3)  # the last acknowledgement
    listing = json.loads(must(net.world, "nft", "-j", "list", "counters", "table", "inet", "wire"))
    seen = {one["counter"]["name"]: one["counter"]["bytes"] for one in listing["nftables"] if "counter" in one}
    assert min(seen.values()) > 20 * 100
    now = numbers(said(net.router, "netusage.sh", "-g"))
    assert now == [*begun[:2], begun[2] + seen["from"], begun[3] + seen["to"]]


def test_counts_outlive_a_hundred_changes_of_rules(net: Isolated) -> None:
    with unchanged(net.router, "netusage.sh", "-g"):
        for number in range(50):
            for revoked in (False, True):
                net.firewall(ingress(100, SOURCE_NAT, "tcp", [100 + number, 200], revoked=revoked), check=False)
        net.converged()


def test_counts_outlive_another_public_nic_and_its_end(net: Isolated) -> None:
    router = net.router
    with unchanged(router, "netusage.sh", "-g") as before:
        nic = net.plug2()
        net.associate(SECOND, mac=PUBLIC2_MAC, nic=3)
        net.firewall(ingress(5, SECOND, "udp", [5100, 5100]))
        net.forward(forward(SECOND, "udp", "5100:5100", "10.31.5.11", "5100:5100"))
        assert numbers(said(router, "netusage.sh", "-g", "-l", SECOND)) == [0, 0, 0, 0]
    send(net.world, net.app, SECOND, 5100)

    assert numbers(said(router, "netusage.sh", "-g", "-l", SECOND)) == [0, SIZE, 0, 0]
    after = [before[0], before[1] + SIZE, *before[2:]]
    assert numbers(said(router, "netusage.sh", "-g")) == after

    net.forward(forward(SECOND, "udp", "5100:5100", "10.31.5.11", "5100:5100", revoke=True))
    net.associate(SECOND, mac=PUBLIC2_MAC, nic=3, add=False)
    net.router.unplug(nic)
    assert said(router, "netusage.sh", "-d", nic) == ""
    net.converged()
    assert numbers(said(router, "netusage.sh", "-g")) == after  # less would be taken for a reset


def test_counts_outlive_the_processes_and_other_hands(net: Isolated) -> None:
    router = net.router
    with unchanged(router, "netusage.sh", "-g"):
        router.reboot(kernel=True)
        net.converged()
    with unchanged(router, "netusage.sh", "-g"):
        assert router.shell(["nft", "flush", "chain", "inet", "holdfast_usage", "leaves"]).code == 0
        assert "usage" in router.shell(["/usr/sbin/holdfast", "plan"]).text
        assert router.shell(["/usr/sbin/holdfast", "converge"]).code == 0
        net.converged()
    with unchanged(router, "netusage.sh", "-g"):
        assert router.shell(["nft", "delete", "table", "inet", "holdfast_usage"]).code == 0
        assert router.run("netusage.sh", "-g").text == ""  # no number is better than a wrong one
        assert router.run("netusage.sh", "-g").code == 1
        assert router.shell(["/usr/sbin/holdfast", "converge"]).code == 0


def test_a_reset_and_a_reboot_begin_at_zero(net: Isolated) -> None:
    router = net.router
    assert said(router, "netusage.sh", "-r") == ""
    assert numbers(said(router, "netusage.sh", "-g")) == [0, 0, 0, 0]

    send(net.web, net.world, FAR, 5300, packets=10)
    assert numbers(said(router, "netusage.sh", "-g"))[0] == 10 * 128
    net.power_cut()
    assert numbers(said(router, "netusage.sh", "-g")) == [0, 0, 0, 0]  # the server has added up what was before


def test_hostile_words_are_refused(net: Isolated) -> None:
    with unchanged(net.router, "netusage.sh", "-g"):
        for words in (
            ["-r", "-g"], ["-r", "-r"], ["-r", "now"], ["-a", "eth2;id"], ["-g", "-l", "$(id)"], [], ["-x"],
            ["--", "-r"],
        ):  # fmt: skip
            done = net.router.run("netusage.sh", *words)
            assert (done.code, done.text) == (2, ""), words
        for words in (["-r"], ["-l", "1.2.3.4"], ["-l", "x", "-r"], ["-l", SOURCE_NAT, "-g", "-v", "a/b"]):
            assert net.router.run("vpc_netusage.sh", *words).code == 2, words


@pytest.fixture(scope="module")
def tiers() -> Iterator[Vpc]:
    with vpc("vpcusage") as net:
        net.acl(WEB, [rule("udp")], [rule("udp")])
        net.forward(forward(VPC_ADDRESS, "udp", "5000:5009", WEB1, "5000:5009"))
        yield net


def of(net: Vpc, address: str = VPC_ADDRESS) -> list[int]:
    return numbers(said(net.router, "vpc_netusage.sh", "-l", address, "-g"))


def test_a_vpcs_traffic_is_counted_by_public_address(tiers: Vpc) -> None:
    router = tiers.router
    assert said(router, "vpc_netusage.sh", "-l", VPC_ADDRESS, "-c", "-v", "10.61.0.0/16") == ""
    begun = of(tiers)

    send(tiers.web1, tiers.world, FAR, 5300)
    send(tiers.world, tiers.web1, VPC_ADDRESS, 5005)
    send(tiers.app1, tiers.web1, WEB1, 5006)  # between tiers: that is nobody's traffic but their own

    assert of(tiers) == [begun[0] + SIZE, begun[1] + SIZE, *begun[2:]]
    assert said(router, "vpc_netusage.sh", "-l", VPC_ADDRESS, "-n") == ""
    assert said(router, "vpc_netusage.sh", "-l", VPC_SECOND, "-g") == ""

    before = of(tiers)
    tiers.associate(VPC_SECOND)
    for number in range(50):
        tiers.acl(WEB, [rule("udp"), rule("tcp", ports=[number + 1, 99])], [rule("udp")], check=False)
        tiers.acl(WEB, [rule("udp")], [rule("udp")], check=False)
    tiers.converged()
    assert of(tiers) == before
    assert of(tiers, VPC_SECOND) == [0, 0, 0, 0]

    tiers.router.reboot(kernel=True)
    tiers.converged()
    assert of(tiers) == before


def test_a_vpcs_counts_and_their_reset_outlive_a_power_cut(tiers: Vpc) -> None:
    assert said(tiers.router, "vpc_netusage.sh", "-l", VPC_ADDRESS, "-r") == ""
    assert of(tiers) == [0, 0, 0, 0]
    send(tiers.web1, tiers.world, FAR, 5300)
    assert of(tiers) == [SIZE, 0, 0, 0]

    tiers.power_cut()
    assert of(tiers) == [SIZE, 0, 0, 0]  # less than was told would be taken for a reset, more for traffic
    send(tiers.web1, tiers.world, FAR, 5300)
    assert of(tiers) == [2 * SIZE, 0, 0, 0]
    assert json.loads(tiers.router.read("/var/lib/holdfast/usage.json"))["out_1e1a61000003"] == [2000, 2 * SIZE]
