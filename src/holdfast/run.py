"""The one place where other programs are started."""

import os
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


class Begun:
    """A program, started without a shell, for one who cannot wait for it; OSError if it cannot be started."""

    def __init__(self, argv: Sequence[str]) -> None:
        self._process = subprocess.Popen(  # noqa: S603 as above
            argv, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL
        )

    def fileno(self) -> int:
        """Return where it prints to: whoever reads the end there has read all."""
        assert self._process.stdout is not None  # noqa: S101 it was asked for
        return self._process.stdout.fileno()

    def end(self) -> None:
        """End it, whether it has ended by itself or not."""
        with self._process:  # closes the pipe, and waits: no longer than a kill takes
            self._process.kill()

    def let_go(self) -> None:
        """Hear it no more, as a child of the one that began it."""
        os.close(self.fileno())


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
