"""What `holdfast lab` does: a lab that stays up after the command that made it."""

import os
import subprocess
import sys
from collections.abc import Sequence

from holdfast.lab.lab import Lab
from holdfast.lab.ledger import ROOT, Ledger, sweep
from holdfast.lab.process import ENVIRONMENT, Process
from holdfast.lab.sentence import LabError

_ROUTER_NICS = (("guest", "02:00:00:00:00:01"), ("control", "02:00:00:00:00:02"), ("public", "02:00:00:00:00:03"))


def up(name: str) -> None:
    """Make the usual lab: a router that is on and not configured, two guests, the world, the management side."""
    lab = Lab(name, stay=True)
    try:
        segments = {segment: lab.segment(segment) for segment, _ in _ROUTER_NICS}
        lab.world(segments["public"], "203.0.113.1/24", ("192.0.2.10",)).serve(80)
        lab.mgmt(segments["control"])
        for number in (1, 2):
            lab.guest(f"web{number}", segments["guest"], f"02:00:00:00:01:0{number}")
        router = lab.router("r1", [(segments[segment], mac) for segment, mac in _ROUTER_NICS])
        router.boot()
        for host in lab.hosts.values():
            assert host.process  # noqa: S101 waits until it is ready
    except BaseException:
        lab.remove()
        raise
    print(f"{name}: {', '.join([*lab.routers, *lab.hosts])}")  # noqa: T201 a command's answer


def run(name: str, host: str, argv: Sequence[str]) -> int:
    """Run a program in a host or router, with this terminal; return its exit status."""
    inside = ["nsenter", f"--target={_find(name, host).pid}", "--mount", "--uts", "--ipc", "--net", "--pid", "--"]
    environment = {**ENVIRONMENT, "TERM": os.environ.get("TERM", "dumb")}
    return subprocess.run([*inside, *argv], env=environment, check=False).returncode  # noqa: S603 the caller's own words


def shell(name: str, host: str) -> int:
    """Open a shell in a host or router."""
    return run(name, host, ["/bin/bash", "--norc"] if sys.stdin.isatty() else ["/bin/sh"])


def down(name: str) -> None:
    """Remove a lab; LabError if there is none of this name."""
    ledger = Ledger(ROOT / name)
    if not ledger.directory.is_dir():
        raise LabError(f"there is no lab named {name}: {', '.join(names()) or 'none is up'}")
    ledger.remove()


def names() -> tuple[str, ...]:
    """Return the names of all labs that are up, after removing what dead ones left."""
    sweep()
    return tuple(sorted(path.name for path in ROOT.iterdir())) if ROOT.is_dir() else ()


def list() -> None:  # noqa: A001 the verb's name
    """Print each lab and its hosts."""
    for name in names():
        hosts = {thing["name"]: None for thing in Ledger(ROOT / name).things("host")}
        print(f"{name}: {', '.join(hosts)}")  # noqa: T201 a command's answer


def _find(name: str, host: str) -> Process:
    for thing in reversed([*Ledger(ROOT / name).things("host")]):
        process = Process(int(thing["pid"]), int(thing["start"]))
        if thing["name"] == host and process.alive():
            return process
    raise LabError(f"lab {name} has no {host} that runs")
