"""Recorded stories of two management servers, replayed against a router step by step."""

import json
import re
from collections.abc import Iterator
from typing import Any

import pytest
from recorded import Player, begin, outside, story
from replay import BOOT_LINE, HOLDFAST, Site, ips, said, site

pytestmark = pytest.mark.lab

PROTOCOLS = {"tcp": "6", "udp": "17"}


@pytest.fixture
def made() -> Iterator[Site]:
    with site("replay") as made:
        yield made


@pytest.mark.parametrize("version", ["4.22", pytest.param("4.6.1", marks=pytest.mark.appliance)])
def test_every_step_of_an_isolated_network_leaves_nothing_to_do_and_a_reboot_changes_nothing(
    made: Site, version: str
) -> None:
    outside(made)
    steps = begin(made, story(version, "S1"))
    player = Player(made)
    at = next(index for index, step in enumerate(steps) if step.boot_line)
    for step in steps[:at]:
        if not any(event[1] == "bootArgs.txt" for event in step.events):
            player.play(step)
    # Every kind of message has come by; a story without its commands would prove nothing.
    assert player.commands > 30

    lived = made.state()
    made.router.power_cut()
    restored = made.boot(steps[at].boot_line or "")
    assert restored.code == 0, said(restored)
    assert made.plan()["changes"] == []
    assert without_mtu(made.state()) == without_mtu(lived)
    for step in steps[at + 1 :]:
        player.play(step)
    assert made.plan()["changes"] == []

    started = made.state()
    made.router.power_cut()
    made.router.boot()
    assert made.plan()["changes"] == [], made.router.journal(60)
    assert made.state() == started
    asked = player.asking
    asked.told_and_kept_secret()
    print(f"{version}: {player.commands} commands; {len(asked.answers)} scripts in {asked.seconds:.1f} s:")  # noqa: T201 what was answered
    print(*asked.answers, sep="\n  ")  # noqa: T201 same


def without_mtu(state: dict[str, Any]) -> dict[str, Any]:
    """Without the guest nic's MTU, which the story changes by a script and its restart does not say."""
    files = {path: (mode, re.sub(r"(?m)^.*\b26,\d+\n", "", text)) for path, (mode, text) in state["files"].items()}
    return {
        **state,
        "links": {nic: (up, nic != "eth0" and mtu) for nic, (up, mtu) in state["links"].items()},
        "files": files,
    }


def opened(bundle: str) -> set[str]:
    """What the bundle's ingress rules open, as nft lists it."""
    messages = [json.loads(line) for line in bundle.splitlines() if line.startswith('{"rules"')]
    return {
        f"{rule['src_ip']} . {PROTOCOLS[rule['protocol']]} . {source.removesuffix('/32')} . {ports}"
        for message in messages
        if message["type"] == "firewallrules"
        for rule in message["rules"]
        if rule["traffic_type"] == "Ingress" and rule["protocol"] in PROTOCOLS
        for source in rule["source_cidr_list"]
        for ports in ["-".join(str(port) for port in sorted(set(rule["src_port_range"])))]
    }


def test_a_bundle_for_five_hundred_guests_is_one_convergence(made: Site) -> None:
    steps = begin(made, story("4.22", "S6"))
    before = made.store()["generations"]
    [bundle] = [
        step for step in steps if any(event[0] == "script" and event[1] == "vr_cfg.sh" for event in step.events)
    ]
    player = Player(made)
    for step in steps[: steps.index(bundle)]:
        player.play(step)
    assert len(player.asking.answers) == 7  # six netusage.sh, and the version
    [file, script] = bundle.events
    made.router.send(bundle.stored(file), file[1])
    done = made.router.run(script[1], *script[2:])
    print(f"{bundle.stored(file).stat().st_size} bytes: {done.seconds:.2f} s\n{done.text}")  # noqa: T201 a measurement
    assert done.code == 0, said(done)
    assert len(made.store()["generations"]) == len(before) + 1
    assert made.plan()["changes"] == []
    assert len(made.path("/etc/dhcphosts.txt").read_text().splitlines()) == 500
    held = set(re.findall(r"203\.0\.113\.\d+ \. \d+ \. \S+ \. [\d-]+", made.holds("ingress_port")))
    assert held == opened(bundle.stored(file).read_text())
    assert made.router.shell([HOLDFAST, "status"]).code == 0
    player.asking.told_and_kept_secret()


def test_the_router_itself_speaks_from_its_source_nat_address_after_a_reboot(made: Site) -> None:
    booted = made.boot(BOOT_LINE.replace("203.0.113.10", "203.0.113.50"))
    assert booted.code == 0, said(booted)
    made.told(ips("203.0.113.50", "203.0.113.12"))
    lived = made.state()
    assert "src 203.0.113.50" in made.router.shell(["ip", "route", "get", "192.0.2.1"]).text
    made.router.power_cut()
    made.router.boot()
    assert made.state() == lived
