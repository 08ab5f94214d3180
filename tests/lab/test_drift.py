"""What another hand has changed is put right by any command, named in its answer, and nothing else is touched."""

import json
import re
from collections.abc import Iterator
from typing import Any, NamedTuple

import pytest
from replay import Site, said, settled, vm, vm_line

pytestmark = pytest.mark.lab

NEW_VM = 9
RULE = "$(nft -a list chain inet holdfast {0} | sed -n 's/.*# handle //p' | tail -1)"
OTHER = "table inet other {\n\tchain c {\n\t\ttype filter hook forward priority 10; policy accept;\n\t}\n}\n"
OURS = "/etc/ssh/sshd_config.d/holdfast.conf"


class Damage(NamedTuple):
    """What is done in the router's shell, the words by which the answer names it, and what else may be touched:
    `ruleset`, files by path, services that are started again."""

    name: str
    script: str
    named: tuple[str, ...]
    touches: tuple[str, ...] = ()


EVERYTHING = ("+ firewall control_device", "+ firewall guest_device", "… and ")
DAMAGES = (
    Damage("ruleset flushed", "nft flush ruleset", EVERYTHING, ("ruleset",)),
    Damage("table deleted", "nft delete table inet holdfast", EVERYTHING, ("ruleset",)),
    Damage("chain flushed", "nft flush chain inet holdfast forward", ("firewall structure",), ("ruleset",)),
    Damage(
        "one rule deleted",
        f"nft delete rule inet holdfast forward handle {RULE.format('forward')}",
        ("firewall structure",),
        ("ruleset",),
    ),
    Damage("accept rule added", "nft insert rule inet holdfast forward accept", ("firewall structure",), ("ruleset",)),
    Damage(
        "chain policy changed",
        "nft add chain inet holdfast forward '{ policy accept; }'",
        ("firewall structure",),
        ("ruleset",),
    ),
    Damage(
        "element removed",
        "nft delete element inet holdfast ingress_port '{ 203.0.113.11 . tcp . 0.0.0.0/0 . 80 }'",
        ("+ firewall ingress_port { 203.0.113.11 . tcp . 0.0.0.0/0 . 80 }",),
        ("ruleset",),
    ),
    Damage(
        "element added",
        "nft add element inet holdfast ingress_port '{ 203.0.113.11 . tcp . 0.0.0.0/0 . 8080 }'",
        ("- firewall ingress_port { 203.0.113.11 . tcp . 0.0.0.0/0 . 8080 }",),
        ("ruleset",),
    ),
    Damage(
        "map entry changed",
        "nft 'delete element inet holdfast static_nat { 198.51.100.20 : 10.1.1.13 }; "
        "add element inet holdfast static_nat { 198.51.100.20 : 10.1.1.66 }'",
        ("~ firewall static_nat { 198.51.100.20 : 10.1.1.13 }",),
        ("ruleset",),
    ),
    Damage("public address deleted", "ip address del 203.0.113.11/24 dev eth2", ("+ address eth2 203.0.113.11/24",)),
    Damage("guest address deleted", "ip address del 10.1.1.1/24 dev eth0", ("+ address eth0 10.1.1.1/24",)),
    Damage("foreign address", "ip address add 203.0.113.99/24 dev eth2", ("- address eth2 203.0.113.99/24",)),
    Damage("default route deleted", "ip route del default", ("+ route default via 203.0.113.1",)),
    Damage(
        "default route to a wrong gateway",
        "ip route replace default via 203.0.113.254",
        ("route default via 203.0.113.1",),
    ),
    Damage(
        "policy table flushed", "ip route flush table 103", ("+ route default via 198.51.100.1 dev eth3 table 103",)
    ),
    Damage("policy rule deleted", "ip rule del pref 1103", ("+ rule 1103",)),
    Damage("foreign policy rule", "ip rule add pref 1500 from 10.9.9.9 table 103", ("- rule 1500 from 10.9.9.9",)),
    Damage("link down", "ip link set eth2 down", ("~ link eth2 up False -> True",)),
    Damage("forwarding off", "sysctl -q -w net.ipv4.ip_forward=0", ("~ sysctl net/ipv4/ip_forward value 0 -> 1",)),
    Damage(
        "line removed from dhcphosts",
        "sed -i /web1/d /etc/dhcphosts.txt",
        ("file /etc/dhcphosts.txt",),
        ("/etc/dhcphosts.txt",),
    ),
    Damage(
        "line added to dnsmasq.conf",
        "echo log-queries >> /etc/dnsmasq.conf",
        ("~ file /etc/dnsmasq.conf (-log-queries)",),
        ("/etc/dnsmasq.conf",),
    ),
    Damage("dnsmasq.conf removed", "rm /etc/dnsmasq.conf", ("+ file /etc/dnsmasq.conf",), ("/etc/dnsmasq.conf",)),
    Damage("sshd opened", f"echo PasswordAuthentication yes >> {OURS}", (f"~ file {OURS}",), (OURS,)),
    Damage("file's mode changed", f"chmod 666 {OURS}", (f"~ file {OURS} mode 666 -> 600",), (OURS,)),
    Damage(
        "dnsmasq killed",
        "kill -9 $(cat /run/dnsmasq/dnsmasq.pid)",
        ("unit dnsmasq.service start",),
        ("dnsmasq.service",),
    ),
    Damage("dnsmasq stopped", "systemctl stop dnsmasq", ("unit dnsmasq.service start",), ("dnsmasq.service",)),
    Damage("sshd stopped", "systemctl stop ssh", ("unit ssh.service start",), ("ssh.service",)),
)


@pytest.fixture(scope="module")
def lived_in() -> Iterator[Site]:
    with settled("drift") as made:
        yield made


@pytest.fixture
def made(lived_in: Site) -> Iterator[Site]:
    # Tables of others are none of our business, whatever is done to ours.
    done = lived_in.router.shell(["nft", OTHER])
    assert done.code == 0, said(done)
    yield lived_in
    if f"web{NEW_VM}" in lived_in.path("/etc/hosts").read_text():
        lived_in.told(vm(NEW_VM, remove=True))


def without_new_vm(state: dict[str, Any]) -> dict[str, Any]:
    texts = {
        path: (mode, "".join(line for line in text.splitlines(keepends=True) if f"web{NEW_VM}" not in line))
        for path, (mode, text) in state["files"].items()
    }
    entries = (f"10.1.1.{10 + NEW_VM}", f'"eth0" . 02:00:4c:5e:00:{NEW_VM:02x} . 10.1.1.{10 + NEW_VM}')
    return state | {"files": texts, "ruleset": [_without(entries, table) for table in state["ruleset"]]}


def _without(entries: tuple[str, ...], table: str) -> str:
    for entry in entries:
        table = re.sub(rf"(, {re.escape(entry)})(?=[, ])|(?<== {{ ){re.escape(entry)},? ", "", table)
    return table


@pytest.mark.parametrize("command", ["a DHCP entry", "the same again"])
@pytest.mark.parametrize("damage", DAMAGES, ids=lambda damage: damage.name)
def test_any_command_repairs_it_and_nothing_else(made: Site, damage: Damage, command: str) -> None:
    before, footprints = made.state(), made.footprints()
    done = made.router.shell(["sh", "-ec", damage.script])
    assert done.code == 0, said(done)

    answer = made.told(vm(NEW_VM) if command == "a DHCP entry" else vm(1))

    for words in damage.named:
        assert words in answer
    assert made.plan()["changes"] == []
    after = made.state()
    if "flush ruleset" in damage.script:
        before["ruleset"] = [table for table in before["ruleset"] if not table.startswith("table inet other ")]
    assert without_new_vm(after) == before
    touched = set(damage.touches)
    if command == "a DHCP entry":
        assert vm_line(NEW_VM) in after["files"]["/etc/dhcphosts.txt"][1]
        touched |= {"/etc/dhcphosts.txt", "/etc/hosts", "reloaded dnsmasq.service", "ruleset"}
    untouched(made, footprints, touched)


def untouched(made: Site, before: dict[str, Any], touched: set[str]) -> None:
    """All but the named is as it was: no transaction, no file written, no service restarted or reloaded."""
    after = made.footprints()
    if "ruleset" not in touched:
        assert after["ruleset generation"] == before["ruleset generation"]
    for path, was in before["files"].items():
        assert path in touched or after["files"][path] == was, path
    for name, was in before["units"].items():
        now = after["units"][name]
        if name in touched:
            assert now["ActiveState"] == "active"
            assert now["InvocationID"] != was["InvocationID"]
        elif f"reloaded {name}" in touched:
            assert now["InvocationID"] == was["InvocationID"]
        else:
            assert now == was


def test_the_first_address_comes_back_with_all_that_hung_on_it(made: Site) -> None:
    before, footprints = made.state(), made.footprints()
    source = made.router.shell(["ip", "route", "get", "192.0.2.1"]).text
    assert "src 203.0.113.10" in source
    done = made.router.shell(["ip", "address", "del", "203.0.113.10/24", "dev", "eth2"])
    assert done.code == 0, said(done)
    answer = made.told(vm(1))
    assert "+ address eth2 203.0.113.10/24" in answer
    assert made.plan()["changes"] == []
    untouched(made, footprints, set())
    after = made.state()
    for part in before.keys() - {"routes"}:
        assert after[part] == before[part], part
    for route in before["routes"]:
        # The kernel's own route to the connected network takes the elder of two addresses: ours name theirs.
        assert without_source(route) in map(without_source, after["routes"])


def without_source(route: str) -> dict[str, Any]:
    return {name: value for name, value in json.loads(route).items() if name != "prefsrc"}


def test_the_router_itself_speaks_from_its_first_address_again(made: Site) -> None:
    """Rests on the test before, which took that address away."""
    made.told(vm(1))
    assert "src 203.0.113.10" in made.router.shell(["ip", "route", "get", "192.0.2.1"]).text
