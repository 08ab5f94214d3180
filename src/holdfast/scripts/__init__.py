"""The scripts that management servers call, beside those that change configuration: each starts fast."""

import sys
import syslog
from collections.abc import Sequence

USAGE = 2
"""Exit status of a call with arguments that are none."""


def words(argv: Sequence[str]) -> list[str]:
    """The arguments; some hypervisors pass the word `null` for none."""
    return [] if list(argv) == ["null"] else list(argv)


def refuse(usage: str) -> int:
    """Say how a script is called, and end with 2."""
    sys.stderr.write(f"usage: {usage}\n")
    return USAGE


def note(script: str, text: str) -> None:
    """Tell the journal: what a failing script prints is lost on its way on KVM."""
    syslog.syslog(syslog.LOG_WARNING, f"holdfast: {script}: {text}")


def failed(script: str, why: object) -> int:
    """Say why on stderr and in the journal, and end with 1."""
    sys.stderr.write(f"error: {why}\n")
    note(script, str(why))
    return 1
