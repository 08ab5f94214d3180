"""The one place where other programs are started."""

import subprocess
from collections.abc import Sequence
from typing import NamedTuple

TIMEOUT_S = 60


class CommandFailed(OSError):
    """A program ended with an error; the message is what it printed."""


def run(argv: Sequence[str], stdin: str = "", *, timeout_s: float = TIMEOUT_S) -> str:
    """Run a program without a shell and return what it printed; CommandFailed if it did not end with 0."""
    try:
        done = subprocess.run(  # noqa: S603 argv is a list, never a line for a shell
            argv, input=stdin, capture_output=True, text=True, timeout=timeout_s, check=False
        )
    except subprocess.TimeoutExpired as error:
        raise CommandFailed(f"{argv[0]}: no answer within {timeout_s:.0f} s") from error
    if done.returncode:
        said = (done.stderr.strip() or done.stdout.strip() or f"exit status {done.returncode}").replace("\n", "; ")
        raise CommandFailed(f"{' '.join(argv[:4])}: {said}")
    return done.stdout


class Ended(NamedTuple):
    """How a program ended: its exit status (124: it was stopped for taking too long), and what it printed where."""

    code: int
    out: str
    errors: str


STOPPED = 124


def capture(argv: Sequence[str], *, timeout_s: float = TIMEOUT_S) -> Ended:
    """Run a program without a shell, whatever comes of it; OSError if it cannot be started."""
    try:
        done = subprocess.run(argv, capture_output=True, timeout=timeout_s, check=False, stdin=subprocess.DEVNULL)  # noqa: S603 as above
    except subprocess.TimeoutExpired as error:
        said = (error.stderr or b"").decode(errors="replace")
        return Ended(
            STOPPED, (error.stdout or b"").decode(errors="replace"), f"{said}stopped after {timeout_s:.0f} s\n"
        )
    return Ended(done.returncode, done.stdout.decode(errors="replace"), done.stderr.decode(errors="replace"))
