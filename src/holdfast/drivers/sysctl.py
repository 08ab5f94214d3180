"""Kernel parameters, read and written under /proc/sys."""

import os
import socket
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path

from msgspec.structs import replace

from holdfast.converge import Failure
from holdfast.state import Change, Resource, State, Sysctl

PROC = Path("/proc/sys")
_HOST_NAME = "kernel/hostname"
_SWAP = str.maketrans("./", "/.")


def relative_path(name: str) -> str:
    """Path of a parameter below /proc/sys, by sysctl(8)'s rule: the first separator tells what separates.

    `net.ipv4.conf.eth0/10.rp_filter` and `net/ipv4/conf/eth0.10/rp_filter` are the same one.  ValueError for a
    name that leads elsewhere.
    """
    first = next((sign for sign in name if sign in "./"), "/")
    path = name if first == "/" else name.translate(_SWAP)
    if any(part in {"", ".", ".."} for part in path.split("/")):
        raise ValueError(f"not the name of a kernel parameter: {name!r}")
    return path


class Sysctls:
    """Keeps those parameters that somebody claims; no claim, no opinion.

    `whole`: this is a machine, not a network namespace of somebody else's: only then are parameters ours that are not
    of the network.
    """

    kinds: tuple[type[Resource], ...] = (Sysctl,)

    def __init__(self, proc: Path = PROC, *, whole: bool = True) -> None:
        self.proc = proc
        self.whole = whole

    def observe(self, desired: State) -> Iterator[Sysctl]:
        """Read the claimed parameters; one that cannot be read counts as absent."""
        for wanted in desired.values():
            if isinstance(wanted, Sysctl):
                if not (self.whole or relative_path(wanted.name).startswith("net/")):
                    yield wanted
                    continue
                try:
                    text = (self.proc / relative_path(wanted.name)).read_text(errors="replace")
                except (OSError, ValueError):
                    continue
                same = text.split() == wanted.value.split()  # the kernel prints tabs where people type blanks
                yield wanted if same else replace(wanted, value=" ".join(text.split()))

    def check(self, changes: Sequence[Change]) -> Iterator[Failure]:
        """Refuse names that are none."""
        for change in changes:
            if isinstance(change.after, Sysctl):
                try:
                    relative_path(change.after.name)
                except ValueError as error:
                    yield Failure(change.key, str(error))

    def apply(self, changes: Sequence[Change]) -> Iterable[Failure]:
        """Write what differs."""
        failures = []
        for change in changes:
            if isinstance(change.after, Sysctl):
                try:
                    self._write(self.proc / relative_path(change.after.name), change.after.value)
                except FileNotFoundError:
                    failures.append(Failure(change.key, "this kernel has no such parameter"))
                except (OSError, ValueError) as error:
                    reason = error.strerror if isinstance(error, OSError) else None
                    failures.append(Failure(change.key, f"cannot be set to {change.after.value!r}: {reason or error}"))
        return failures

    def _write(self, path: Path, value: str) -> None:
        if path == PROC / _HOST_NAME:
            # The kernel has a call for it, which works in a container as well: there this file is read-only.
            socket.sethostname(value)
            return
        # Never O_CREAT: a parameter that is absent must be an error. One write: the kernel takes it whole or not.
        descriptor = os.open(path, os.O_WRONLY | os.O_TRUNC | os.O_CLOEXEC)
        try:
            os.write(descriptor, value.encode() + b"\n")
        finally:
            os.close(descriptor)
