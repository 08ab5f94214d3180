"""A new version takes over: asked first what it would change, switched to in one step, left again if it does not hold.

Every version is a tree of its own, `/opt/holdfast/versions/NAME` with `lib`, `libexec`, `bin`, `parts` and what it has
outside, and is never changed once it is there.  `/opt/holdfast/current` is a link to the one in use; `lib`, `libexec`
and the names of programs lead through it.
"""

import os
import shutil
import sys
from collections.abc import Sequence
from pathlib import Path

import msgspec

from holdfast import __version__, agent, outside
from holdfast.drivers.unit import systemd_runs
from holdfast.errors import Degraded, Failed, HoldfastError, Rejected
from holdfast.lock import locked
from holdfast.meaning import Meaning, differences, meaning, shown
from holdfast.run import capture, run
from holdfast.session import Session

HOME = Path("/opt/holdfast")
COMMAND = "/usr/sbin/holdfast"
VERBS = ("meaning", "check", "switch", "settle")
PAIRED = frozenset({"conntrackd.service", "keepalived.service"})
"""What a router that serves for a pair does not restart under its guests: its peer serves first."""
_TIMEOUT_S = 600.0


def main(argv: Sequence[str]) -> int:
    """`meaning` prints what this tree's version makes of what is stored, `check` compares it with the one in use, and
    `switch` makes this tree the one in use.  `settle` ends what a power cut has broken off: see `holdfast.outside`.

    Rejected for other words; Failed if the version in use stays or is back in use.
    """
    if len(argv) != 1 or argv[0] not in VERBS:
        raise Rejected(f"usage: holdfast-upgrade {'|'.join(VERBS)}")
    mine = Path(__file__).resolve().parents[2]
    if argv[0] == "meaning":
        sys.stdout.write(msgspec.json.encode(told()).decode() + "\n")
    elif argv[0] == "check":
        _say(compared(mine, current(HOME)))
    elif argv[0] == "settle":
        settle(HOME)
    else:
        switch(HOME, mine)
    return 0


def told() -> Meaning:
    """What this version makes of the generation in force on this machine."""
    session = Session(reading=True)  # it looks without the lock
    seen = agent.outlook([], session.store, session.machine)
    return meaning(__version__, agent.current(session.store)[1], seen.wanted, seen.changes)


def ask(tree: Path) -> Meaning:
    """What the version in a tree makes of it, in its own words; Failed if it cannot tell."""
    try:
        answer = run([str(tree / "libexec/holdfast-upgrade"), "meaning"], timeout_s=_TIMEOUT_S)
        return msgspec.json.decode(answer, type=Meaning)
    except (OSError, ValueError) as error:
        raise Failed(f"{tree.name} cannot say what it makes of what is stored: {error}") from error


def compared(mine: Path, old: Path | None) -> list[str]:
    """What the version in `mine` wants otherwise than the one in `old`, a line each; Failed if either cannot tell."""
    if old is None:
        return ["no version is in use yet"]
    lines = differences(ask(old), ask(mine))
    return lines or [f"{mine.name} wants what {old.name} wants"]


def current(home: Path) -> Path | None:
    """The tree in use; None if there is none."""
    link = home / "current"
    return link.resolve() if link.is_dir() else None


def link(home: Path, tree: Path) -> None:
    """Make a tree the one in use: at every instant the one before or this one, and on the disk when this returns."""
    aside = home / ".current.new"
    aside.unlink(missing_ok=True)
    aside.symlink_to(tree.relative_to(home))
    aside.replace(home / "current")
    handle = os.open(home, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def switch(home: Path, mine: Path) -> None:
    """Make `mine` the version in use.  Where services run, nothing may be wrong afterwards that was right before.

    Failed if the version before is still or again in use, Degraded if the way back failed too.
    """
    old = current(home)
    if old is None or not systemd_runs():
        link(home, mine)
        outside.settled(home)  # the package has put there what is its own
        prune(home, {mine, old})
        return
    run(["systemctl", "daemon-reload"])
    if old == mine:
        outside.settled(home)
        return
    before = _known(old)
    try:
        after = ask(mine)
    except Failed:
        _outside(home, old, mine)
        raise
    if before:
        _say(differences(before, after) or [f"{mine.name} wants what {old.name} wants"])
    wrong = _taken_over(home, old, mine, known=before.left if before else after.left)
    if wrong:
        _back(home, old, mine, wrong)
    prune(home, {mine, old})


def _known(old: Path) -> Meaning | None:
    try:
        return ask(old)
    except Failed as error:  # a version that is broken is no reason to keep it
        _say([f"{error}; it is replaced unasked"])
        return None


def _taken_over(home: Path, old: Path, mine: Path, *, known: Sequence[str]) -> str:
    """Switch, restart what has changed and converge; say what went wrong, empty if nothing did."""
    try:
        with locked():  # no command runs half by one version and half by the other
            outside.unsettle(home)
            link(home, mine)
            _outside(home, mine, old)  # there already, unless the way back has taken it away
        _restart(old, mine)
        run([COMMAND, "converge"], timeout_s=_TIMEOUT_S)
        return "; ".join(f"{key} is not as wanted" for key in ask(mine).left if key not in known)
    except (HoldfastError, OSError) as error:
        return str(error)


def _back(home: Path, old: Path, mine: Path, wrong: str) -> None:
    try:
        with locked():
            outside.unsettle(home)
            link(home, old)
            _outside(home, old, mine)
        _restart(mine, old)
        run([COMMAND, "converge"], timeout_s=_TIMEOUT_S)
    except (HoldfastError, OSError) as error:
        raise Degraded(f"{mine.name}: {wrong}; the way back to {old.name} failed too: {error}") from error
    raise Failed(f"{mine.name}: {wrong}; {old.name} is in use again")


def _outside(home: Path, tree: Path, other: Path) -> None:
    """Put at their places what the version in `tree` has outside it, and end what only the one in `other` had."""
    gone = outside.units_gone(tree, other)
    if gone:
        run(["systemctl", "stop", "--", *gone])
    if outside.put(home.parents[1], tree, other):
        run(["systemctl", "daemon-reload"])
    outside.settled(home)


def settle(home: Path) -> None:
    """Put units and the like of the version in use where they belong, at a boot after a power cut amid an upgrade."""
    tree = current(home)
    if tree and outside.settle(home.parents[1], home, tree):
        run(["systemctl", "daemon-reload"])
        _say([f"an upgrade was broken off: {tree.name} is whole again"])


def _restart(before: Path, after: Path) -> None:
    units = changed(_parts(before), _parts(after))
    if units:
        _say([f"restarting if it runs: {unit}" for unit in units])
        if PAIRED.intersection(units):
            # While the agent knows its peer, and before connections are told anew: else some of them are lost.
            capture([COMMAND, "handover"], timeout_s=_TIMEOUT_S)  # a router that serves alone goes on
        for unit in units:  # one after the other, in the order in which they are written down
            run(["systemctl", "try-restart", "--", unit], timeout_s=_TIMEOUT_S)


def changed(before: str, after: str) -> list[str]:
    """Units whose digest is another one, from two lists of `DIGEST UNIT` lines, in the order of the second."""
    known = set(before.splitlines())
    return [line.split()[1] for line in after.splitlines() if line not in known]


def _parts(tree: Path) -> str:
    return (tree / "parts").read_text()


def prune(home: Path, kept: set[Path | None]) -> None:
    """Remove trees that are neither in use nor the way back."""
    for tree in (home / "versions").iterdir():
        if tree not in kept:
            shutil.rmtree(tree, ignore_errors=True)


def _say(lines: list[str]) -> None:
    sys.stdout.write("".join(f"{line}\n" for line in shown(lines)))
