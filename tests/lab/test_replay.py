"""Recorded stories of two management servers, replayed against a router step by step."""

import json
import re
from collections.abc import Iterator, Sequence

import pytest
from replay import BOOT_LINE, COMMANDS, HOLDFAST, Site, Step, ips, said, site, story

pytestmark = pytest.mark.lab

PROTOCOLS = {"tcp": "6", "udp": "17"}


class Player:
    """Plays steps on a router, as management server and hypervisor at once."""

    def __init__(self, made: Site) -> None:
        self.site = made
        self.left_out: list[str] = []
        self.commands = 0

    def play(self, step: Step) -> None:
        """One step: its files where they come, its scripts in order, nics where the hypervisor plugs them."""
        for event in step.events:
            if event[0] == "file":
                self.site.router.send(step.stored(event), event[1])
            elif event[1] in COMMANDS:
                self.command(step, event)
            else:
                self.cable(step, event)
                self.left_out.append(f"{step.number} {' '.join(event[1:])}")

    def cable(self, step: Step, event: tuple[str, ...]) -> None:
        """`netusage.sh -a eth3` comes when the hypervisor has plugged eth3, `-d` when it has taken it away."""
        if event[1] != "netusage.sh" or event[2] not in ("-a", "-d"):
            return
        nic = event[3]
        if event[2] == "-a" and nic not in self.site.router.ports:
            assert self.site.router.plug(self.site.second, step.mac) == nic
        if event[2] == "-d":
            self.site.router.unplug(nic)

    def command(self, step: Step, event: tuple[str, ...]) -> None:
        """Run it, then send the same again: the second time nothing happens at all."""
        where = f"step {step.number}, {step.story}: {' '.join(event[1:])}"
        done = self.site.router.run(event[1], *event[2:])
        assert done.code == 0, f"{where}: {said(done)}"
        plan = self.site.plan()
        assert plan["changes"] == [], where
        assert not any("waits for nic" in text for text in plan["pending"]), (where, plan["pending"])
        before = self.site.footprints()
        for other in step.events:
            if other[0] == "file":
                self.site.path(f"/var/cache/cloud/{other[1]}").write_bytes(step.stored(other).read_bytes())
        again = self.site.router.run(event[1], *event[2:])
        assert again.code == 0, f"{where}, again: {said(again)}"
        assert ": nothing to do, generation" in again.text, f"{where}, again: {again.text}"
        assert self.site.footprints() == before, f"{where}, again"
        self.commands += 1


@pytest.fixture
def made() -> Iterator[Site]:
    with site("replay") as made:
        yield made


def begin(made: Site, steps: Sequence[Step]) -> list[Step]:
    """Boot with the first boot line; the steps that follow it."""
    at = next(index for index, step in enumerate(steps) if step.boot_line)
    line = steps[at].boot_line
    assert line
    booted = made.boot(line)
    assert booted.code == 0, said(booted)
    return list(steps[at + 1 :])


@pytest.mark.parametrize("version", ["4.22", "4.6.1"])
def test_every_step_of_an_isolated_network_leaves_nothing_to_do_and_a_reboot_changes_nothing(
    made: Site, version: str
) -> None:
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
    assert made.state() == lived
    for step in steps[at + 1 :]:
        player.play(step)
    assert made.plan()["changes"] == []

    started = made.state()
    made.router.power_cut()
    made.router.boot()
    assert made.plan()["changes"] == [], made.router.journal(60)
    assert made.state() == started
    print(f"{version}: {player.commands} commands; scripts of later work, left out:", *player.left_out, sep="\n  ")  # noqa: T201 what was not replayed


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


def test_the_router_itself_speaks_from_its_source_nat_address_after_a_reboot(made: Site) -> None:
    booted = made.boot(BOOT_LINE.replace("203.0.113.10", "203.0.113.50"))
    assert booted.code == 0, said(booted)
    made.told(ips("203.0.113.50", "203.0.113.12"))
    lived = made.state()
    assert "src 203.0.113.50" in made.router.shell(["ip", "route", "get", "192.0.2.1"]).text
    made.router.power_cut()
    made.router.boot()
    assert made.state() == lived
