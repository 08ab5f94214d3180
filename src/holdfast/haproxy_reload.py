"""Reloading haproxy so that success is seen: the new worker itself says which text it has read."""

import os
import re
import signal
import socket
import sys
import time
from collections.abc import Iterator, Sequence
from contextlib import closing
from pathlib import Path
from typing import NamedTuple

from holdfast.haproxy import DIGEST, MASTER
from holdfast.haproxy_stats import ask

CONFIGURATION = Path("/etc/haproxy/haproxy.cfg")
WAIT_S = 20.0
PAUSE_S = 0.01
USAGE = 2
_WRITTEN = re.compile(rf"^\s*setenv {DIGEST} (\S+)$", re.MULTILINE)
_READ = re.compile(rf"^{DIGEST}=(\S+)$", re.MULTILINE)
_PID = re.compile(r"^Pid: (\d+)$", re.MULTILINE)
_BIND = re.compile(r"^\s*bind\s+(\S+)", re.MULTILINE)
_PLACE = re.compile(r"([0-9.]+|\*|):([0-9]+)")
_FAILED = re.compile(r"\[failed: (\d+)\]")


class Worker(NamedTuple):
    """Who answers now, by process id, and the digest of the text that it has read; empty if nobody answers."""

    pid: str = ""
    digest: str = ""


def worker() -> Worker:
    """Ask the worker: both in one question, so that one worker answers both."""
    try:
        said = ask(f"show info;show env {DIGEST}", timeout_s=1)
    except OSError:
        return Worker()
    pid, digest = _PID.search(said), _READ.search(said)
    return Worker(pid[1] if pid else "", digest[1] if digest else "")


def failures() -> int:
    """How many reloads in a row have failed, as the master counts them; 0 while it cannot be asked."""
    try:
        count = _FAILED.search(ask("show proc", MASTER, timeout_s=1))
    except OSError:
        return 0
    return int(count[1]) if count else 0


def taken(text: str) -> Iterator[str]:
    """Which IPv4 addresses and ports of a text cannot be bound because they are another program's.

    The new worker would find out too, but only after it has silenced the old one for 4 s of trying.
    """
    for place in dict.fromkeys(part for bind in _BIND.findall(text) for part in bind.split(",")):
        found = _PLACE.fullmatch(place)
        if not found:
            continue
        with closing(socket.socket(socket.AF_INET, socket.SOCK_STREAM)) as trial:
            # As haproxy does: what it holds itself can be shared with it, and nothing arrives where nobody listens.
            trial.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            trial.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
            try:
                trial.bind(("" if found[1] == "*" else found[1], int(found[2])))
            except (OSError, OverflowError) as error:
                yield f"{place}: {error}"


def main(argv: Sequence[str]) -> int:
    """PID of the master: signal it and wait until a new worker has read the text; 1 and a reason if none has."""
    if len(argv) != 1 or not argv[0].isdigit():
        sys.stderr.write("usage: holdfast-haproxy-reload PID   pid of haproxy's master\n")
        return USAGE
    text = CONFIGURATION.read_text()
    if others := list(taken(text)):
        sys.stderr.write(f"haproxy: cannot listen at {'; '.join(others)}\n")
        return 1
    written = _WRITTEN.search(text)
    before, failed = worker(), failures()
    os.kill(int(argv[0]), signal.SIGUSR2)
    if written is None:
        return 0  # another hand's text: nobody in there could be asked
    end = time.monotonic() + WAIT_S
    while time.monotonic() < end:
        now = worker()
        if now.pid != before.pid and now.digest == written[1]:
            return 0
        # Only an answer of the old worker tells that none has come yet, so that the master is worth a question.
        if now == before and failures() > failed:
            sys.stderr.write("haproxy: no worker could start with the new text; the old one serves on\n")
            return 1
        time.sleep(PAUSE_S)
    sys.stderr.write(f"haproxy: no worker has read the new text within {WAIT_S:.0f} s\n")
    return 1


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
