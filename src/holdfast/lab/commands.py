"""What `holdfast lab` does: a lab that stays up after the command that made it."""

import argparse
import os
import subprocess
import sys
from collections.abc import Callable, Sequence

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


_VERBS: dict[str, Callable[..., int | None]] = {"up": up, "run": run, "shell": shell, "down": down, "list": list}


def main(argv: Sequence[str]) -> int:
    """Run `holdfast lab VERB …` and return its exit status."""
    top = argparse.ArgumentParser(prog="holdfast lab", description="A lab that stays up until it is taken down.")
    verbs = top.add_subparsers(required=True, dest="verb", metavar="VERB")
    for verb, text, places in (
        ("up", "make a lab: a router, two guests, the world, the management side", ("name",)),
        ("run", "run a program in a host or router", ("name", "host")),
        ("shell", "open a shell in a host or router", ("name", "host")),
        ("down", "remove a lab", ("name",)),
        ("list", "name the labs that are up, and their hosts", ()),
    ):
        parser = verbs.add_parser(verb, help=text, description=text)
        for place in places:
            parser.add_argument(place, metavar=place.upper())
        if verb == "run":
            parser.add_argument("argv", nargs=argparse.REMAINDER, metavar="-- ARGV")
    options = vars(top.parse_args(argv))
    action = _VERBS[options.pop("verb")]
    if "argv" in options:
        options["argv"] = options["argv"][options["argv"][:1] == ["--"] :]
    try:
        return action(**options) or 0
    except LabError as error:
        print(f"error: {error}", file=sys.stderr)  # noqa: T201 a command's answer
        return 2
