"""What systemd hands over, listening sockets, and what it wants to hear."""

import os
import socket
from collections.abc import Mapping

_FIRST = 3


def inherited(environment: Mapping[str, str]) -> dict[int, socket.socket]:
    """Listening sockets by their port; empty if systemd did not start this process."""
    if environment.get("LISTEN_PID") != str(os.getpid()):
        return {}
    sockets = [socket.socket(fileno=_FIRST + i) for i in range(int(environment.get("LISTEN_FDS", "0")))]
    # By port, since sockets of one unit share one name.
    return {listener.getsockname()[1]: listener for listener in sockets}


def notify(environment: Mapping[str, str], state: str) -> None:
    """Tell systemd, if it listens, as `READY=1`; OSError if it does not take it."""
    address = environment.get("NOTIFY_SOCKET", "")
    if address:
        with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM | socket.SOCK_CLOEXEC) as channel:
            channel.connect(f"\0{address[1:]}" if address.startswith("@") else address)
            channel.send(state.encode())
