"""A download between two hosts that takes its time: whatever happens meanwhile, every byte has to arrive."""

import hashlib
import http.client
import socket
import threading
import time
from typing import NamedTuple, Self

from holdfast.lab.host import Host
from holdfast.lab.sentence import LabError
from holdfast.machine import enter_network

_PIECE = 16_384
_READY_S = 5.0
_PATIENCE_S = 30.0


class Downloaded(NamedTuple):
    """Bytes that came, of how many, whether they are the right ones, the longest time without any, and what went wrong.

    Seconds; `why` is empty if nothing did.
    """

    came: int
    size: int
    whole: bool
    stall_s: float
    why: str


class Download:
    """One HTTP download, in a `with`: it begins there, and `result` waits for its end.

    `server` is asked by `client` at `address`:`port` and sends `rate` bytes a second for `seconds`.
    """

    def __init__(  # noqa: PLR0913 both ends
        self, server: Host, client: Host, address: str, port: int, *, seconds: float = 10, rate: int = 2_000_000
    ) -> None:
        self.size = int(seconds * rate) // _PIECE * _PIECE
        self._server, self._client, self._where = server, client, (address, port)
        self._pause_s = _PIECE / rate
        self._listens = threading.Event()
        self._threads = [threading.Thread(target=end, daemon=True) for end in (self._serve, self._fetch)]
        self._sent, self._received = hashlib.sha256(), hashlib.sha256()
        self._came, self._stall_s, self._why = 0, 0.0, ""

    def __enter__(self) -> Self:
        self._threads[0].start()
        if not self._listens.wait(_READY_S):
            raise LabError(f"{self._server.name} does not listen at port {self._where[1]}")
        self._threads[1].start()
        return self

    def __exit__(self, *_: object) -> None:
        for thread in self._threads:
            thread.join(_PATIENCE_S)

    @property
    def came(self) -> int:
        """How many bytes have arrived by now."""
        return self._came

    def result(self) -> Downloaded:
        """Wait for its end, or until nothing has come for half a minute."""
        for thread in self._threads:
            thread.join(self.size / _PIECE * self._pause_s + _PATIENCE_S)
        whole = self._came == self.size and self._sent.digest() == self._received.digest()
        return Downloaded(self._came, self.size, whole, self._stall_s, self._why)

    def _serve(self) -> None:
        enter_network(self._server.namespace)
        with socket.create_server(("", self._where[1])) as listener:
            listener.settimeout(_PATIENCE_S)
            self._listens.set()
            try:
                self._answer(listener.accept()[0])
            except OSError as error:
                self._why = f"{self._server.name}: {error}"

    def _answer(self, asked: socket.socket) -> None:
        with asked:
            asked.settimeout(_PATIENCE_S)
            asked.recv(4096)
            asked.sendall(b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\nConnection: close\r\n\r\n" % self.size)
            due = time.monotonic()
            for number in range(self.size // _PIECE):
                piece = number.to_bytes(8, "big") * (_PIECE // 8)
                self._sent.update(piece)
                asked.sendall(piece)
                due += self._pause_s
                time.sleep(max(0.0, due - time.monotonic()))

    def _fetch(self) -> None:
        enter_network(self._client.namespace)
        connection = http.client.HTTPConnection(*self._where, timeout=_PATIENCE_S)
        try:
            connection.request("GET", "/")
            answer = connection.getresponse()
            last = time.monotonic()
            while piece := answer.read1(_PIECE):
                now = time.monotonic()
                self._stall_s, last = max(self._stall_s, now - last), now
                self._received.update(piece)
                self._came += len(piece)
        except (OSError, http.client.HTTPException) as error:
            self._why = f"{self._client.name}: {error}"
        finally:
            connection.close()
