"""One request of a client, carried out in a child of the agent with the client's own input, output and directory."""

import io
import os
import socket
import sys
import traceback
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import NamedTuple

from holdfast.calls import shown
from holdfast.client import NIC_WAIT

Commands = Mapping[str, Callable[[list[str]], int]]
"""What may be asked for: the functions of `cli` by the names of the commands."""

PATIENCE_S = 5.0
_LONGEST = 1 << 18
_STANDARD = 3
_HANDLES = _STANDARD + 1  # and the directory
_CREDENTIALS = 12  # bytes of a struct ucred, whose first is the process id, see unix(7)
_COMM = 15  # characters of a process's name, see proc(5)


class Request(NamedTuple):
    """`nic_wait` is the caller's HOLDFAST_NIC_WAIT_S, empty if it has none; `handles` its 0, 1, 2 and directory."""

    name: str
    nic_wait: str
    argv: list[str]
    handles: list[int]


def carry_out(caller: socket.socket, commands: Commands) -> int:
    """Receive, do and answer one request; return the exit status.  Without an answer the caller does it itself."""
    try:
        request = received(caller)
        command = commands[request.name]
        _become(request)
    except (OSError, ValueError, KeyError):
        return 1
    code = finished(lambda: command(request.argv))
    with suppress(OSError):  # the caller was killed; what it asked for is done
        caller.send(str(code).encode())
    return code


def received(caller: socket.socket) -> Request:
    """Read what `client.ask` sent: name, wait and arguments, parted by zero bytes.  ValueError if it is not that."""
    caller.settimeout(PATIENCE_S)
    data, handles, flags, _ = socket.recv_fds(caller, _LONGEST, _HANDLES, socket.MSG_CMSG_CLOEXEC)
    caller.settimeout(None)
    name, *words = os.fsdecode(data).split("\0")
    if not words or len(handles) != _HANDLES or flags & (socket.MSG_TRUNC | socket.MSG_CTRUNC):
        raise ValueError("no request")
    return Request(name, words[0], words[1:], handles)


def called(pid: int, caller: socket.socket) -> str:
    """Return what a process that carries a request out was called for, without secrets: as its caller's command line
    tells, who waits for the answer; of one who has gone the name alone, its first fifteen characters.
    """
    name = "unknown"
    with suppress(OSError):
        name = Path(f"/proc/{pid}/comm").read_text("utf-8", "replace").strip()
        asked = int.from_bytes(
            caller.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, _CREDENTIALS)[:4], sys.byteorder
        )
        words = Path(f"/proc/{asked}/cmdline").read_bytes().decode("utf-8", "replace").split("\0")[:-1]
        for at, script in enumerate(Path(word).name for word in words):
            if script[:_COMM] == name:
                return " ".join((script, *shown(script, words[at + 1 :])))
    return name


def _become(request: Request) -> None:
    """Put on the caller's input, output, directory and environment."""
    for number, handle in enumerate(request.handles[:_STANDARD]):
        os.dup2(handle, number)
    os.fchdir(request.handles[_STANDARD])
    for handle in request.handles:
        os.close(handle)
    sys.argv = [request.name, *request.argv]  # the journal names a line by it
    with suppress(OSError):  # and ps(1), and whoever ends it for taking too long
        Path("/proc/self/comm").write_text(request.name, "utf-8", "replace")
    os.environ.pop(NIC_WAIT, None)
    if request.nic_wait:
        os.environ[NIC_WAIT] = request.nic_wait
    # As Python itself makes them: a terminal is told each line at once, anything else all at the end.
    sys.stdin = open(0, encoding="utf-8", errors="surrogateescape", closefd=False)  # noqa: SIM115 it stays open
    sys.stdout = _Output(1, "surrogateescape", at_once=os.isatty(1))
    sys.stderr = _Output(2, "backslashreplace", at_once=True)


class _Output(io.TextIOWrapper):
    """Text for a caller that may have been killed: then nobody hears it, and what it asked for goes on."""

    def __init__(self, handle: int, errors: str, *, at_once: bool) -> None:
        super().__init__(
            io.BufferedWriter(io.FileIO(handle, "w", closefd=False)), "utf-8", errors, line_buffering=at_once
        )

    def write(self, text: str) -> int:
        with suppress(OSError):
            return super().write(text)
        return len(text)

    def flush(self) -> None:
        with suppress(OSError):
            super().flush()


def finished(work: Callable[[], int]) -> int:
    """Do it as a process of its own would, to the exit status; a bug shows itself with its traceback and status 1."""
    try:
        code = work()
    except SystemExit as end:
        code = _status(end.code)
    except BaseException:  # noqa: BLE001 nothing may get back into the agent's loop
        traceback.print_exc()
        code = 1
    sys.stdout.flush()
    sys.stderr.flush()
    return code


def _status(code: Sequence[object] | str | int | None) -> int:
    if isinstance(code, int) or code is None:
        return code or 0
    sys.stderr.write(f"{code}\n")
    return 1
