"""A deployment story: a directory of messages as a management server writes them, and the lab in which it plays.

`topology.json` says what is there, `sequence.jsonl` what happens, one step a line.
"""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

import msgspec

from holdfast.lab.guest import Guest
from holdfast.lab.lab import Lab
from holdfast.lab.process import Result
from holdfast.lab.router import CACHE, Router
from holdfast.lab.sentence import LabError
from holdfast.lab.world import Management, World

BOOT = "holdfast boot"
UPDATE = "update_config.py"
BUNDLE = "vr_cfg.sh"
_BOOT_LINE = "cmdline"  # what it is called in every router, whatever its file is here
_HOLDFAST = "/usr/sbin/holdfast"


class Plug(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """A nic that is plugged into the router before a step's message is sent."""

    segment: str
    mac: str


class Step(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """One thing that the operator does: the message `file` is handed over and `script` told of it.

    `cuts` names connections that live before the step and must not live after it; `unplug` is the MAC of a nic that is
    taken out of the router before the message is sent.  `router` is who is told, where there are two.
    """

    step: int
    says: str
    file: str
    script: str
    plug: Plug | None = None
    unplug: str = ""
    cuts: str = ""
    router: str = ""

    @property
    def command(self) -> str:
        """The command line as it is run in the router."""
        if self.script == BOOT:
            return BOOT
        return f"{self.script} -c {CACHE}/{self.file}" if self.script == BUNDLE else f"{self.script} {self.file}"


class RouterPlan(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """The router's name in the lab and its nics, eth0 first, as pairs of segment and MAC."""

    name: str
    nics: list[tuple[str, str]]


class WorldPlan(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Hosts of the Internet, and the gateway of each public segment as `203.0.113.1/24`; `routes` leads networks to
    their next hop.
    """

    inside: list[str]
    gateways: dict[str, str]
    routes: dict[str, str] = {}


class Topology(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """What a story needs: a router, guests by name as pairs of segment and MAC, the world and the management side's
    address; `beside` it are other worlds, that private gateways lead to, and `peer` is a pair's second router.
    """

    router: RouterPlan
    guests: dict[str, tuple[str, str]]
    world: WorldPlan
    mgmt: str
    beside: dict[str, WorldPlan] = {}
    peer: RouterPlan | None = None


class Story(NamedTuple):
    """A story as it was read."""

    directory: Path
    topology: Topology
    steps: Sequence[Step]


class Stage(NamedTuple):
    """A lab as a story's topology asks for it; guests have no lease yet, the router is off."""

    lab: Lab
    router: Router
    guests: Mapping[str, Guest]
    world: World
    mgmt: Management
    beside: Mapping[str, World]


def load(directory: Path) -> Story:
    """Read a story; LabError that names the file if it cannot be read."""
    path = directory / "topology.json"
    try:
        topology = msgspec.json.decode(path.read_bytes(), type=Topology)
        path = directory / "sequence.jsonl"
        steps = [msgspec.json.decode(line, type=Step) for line in path.read_bytes().splitlines()]
    except (OSError, msgspec.DecodeError) as error:
        raise LabError(f"{path}: {error}") from error
    for step in steps:
        if step.script not in (BOOT, UPDATE, BUNDLE):
            raise LabError(f"{path}: step {step.step}: no such script: {step.script}")
    return Story(directory, topology, steps)


def build(lab: Lab, topology: Topology) -> Stage:
    """Make everything that a topology names."""
    world = _world(lab, "world", topology.world)
    beside = {name: _world(lab, name, plan) for name, plan in topology.beside.items()}
    mgmt = lab.mgmt(lab.segment("control"), topology.mgmt)
    guests = {name: lab.guest(name, lab.segment(segment), mac) for name, (segment, mac) in topology.guests.items()}
    for plan in (topology.router, topology.peer):
        if plan is not None:
            lab.router(plan.name, [(lab.segment(segment), mac) for segment, mac in plan.nics])
    return Stage(lab, lab.routers[topology.router.name], guests, world, mgmt, beside)


def _world(lab: Lab, name: str, plan: WorldPlan) -> World:
    gateways = [(lab.segment(segment), gateway) for segment, gateway in plan.gateways.items()]
    world = lab.world(*gateways[0], plan.inside, name)
    for segment, gateway in gateways[1:]:
        world.attach(segment, gateway)
    for network, via in plan.routes.items():
        world.route(network, via)
    return world


def play(story: Story, step: Step, stage: Stage) -> Result:
    """Do one step on its router, which is on, and return how its command ended."""
    router = stage.lab.routers[step.router] if step.router else stage.router
    if step.unplug:
        router.unplug(next(nic for nic, port in router.ports.items() if port.mac == step.unplug))
    if step.plug is not None:
        router.plug(stage.lab.segment(step.plug.segment), step.plug.mac)
    router.send(story.directory / step.file, _BOOT_LINE if step.script == BOOT else step.file)
    if step.script == BOOT:
        return holdfast(router, "boot")
    return router.run(*step.command.split())


def holdfast(router: Router, *arguments: str) -> Result:
    """Run the `holdfast` command in a router."""
    return router.shell([_HOLDFAST, *arguments])
