"""Processes that the lab starts: each is known by its id and start time, so that no other is ever ended by mistake."""

import contextlib
import os
import signal
import subprocess
import time
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import IO, NamedTuple

from holdfast.lab.sentence import PAUSE_S, LabError

ENVIRONMENT = {
    "PATH": "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin",
    "HOME": "/root",
    "LANG": "C.UTF-8",
}
"""What programs inside the lab are given, as ssh would: nothing of the caller's own."""

_START = 19  # field 22 of /proc/<pid>/stat, counted behind the name


class Process(NamedTuple):
    """A process id and its start time in clock ticks since boot: together they never mean another process."""

    pid: int
    start: int

    def alive(self) -> bool:
        """Whether it still runs; a process that only waits to be reaped does not."""
        found = look_up(self.pid)
        return found is not None and found == self

    def kill(self, number: signal.Signals = signal.SIGKILL) -> None:
        """Send a signal, if it still is this process."""
        if self.alive():
            with contextlib.suppress(ProcessLookupError):
                os.kill(self.pid, number)


class Result(NamedTuple):
    """How a program ended.  `children`: how many processes it started, where they were counted."""

    code: int
    text: str
    errors: str
    seconds: float
    children: int | None = None


def look_up(pid: int) -> Process | None:
    """Return the running process of this id, None if there is none."""
    try:
        fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    except (FileNotFoundError, ProcessLookupError):
        return None
    return None if fields[0] in "ZX" else Process(pid, int(fields[_START]))


def gone(processes: Iterable[Process], timeout_s: float) -> bool:
    """Wait until none of them runs any more; False if one still does."""
    end = time.monotonic() + timeout_s
    while any(process.alive() for process in processes):
        if time.monotonic() > end:
            return False
        time.sleep(PAUSE_S / 4)
    return True


def start(
    argv: Sequence[str],
    output: Path,
    *,
    environment: Mapping[str, str] | None = None,
    cgroups: Iterable[Path] = (),
) -> subprocess.Popen[bytes]:
    """Start a program in a session of its own and in `cgroups`, output to a file, no input."""

    def enter() -> None:
        for cgroup in cgroups:
            (cgroup / "cgroup.procs").write_text("0")

    with output.open("ab") as log:
        return subprocess.Popen(  # noqa: S603 a list, never a line for a shell
            list(argv),
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=log,
            start_new_session=True,
            env={**ENVIRONMENT, **(environment or {})},
            preexec_fn=enter if cgroups else None,  # noqa: PLW1509 it only writes to files, and takes no lock
        )


def start_piped(argv: Sequence[str], errors: IO[bytes] | int = subprocess.DEVNULL) -> subprocess.Popen[bytes]:
    """Start a program in a session of its own that ends when its input does."""
    return subprocess.Popen(  # noqa: S603 a list, never a line for a shell
        list(argv),
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=errors,
        start_new_session=True,
        env=ENVIRONMENT,
    )


def finish(argv: Sequence[str], *, stdin: bytes | None = None, timeout_s: float = 60) -> Result:
    """Run a program to its end, whatever its exit status; LabError if it takes longer than `timeout_s`."""
    began = time.monotonic()
    try:
        done = subprocess.run(  # noqa: S603 a list, never a line for a shell
            list(argv),
            input=stdin if stdin is not None else b"",
            capture_output=True,
            timeout=timeout_s,
            check=False,
            env=ENVIRONMENT,
        )
    except subprocess.TimeoutExpired as error:
        raise LabError(f"{' '.join(argv)}: no end within {timeout_s:g} s") from error
    text, errors = done.stdout.decode(errors="replace"), done.stderr.decode(errors="replace")
    return Result(done.returncode, text, errors, time.monotonic() - began)


def must(argv: Sequence[str], *, stdin: str = "", timeout_s: float = 60) -> str:
    """Run a program that must succeed and return what it printed; LabError otherwise."""
    done = finish(argv, stdin=stdin.encode(), timeout_s=timeout_s)
    if done.code:
        raise LabError(f"{' '.join(argv)}: exit status {done.code}: {done.errors.strip() or done.text.strip()}")
    return done.text
