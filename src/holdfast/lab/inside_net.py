"""Inside a host: servers that say whom they see, and clients that try to reach them."""

import contextlib
import http.client
import itertools
import socket
import struct
import subprocess
import threading
import time
from collections.abc import Callable

_HTTP = (b"GET ", b"HEAD ", b"POST ")
_IP_PKTINFO = 8
_ATTEMPT_S = 1.0
_UDP_AGAIN_S = 0.15
_RETRY_PAUSE_S = 0.03

Answer = tuple[str, str, int]
"""What a server said, and the address and port from which the client had asked."""


class Net:
    """One host's servers and its open connections."""

    def __init__(self, name: str) -> None:
        self.name = name
        self._served: set[tuple[str, int]] = set()
        self._lock = threading.Lock()
        self._numbers = itertools.count(1)
        self._open: dict[int, socket.socket] = {}

    def serve(self, port: int, proto: str = "tcp") -> None:
        """Listen on every address; again is no error."""
        with self._lock:
            if (proto, port) in self._served:
                return
            server = socket.socket(socket.AF_INET, socket.SOCK_STREAM if proto == "tcp" else socket.SOCK_DGRAM)
            server.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            if proto == "udp":
                server.setsockopt(socket.IPPROTO_IP, _IP_PKTINFO, 1)
            server.bind(("", port))
            if proto == "tcp":
                server.listen(64)
            self._served.add((proto, port))
        loop = self._accept if proto == "tcp" else self._datagrams
        threading.Thread(target=loop, args=(server,), daemon=True).start()

    def _accept(self, server: socket.socket) -> None:
        while True:
            caller, peer = server.accept()
            threading.Thread(target=self._talk, args=(caller, peer), daemon=True).start()

    def _talk(self, caller: socket.socket, peer: tuple[str, int]) -> None:
        line = self._line(peer)
        with caller, caller.makefile("rb") as asked, contextlib.suppress(OSError):
            for text in asked:
                if text.startswith(_HTTP):
                    while asked.readline().strip():
                        pass
                    head = f"HTTP/1.0 200 OK\r\nContent-Type: text/plain\r\nContent-Length: {len(line)}\r\n\r\n"
                    caller.sendall(head.encode() + line)
                    return
                caller.sendall(line)

    def _datagrams(self, server: socket.socket) -> None:
        while True:
            _, ancillary, _, peer = server.recvmsg(2048, 64)
            # Answer from the address that was asked: this host may have several.
            packed = [data for level, kind, data in ancillary if (level, kind) == (socket.IPPROTO_IP, _IP_PKTINFO)]
            asked = [
                (socket.IPPROTO_IP, _IP_PKTINFO, struct.pack("=I4s4s", 0, data[4:8], b"\0" * 4)) for data in packed
            ]
            with contextlib.suppress(OSError):
                server.sendmsg([self._line(peer)], asked, 0, peer)

    def _line(self, peer: tuple[str, int]) -> bytes:
        return f"{self.name} {peer[0]}:{peer[1]}\n".encode()

    def reach(  # noqa: PLR0913, PLR0917 one question, all of it named
        self, address: str, port: int, proto: str, source: str, source_port: int, timeout_s: float, *, once: bool
    ) -> str:
        """Return what the server at an address says; OSError if nothing came in time.  `once`: do not try again."""

        def attempt(limit_s: float) -> str:
            ask = _ask_tcp if proto == "tcp" else _ask_udp
            return ask((address, port), (source, source_port), limit_s)

        return attempt(timeout_s) if once else _until(attempt, timeout_s)

    def fetch(  # noqa: PLR0913 a question with all that it says
        self, address: str, port: int, path: str, *, source: str, timeout_s: float, headers: dict[str, str]
    ) -> str:
        """Return the body of a page; OSError if it could not be had in time."""

        def attempt(limit_s: float) -> str:
            client = http.client.HTTPConnection(address, port, limit_s, source_address=(source, 0) if source else None)
            try:
                client.request("GET", path, headers=headers)
                answer = client.getresponse()
                body = answer.read().decode(errors="replace")
            except http.client.HTTPException as error:
                raise OSError(f"no HTTP answer: {error!r}") from error
            finally:
                client.close()
            if answer.status != http.client.OK:
                raise OSError(f"HTTP status {answer.status}: {body[:200]}")
            return body

        return _until(attempt, timeout_s)

    def ping(self, address: str, timeout_s: float, *, once: bool) -> str:
        """Return what ping printed; OSError if no answer came in time."""

        def attempt(limit_s: float) -> str:
            argv = ["ping", "-n", "-c", "1", "-W", f"{max(limit_s, 0.1):.2f}", address]
            done = subprocess.run(argv, capture_output=True, text=True, check=False)  # noqa: S603 own words and an address
            if done.returncode:
                raise OSError(done.stderr.strip() or "no answer")
            return done.stdout

        return attempt(timeout_s) if once else _until(attempt, timeout_s)

    def connect(self, address: str, port: int, proto: str, source: str, timeout_s: float) -> tuple[int, str]:
        """Open a connection that stays, prove it, and return its number and the first answer."""
        kind = socket.SOCK_STREAM if proto == "tcp" else socket.SOCK_DGRAM
        opened = socket.socket(socket.AF_INET, kind)
        opened.settimeout(timeout_s)
        if source:
            opened.bind((source, 0))
        opened.connect((address, port))
        number = next(self._numbers)
        self._open[number] = opened
        return number, self.check(number, timeout_s)

    def check(self, number: int, timeout_s: float) -> str:
        """Ask over an open connection and return the answer; OSError if none came in time."""
        opened = self._open[number]
        opened.settimeout(timeout_s)
        opened.send(b"still there?\n")
        return _said(opened.recv(2048))

    def close(self, number: int) -> None:
        """Close a connection."""
        self._open.pop(number).close()


def _until(attempt: Callable[[float], str], timeout_s: float) -> str:
    """Try again until it works; the last error if time runs out."""
    end = time.monotonic() + timeout_s
    while True:
        try:
            return attempt(min(_ATTEMPT_S, max(0.05, end - time.monotonic())))
        except OSError:
            if time.monotonic() + _RETRY_PAUSE_S > end:
                raise
            time.sleep(_RETRY_PAUSE_S)


def _ask_tcp(target: tuple[str, int], source: tuple[str, int], limit_s: float) -> str:
    with socket.socket(socket.AF_INET, socket.SOCK_STREAM) as client:
        client.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        client.settimeout(limit_s)
        if any(source):
            client.bind(source)
        client.connect(target)
        client.sendall(b"who am I?\n")
        return _said(client.recv(2048))


def _ask_udp(target: tuple[str, int], source: tuple[str, int], limit_s: float) -> str:
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as client:
        if any(source):
            client.bind(source)
        client.connect(target)
        end = time.monotonic() + limit_s
        # Twice, so that one datagram lost on a busy machine is not taken for a refusal.
        for pause in (min(_UDP_AGAIN_S, limit_s / 2), limit_s):
            client.settimeout(max(0.01, min(pause, end - time.monotonic())))
            client.send(b"who am I?\n")
            with contextlib.suppress(TimeoutError):
                return _said(client.recv(2048))
    raise TimeoutError("timed out")


def _said(data: bytes) -> str:
    if not data:
        raise EOFError("the other side hung up without an answer")
    return data.decode(errors="replace")
