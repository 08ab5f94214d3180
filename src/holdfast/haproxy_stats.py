"""Asking the running haproxy: its socket, and the script by which management servers ask."""

import socket
import sys
from collections.abc import Sequence
from contextlib import closing

from holdfast.answers.get_haproxy_stats import NoListenerError, average_sessions
from holdfast.haproxy import SOCKET
from holdfast.texts import is_ipv4

TIMEOUT_S = 5.0
MAX_PORT = 65535
USAGE = 2


def ask(command: str, path: str = SOCKET, timeout_s: float = TIMEOUT_S) -> str:
    """Send one command to a socket of haproxy's and return all that it says; OSError if it cannot be asked."""
    with closing(socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)) as line:
        line.settimeout(timeout_s)
        line.connect(path)
        line.sendall(f"{command}\n".encode())
        line.shutdown(socket.SHUT_WR)  # the master would else wait for more, and we for its end
        said = b""
        while part := line.recv(65536):
            said += part
    return said.decode(errors="replace")


def get_haproxy_stats(argv: Sequence[str]) -> int:
    """get_haproxy_stats.sh IP PORT: print one integer and no newline; 1 and a reason if there is none to tell."""
    if len(argv) != 2 or not is_ipv4(argv[0]) or not is_port(argv[1]):  # noqa: PLR2004 address and port
        sys.stderr.write("usage: get_haproxy_stats.sh IP PORT   average sessions of the servers that are up\n")
        return USAGE
    try:
        sys.stdout.write(average_sessions(ask("show stat"), argv[0], int(argv[1])))
    except (NoListenerError, OSError, ValueError) as error:
        sys.stderr.write(f"error: haproxy: {error}\n")
        return 1
    return 0


def is_port(text: str) -> bool:
    """A TCP port as a plain number."""
    return text.isascii() and text.isdigit() and len(text) <= len(str(MAX_PORT)) and 0 < int(text) <= MAX_PORT
