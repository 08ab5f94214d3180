"""A command on a router is killed at any moment of its run, on machines whose pace is not known beforehand."""

import random

from holdfast.lab.process import Result
from holdfast.lab.router import Router

_START = 'cd /; "$1" "$2" & pid=$!; sleep "$3"; kill -9 $pid 2>/dev/null; wait $pid'
_KILLED = 137
_FARTHER, _NEARER = 1.05, 0.8  # where four of five come before the end, neither wins


class Killer:
    """Kills runs of one kind, each at a moment drawn up to its reach.

    A kill that comes after the end tries nothing, and how long a run takes differs from machine to machine and from
    one to the next: each that comes too late draws the reach in, each that does not lets it out.
    """

    def __init__(self, dice: random.Random, lasts_s: float) -> None:
        self._dice, self._reach_s = dice, lasts_s
        self.moment_s = 0.0

    def kill(self, router: Router, file: str) -> bool:
        """Start `update_config.py` with that file and kill it, or wait for its end; whether the kill came before it."""
        self.moment_s = self._dice.uniform(0, self._reach_s)
        argv = ["sh", "-c", _START, "kill", "/opt/cloud/bin/update_config.py", file, f"{self.moment_s:.4f}"]
        done: Result = router.shell(argv)
        assert done.code in (0, _KILLED), f"{file}: {done.code}: {done.text}{done.errors}"
        hit = done.code == _KILLED
        self._reach_s *= _FARTHER if hit else _NEARER
        return hit
