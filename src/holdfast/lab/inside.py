"""The resident helper in each host's namespaces: hears requests as JSON lines on a unix socket and answers them."""

import contextlib
import json
import os
import socket
import subprocess
import sys
import threading
from pathlib import Path
from typing import TYPE_CHECKING, Any

from holdfast.lab.inside_dhcp import Dhcp
from holdfast.lab.inside_dns import ask
from holdfast.lab.inside_flow import Flows
from holdfast.lab.inside_net import Net
from holdfast.lab.inside_swarm import boot

if TYPE_CHECKING:
    from collections.abc import Callable

Request = dict[str, Any]


class Helper:
    """Everything that one host can be asked to do."""

    def __init__(self, name: str, home: Path) -> None:
        net, dhcp, flows = Net(name), Dhcp(name, home), Flows()
        self.actions: dict[str, Callable[..., Any]] = {
            "serve": net.serve,
            "reach": net.reach,
            "fetch": net.fetch,
            "ping": net.ping,
            "connect": net.connect,
            "check": net.check,
            "close": net.close,
            "lease": dhcp.lease,
            "renew": dhcp.renew,
            "release": dhcp.release,
            "resolve": lambda **request: ask(dhcp.servers(), **request),
            "flows_start": flows.start,
            "flows_stop": flows.stop,
            "swarm": boot,
        }

    def answer(self, request: Request) -> Request:
        """Do one thing; what goes wrong is an answer too."""
        action = self.actions[request.pop("do")]
        try:
            return {"value": action(**request)}
        except (OSError, ValueError, EOFError) as error:
            return {"failed": f"{type(error).__name__}: {error}" if not str(error) else str(error)}

    def talk(self, caller: socket.socket) -> None:
        """Answer a caller's lines until it hangs up."""
        with caller, caller.makefile("rb") as lines, contextlib.suppress(OSError):
            for line in lines:
                caller.sendall(json.dumps(self.answer(json.loads(line))).encode() + b"\n")


def main() -> None:
    """Run as `main NAME HOME SOCKET stay|go`: with `go` it ends when its input does, that is with its owner."""
    name, home, place, life = sys.argv[1:]
    _own_files(name, Path(home))
    helper = Helper(name, Path(home))
    if life == "go":
        threading.Thread(target=_end_with_owner, daemon=True).start()
    with socket.socket(socket.AF_UNIX) as door:
        door.bind(place + ".new")
        door.listen(64)
        Path(place + ".new").rename(place)  # it appears when it listens
        print("ready", flush=True)  # noqa: T201 the owner waits for this line
        while True:
            caller, _ = door.accept()
            threading.Thread(target=helper.talk, args=(caller,), daemon=True).start()


def _own_files(name: str, home: Path) -> None:
    """Give this host a name, a hosts file and a resolv.conf of its own, seen in its mount namespace alone."""
    socket.sethostname(name)
    (home / "hosts").write_text("127.0.0.1 localhost\n")
    (home / "resolv.conf").write_text("")
    for file in ("hosts", "resolv.conf"):
        if Path("/etc", file).exists():
            subprocess.run(["mount", "--bind", str(home / file), f"/etc/{file}"], check=True)  # noqa: S603, S607 own words


def _end_with_owner() -> None:
    sys.stdin.buffer.read()
    os._exit(0)
