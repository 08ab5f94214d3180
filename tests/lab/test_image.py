"""The router's image: booted by a real systemd, told whole stories over ssh, rebooted, killed, and back each time."""

import importlib
import itertools
import json
import os
import random
import re
import threading
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import NamedTuple

import pytest
from image_server import Conversation, Server, named
from recorded import Step, story
from replay import NICS, Nics, Site, egress_default, firewall, forward, forwards, ingress, ips, said, site

from holdfast.lab import image
from holdfast.lab.guest import Guest
from holdfast.lab.process import Result
from holdfast.lab.sentence import eventually
from holdfast.lab.world import World
from holdfast.store import Store

pytestmark = [pytest.mark.lab, pytest.mark.appliance]

ROOT = Path(__file__).resolve().parents[2]
KILLS = 20 if os.environ.get("HOLDFAST_SOAK") == "1" else 3
LONGEST_S = 3.0
BUILT_S = 1700000000  # the same for all that a run builds, whatever was committed last
CONTROL, VPC_CONTROL = "169.254.216.73", "169.254.88.20"
VPC_NICS: Nics = (("control", "0e:00:a9:fe:58:14"),)
VPC_PUBLIC, VPC_APP = "1e:00:8f:00:05:11", "02:00:6e:02:00:14"
INSIDE = "192.0.2.10"
_OPENED = re.compile(r"203\.0\.113\.11 \. 6 \. 0\.0\.0\.0/0 \. (7\d\d\d)")
REFUSED = {
    "cks_iso.sh": "there is no drive",
    "keystore-cert-import": "the recording has words that stand for certificates",
}
"""Scripts of the stories that may fail, and why."""
EXPLAINED: Sequence[str] = ()
"""Parts of journal lines of priority err and worse that a container's boot may have."""


class Told(NamedTuple):
    """A router that stands on the image, its server, and who sends packets through it: guest, world, and the public
    address and port that lead to the guest.
    """

    site: Site
    server: Server
    guest: Guest
    world: World
    public: tuple[str, int]


@pytest.fixture(scope="module")
def top() -> Path:
    """The image's root file system."""
    with pytest.MonkeyPatch.context() as patch:
        patch.syspath_prepend(str(ROOT / "packaging"))
        build, control = importlib.import_module("build"), importlib.import_module("control")
        maker = importlib.import_module("image")
        package = control.Package(maker.ARCHITECTURE, control.version())
        deb = build.build(package, image.cache() / "machine" / "deb", BUILT_S)
        made: Path = maker.root(deb, maker.Recipe(built_s=BUILT_S))
        return made


@contextmanager
def machine(name: str, nics: Nics, top: Path, home: Path) -> Iterator[Site]:
    """A router that is off, with the image on its disk and nothing else."""
    nothing = home / "nothing"
    nothing.mkdir()
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(image, "base", lambda: top)
        patch.setattr(image, "install", lambda: nothing)
        with site(name, nics) as made:
            yield made


def switched_on(made: Site, server: Server, steps: Sequence[Step]) -> list[Step]:
    """Give it the story's first boot line as a hypervisor does, and its power; the steps up to the next one."""
    first, second = [index for index, step in enumerate(steps) if step.boot_line][:2]
    line = steps[first].boot_line
    assert line
    made.router.write("/var/cache/cloud/cmdline", server.line(line.read_text()), mode=0o666)
    made.router.boot()
    well(made)
    return [step for step in steps[first + 1 : second] if not any(event[1] == "bootArgs.txt" for event in step.events)]


def well(made: Site) -> None:
    """It is up, nothing is left to do, and nothing is red since this boot, logins and commands among it."""
    running = made.router.shell(["systemctl", "is-system-running", "--wait"], timeout_s=60)
    failed = made.router.shell(["systemctl", "--failed", "--no-legend", "--plain"]).text
    assert (running.text.strip(), failed) == ("running", ""), made.router.journal(60)
    assert made.plan()["changes"] == [], made.router.journal(60)
    red = made.router.shell(["journalctl", "--boot", "--priority=err", "--no-pager", "--quiet", "--output=short"])
    assert red.code == 0, said(red)
    assert [line for line in red.text.splitlines() if not any(part in line for part in EXPLAINED)] == []
    assert "\033[0;1;31m" not in made.router.container.console()
    assert Store(made.path("/etc/cloudstack")).damage == []


def flows(told: Told) -> None:
    """Packets go out of the guest's network, and from the world to the guest."""
    assert told.guest.reaches(INSIDE, 9000, timeout_s=15).name == told.world.name
    assert told.world.reaches(told.public[0], told.public[1], timeout_s=15).name == told.guest.name


@pytest.fixture(scope="module")
def isolated(top: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Told]:
    home = tmp_path_factory.mktemp("isolated")
    with machine("image", NICS, top, home) as made:
        lab = made.lab
        server = Server(lab.mgmt(lab.segment("control"), "169.254.0.1/16"), CONTROL, home)
        world = lab.world(lab.segment("public"), "203.0.113.1/24", INSIDE)
        guest = lab.guest("web1", lab.segment("guest"), "02:00:4c:5e:00:01")
        conversation = Conversation(made, server)
        for step in switched_on(made, server, story("4.22", "S1")):
            conversation.play(step)
        assert conversation.commands > 30
        answered(conversation)
        well(made)
        told = Told(made, server, guest, world, ("203.0.113.12", 2222))
        opened = ingress(9, 2222) | {"src_ip": told.public[0]}
        served(
            told,
            ips("203.0.113.10", "203.0.113.11", told.public[0]),
            firewall(egress_default(), opened),
            forwards(forward(2222, "10.1.1.11", 22)),
        )
        yield told


def answered(conversation: Conversation) -> None:
    """Scripts that take no message in end well, but for those that are known not to."""
    failed = [f"{what}: {said(done)}" for what, done in conversation.answers if done.code]
    print(f"{conversation.commands} commands; scripts that failed:", *failed, sep="\n  ")  # noqa: T201 what was answered
    assert len(conversation.answers) > 3
    assert [line for line in failed if not any(f" {script} " in line for script in REFUSED)] == []


def served(told: Told, *messages: dict[str, object]) -> None:
    """Send what lets packets through, and see them come."""
    for number, message in enumerate(messages):
        done = told.server.tell(json.dumps(message).encode(), named(message, number))
        assert done.code == 0, said(done)
    told.guest.gets_lease()
    told.guest.serve(22)
    told.world.serve(9000)
    flows(told)


def test_it_comes_back_from_a_reboot_of_its_own_as_it_was(isolated: Told) -> None:
    lived = isolated.site.state()

    isolated.site.router.reboot()

    well(isolated.site)
    assert isolated.site.state() == lived
    flows(isolated)


class Sent(NamedTuple):
    """A command that was given: the port that it opens, and how it ended; None while it runs."""

    port: int
    done: Result | None


@contextmanager
def commands(told: Told, ports: Iterator[int]) -> Iterator[list[Sent]]:
    """Commands one after the other, each opens a port; what came of them."""
    sent: list[Sent] = []
    over = threading.Event()

    def give() -> None:
        while not over.is_set():
            port = next(ports)
            sent.append(Sent(port, None))
            message = firewall(ingress(port, port))
            sent[-1] = Sent(port, told.server.tell(json.dumps(message).encode(), named(message, port)))

    giver = threading.Thread(target=give)
    giver.start()
    try:
        yield sent
    finally:
        over.set()
        giver.join()


def test_killed_at_any_moment_it_comes_back_whole_and_packets_flow(isolated: Told) -> None:
    seed = int(os.environ.get("HOLDFAST_SEED") or random.SystemRandom().randrange(1 << 32))
    print(f"HOLDFAST_SEED={seed}")  # noqa: T201 a failure is repeated with it
    dice = random.Random(seed)  # noqa: S311 moments, not secrets
    ports = itertools.count(7000)
    taken, given = set[int](), 0
    for number in range(KILLS):
        # The first comes after an answer: what was promised is to be there, and a machine may be slow to promise.
        moment = dice.uniform(0, LONGEST_S)
        with commands(isolated, ports) as sent:
            if number == 0:
                eventually(lambda: any(one.done for one in sent), "a command is answered", 60)
            time.sleep(moment)
            isolated.site.router.power_cut()
            unfinished = [one.port for one in sent if one.done is None]
        isolated.site.router.boot()
        well(isolated.site)
        where = f"kill {number} after {moment:.3f} s"
        taken |= {one.port for one in sent if one.port not in unfinished and one.done and one.done.code == 0}
        there = opened(isolated.site)
        assert taken <= there, where
        assert there - taken <= {one.port for one in sent if not one.done or one.done.code}, where
        taken, given = there, given + len(sent)
        flows(isolated)
    print(f"{KILLS} kills, {given} commands, {len(taken)} of them in")  # noqa: T201 what was tried
    assert taken


def opened(made: Site) -> set[int]:
    """Ports that commands have opened, as the firewall has them."""
    return {int(port) for port in _OPENED.findall(made.holds("ingress_port"))}


def test_a_vpc_lives_on_it_too(top: Path, tmp_path: Path) -> None:
    with machine("imagevpc", VPC_NICS, top, tmp_path) as made:
        lab = made.lab
        server = Server(lab.mgmt(lab.segment("control"), "169.254.0.1/16"), VPC_CONTROL, tmp_path)
        conversation = Conversation(made, server)
        for step in switched_on(made, server, story("4.22", "S2")):
            conversation.play(step)
        assert conversation.commands > 45
        answered(conversation)
        well(made)
        world = lab.world(conversation.segment(VPC_PUBLIC), "203.0.113.1/24", INSIDE)
        guest = lab.guest("app1", conversation.segment(VPC_APP), "02:00:71:20:00:01")
        told = Told(made, server, guest, world, ("203.0.113.51", 2222))
        rule = forward(2222, "10.10.2.21", 22) | {"source_ip_address": told.public[0]}
        served(told, forwards(rule))
        lived = made.state()

        made.router.reboot()
        well(made)
        assert made.state() == lived
        flows(told)

        made.router.power_cut()
        made.router.boot()
        well(made)
        assert made.state() == lived
        flows(told)
