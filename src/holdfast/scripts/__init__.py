"""The scripts that management servers call, beside those that change configuration: each starts fast."""

import errno
import os
import stat
import sys
import syslog
from collections.abc import Sequence
from pathlib import Path

USAGE = 2
"""Exit status of a call with arguments that are none."""
MOST = 16 << 20
"""Bytes of a file that are looked at."""


def words(argv: Sequence[str]) -> list[str]:
    """The arguments; some hypervisors pass the word `null` for none."""
    return [] if list(argv) == ["null"] else list(argv)


def refuse(usage: str) -> int:
    """Say how a script is called, and end with 2."""
    sys.stderr.write(f"usage: {usage}\n")
    return USAGE


def read(path: Path, most: int = MOST) -> bytes:
    """A file's beginning, or its end if `most` is negative; OSError if it is none: a pipe would keep its reader."""
    handle = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
    with open(handle, "rb") as file:  # noqa: PTH123 what is open already
        if not stat.S_ISREG(os.fstat(handle).st_mode):
            raise OSError(errno.EINVAL, "not a file", str(path))
        if most < 0:
            file.seek(max(0, os.fstat(handle).st_size + most))
        return file.read(abs(most))


def note(script: str, text: str) -> None:
    """Tell the journal what is not printed; what is printed is noted by `holdfast.calls`."""
    syslog.syslog(syslog.LOG_WARNING, f"holdfast: {script}: {text}")


def unsaid(text: str) -> None:
    """Print nothing, since any text would be taken for a result: what notes this call has the reason, and its alert."""
    remember = getattr(sys.stderr, "remember", None)
    if remember:
        remember(text)
    else:
        syslog.syslog(syslog.LOG_WARNING, f"holdfast: {text}")


def failed(why: object) -> int:
    """Say why on stderr, and end with 1."""
    sys.stderr.write(f"error: {why}\n")
    return 1
