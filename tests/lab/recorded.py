"""Recorded stories of management servers, and the player that replays them as server and hypervisor at once."""

import json
import re
import shlex
import subprocess
from collections.abc import Callable, Sequence
from functools import cache
from pathlib import Path
from typing import Any, NamedTuple

import pytest
from asking import Asking
from replay import Site, said

from holdfast.feature import RELEASE
from holdfast.lab.network import Segment

EXAMPLES = Path(__file__).parents[2].parent / "shared/reference/examples"
COMMANDS = ("update_config.py", "configure.py", "vr_cfg.sh")
KEPT = frozenset({"ipv6firewallrules", "bgppeers"})
"""Types that are kept for a release that applies them."""
_PLUGS = re.compile(r"plugs a nic, mac (\S+) -> (eth\d+)")


class Step(NamedTuple):
    """One thing that the management side did: `("file", name, stored)` and `("script", name, arguments…)` in order."""

    number: int
    story: str
    command: str
    events: list[tuple[str, ...]]
    directory: Path
    router: str

    def stored(self, event: tuple[str, ...]) -> Path:
        """Where the bytes of a file event are."""
        return self.directory / event[2]

    @property
    def boot_line(self) -> Path | None:
        """The boot line, if this is where it comes into the router."""
        return next(
            (self.stored(e) for e in self.events if e[0] == "file" and e[1] in ("cmdline", "message.txt")), None
        )

    @property
    def mac(self) -> str:
        """The MAC of the nic that this step's message is about."""
        message = json.loads(next(self.stored(event) for event in self.events if event[0] == "file").read_bytes())
        return str(message["mac_address"] if "mac_address" in message else message["ip_address"][0]["vif_mac_address"])

    @property
    def plugs(self) -> tuple[str, str] | None:
        """MAC and name of the nic that the hypervisor plugs here."""
        found = _PLUGS.search(self.story) if self.command == "PlugNicCommand" else None
        return (found[1], found[2]) if found else None


def genuine(stored: Path) -> bytes:
    """A recorded message, with a certificate and a key where the recording has words that stand for them."""
    message = stored.read_bytes()
    for placeholder, body in _pem().items() if b"MIIBexample" in message else ():
        message = message.replace(placeholder, body)
    return message


@cache
def _pem() -> dict[bytes, bytes]:
    argv = ["openssl", "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-noenc"]
    argv += ["-keyout", "-", "-subj", "/CN=shop.example", "-days", "3650"]
    made = subprocess.run(argv, capture_output=True, check=True).stdout
    found = dict(re.findall(rb"-----BEGIN ([A-Z ]+)-----\n(.*?)\n-----END", made, re.DOTALL))
    key, certificate = (found[kind].replace(b"\n", rb"\n") for kind in (b"PRIVATE KEY", b"CERTIFICATE"))
    return {b"MIIEexampleKey": key, b"MIIBexampleServerCert": certificate, b"MIIBexampleChain": certificate}


def story(version: str, scenario: str) -> list[Step]:
    """A recorded story's steps; the test is skipped where the recordings are not beside the checkout."""
    directory = EXAMPLES / version / scenario
    if not directory.is_dir():
        pytest.skip(f"no recorded messages in {directory}: replaying {scenario} of CloudStack {version} is left out")
    steps = []
    for line in (directory / "sequence.jsonl").read_text().splitlines():
        told = json.loads(line)
        events: list[tuple[str, ...]] = []
        for event in told["events"]:
            if event["op"] == "file":
                events.append(("file", event["name"], event["stored"]))
            else:
                events.append(("script", event["script"], *shlex.split(event.get("args") or "")))
        command = told["command"].rpartition(".")[2]
        steps.append(Step(told["step"], told["story"], command, events, directory, told.get("router", "")))
    return steps


def begin(made: Site, steps: Sequence[Step]) -> list[Step]:
    """Boot with the first boot line; the steps that follow it."""
    at = next(index for index, step in enumerate(steps) if step.boot_line)
    line = steps[at].boot_line
    assert line
    booted = made.boot(line)
    assert booted.code == 0, said(booted)
    return list(steps[at + 1 :])


def outside(made: Site) -> None:
    """What an operator and health checks look for in the story: a host of the Internet, the gateways, and a VM."""
    made.lab.world(made.lab.segment("public"), "203.0.113.1/24", ["8.8.8.8"])
    made.lab.mgmt(made.lab.segment("control"))
    vm = made.lab.guest("web1", made.lab.segment("guest"), "02:00:70:01:00:14")
    vm.address("eth0", "10.1.1.11/24")


class Player:
    """Plays steps on a router.  `pending`: what still waits after each command, by the step's number.

    `twice`: which of its commands are sent a second time, by their count.
    """

    def __init__(self, made: Site, twice: Callable[[int], bool] = lambda _: True) -> None:
        self.site = made
        self.twice = twice
        self.asking = Asking(made)
        self.commands = 0
        self.pending: dict[int, list[str]] = {}
        self.starting = False
        self._spoken_of = ""

    def play(self, step: Step) -> None:
        """One step: its files where they come, its scripts in order, nics where the hypervisor plugs them."""
        self.hypervisor(step)
        for event in step.events:
            if event[0] == "file":
                self.site.router.send(genuine(step.stored(event)), event[1])
            elif event[1] in COMMANDS:
                self.command(step, event)
            else:
                self.cable(step, event)
                self.asked(step, event)

    def asked(self, step: Step, event: tuple[str, ...]) -> None:
        """A script that takes no message in: run it as recorded, and read its answer as the server does."""
        self.asking.ask(event[1], event[2:], f"step {step.number}, {step.story[:40]}: {' '.join(event[1:])[:80]}")

    def segment(self, mac: str) -> Segment:
        """What a nic of this MAC is plugged into."""
        return self.site.lab.segment(mac.replace(":", "")[-8:])

    def hypervisor(self, step: Step) -> None:
        """Plug the nic that the story names; unplug the one that the message before was about."""
        if step.plugs:
            mac, nic = step.plugs
            assert self.site.router.plug(self.segment(mac), mac) == nic
        elif step.command == "UnPlugNicCommand":
            [nic] = [nic for nic, port in self.site.router.ports.items() if port.mac == self._spoken_of]
            self.site.router.unplug(nic)
        elif step.command in ("IpAssocVpcCommand", "SetupGuestNetworkCommand"):
            self._spoken_of = step.mac

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
        """Run it; sent again, nothing happens at all."""
        where = f"step {step.number}, {step.story}: {' '.join(event[1:])}"
        done = self.site.router.run(event[1], *event[2:])
        assert done.code == 0, f"{where}: {said(done)}"
        plan = self.planned(where)
        waiting = [text for text in plan["pending"] if "waits for nic" in text]
        assert self.starting or not waiting, (where, waiting)
        assert {text.split()[0] for text in plan["pending"] if text.endswith(RELEASE)} <= KEPT, where
        self.pending[step.number] = plan["pending"]
        if self.twice(self.commands):
            self.again(step, event, where)
        self.commands += 1

    def planned(self, where: str) -> dict[str, Any]:
        """What is left to do after a command: nothing."""
        plan = self.site.plan()
        assert plan["changes"] == [], where
        return plan

    def again(self, step: Step, event: tuple[str, ...], where: str) -> None:
        """Send the same again."""
        before = self.site.footprints()
        for other in step.events:
            if other[0] == "file":
                self.site.path(f"/var/cache/cloud/{other[1]}").write_bytes(genuine(step.stored(other)))
        again = self.site.router.run(event[1], *event[2:])
        assert again.code == 0, f"{where}, again: {said(again)}"
        assert ": nothing to do, generation" in again.text, f"{where}, again: {again.text}"
        assert self.site.footprints() == before, f"{where}, again"
