"""What serves guests is back after it was killed, within a second, and nothing is left to do."""

import time
from collections.abc import Callable, Iterator
from typing import NamedTuple

import pytest
from isolated import GUEST_GATEWAY, Isolated, ingress, isolated
from served import ASK_S, NONE_WAITS, asks, metadata, password, told

pytestmark = [pytest.mark.lab, pytest.mark.alone]

BACK_S = 1.0
SPARE = 3
"""On a machine that is busy it may take this many times as long."""
PUBLIC, PORT = "203.0.113.22", 8090
WEB_ADDRESS, APP_ADDRESS = "10.31.5.10", "10.31.5.11"
UNITS = ("dnsmasq.service", "holdfast-guest.service", "holdfast-guest.socket", "haproxy.service")
BALANCER = (
    "global", "\tlog 127.0.0.1:3914   local0 warning", "\tmaxconn 4096", "\tmaxpipes 1024", "\tchroot /var/lib/haproxy",
    "\tuser haproxy", "\tgroup haproxy", "\tstats socket /run/haproxy/admin.sock", "\tdaemon", "\t ",
    "defaults", "\tlog     global", "\tmode    tcp", "\toption  dontlognull", "\tretries 3", "\toption redispatch",
    "\ttimeout connect    5000", "\ttimeout client     50000", "\ttimeout server     50000", "\t ",
    "listen 203_0_113_22-8090", f"\tbind {PUBLIC}:{PORT}", "\tbalance roundrobin",
    f"\tserver 203_0_113_22-8090_0 {WEB_ADDRESS}:{PORT} check", "\t ", "\t ",
)  # fmt: skip


@pytest.fixture(scope="module")
def net() -> Iterator[Isolated]:
    with isolated("guestkills") as net:
        net.command("vm_metadata", metadata(WEB_ADDRESS, {"local-hostname": "web1"}))
        net.command("vm_password", password(WEB_ADDRESS, "taken"))
        net.command("vm_password", password(APP_ADDRESS, "waits"))
        assert told(net.web, GUEST_GATEWAY) == "taken"
        assert told(net.web, GUEST_GATEWAY, NONE_WAITS) == NONE_WAITS
        net.associate("203.0.113.21", PUBLIC)
        net.firewall(ingress(1, PUBLIC, "tcp", (PORT, PORT)))
        net.web.serve(PORT)
        rules = {
            "configuration": [*BALANCER],
            "tmp_cfg_file_path": "/etc/haproxy/",
            "tmp_cfg_file_name": "haproxy.cfg.new.1795328235999",
            "ssl_certs": [],
            "add_rules": [f"{PUBLIC}:{PORT}:"],
            "remove_rules": [],
            "stat_rules": [""],
            "router_ip": "169.254.77.3",
        }
        net.command("load_balancer", {"rules": [rules], "type": "loadbalancer"})
        yield net


def resolves(net: Isolated) -> None:
    assert net.web.resolves("app1") == (APP_ADDRESS,)


def reads(net: Isolated) -> None:
    assert asks(net.web, GUEST_GATEWAY, "/latest/local-hostname") == (200, b"web1")
    assert told(net.app, GUEST_GATEWAY) == "waits"
    assert told(net.web, GUEST_GATEWAY) == NONE_WAITS


def balances(net: Isolated) -> None:
    assert net.world.reaches(PUBLIC, PORT).name == "web1"


class Case(NamedTuple):
    """A unit, and what shows that it answers: the questions wait for their answer, so the time is theirs too."""

    unit: str
    answers: Callable[[Isolated], None]


@pytest.mark.parametrize(
    "case",
    [Case("dnsmasq.service", resolves), Case("holdfast-guest.service", reads), Case("haproxy.service", balances)],
    ids=lambda case: case.unit,
)
def test_what_was_killed_is_back_and_the_next_command_restarts_nothing(net: Isolated, case: Case) -> None:
    case.answers(net)
    pid, invocation = shown(net, case.unit, "MainPID"), shown(net, case.unit, "InvocationID")
    assert int(pid) > 1

    began = time.monotonic()
    done = net.router.shell(["kill", "-KILL", pid])
    assert done.code == 0, done.errors
    net.router.eventually(
        lambda: net.router.active(case.unit) and shown(net, case.unit, "InvocationID") != invocation,
        f"{case.unit} is started again",
        timeout_s=ASK_S,
    )
    case.answers(net)
    took = time.monotonic() - began
    print(f"{case.unit}: answers {took:.2f} s after the kill")  # noqa: T201 measured

    assert took < BACK_S * SPARE
    before = invocations(net)
    net.firewall(ingress(100 + len(net.seconds), PUBLIC, "tcp", (9000, 9000)))
    assert invocations(net) == before
    case.answers(net)


def shown(net: Isolated, unit: str, name: str) -> str:
    """What systemd says about a unit."""
    return net.router.shell(["systemctl", "show", "--value", "--property", name, unit]).text.strip()


def invocations(net: Isolated) -> dict[str, str]:
    """Which start of each unit is the current one."""
    return {unit: shown(net, unit, "InvocationID") for unit in UNITS}
