"""charon's own interface: requests over its socket, answers as sections, so that one connection is one request."""

import socket
import struct
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from types import TracebackType
from typing import Any, Self, TypeAlias

SOCKET = "run/charon.vici"
TIMEOUT_S = 5.0

Value: TypeAlias = "str | bytes | Sequence[str | bytes] | Mapping[str, Value]"

_REQUEST, _RESPONSE, _UNKNOWN, _REGISTER, _UNREGISTER, _CONFIRM, _NO_EVENT, _EVENT = range(8)
_SECTION, _END, _KEY, _LIST, _ITEM, _LIST_END = range(1, 7)


class Refused(OSError):
    """charon would not do what it was asked; the message is what it said."""


class Vici:
    """One conversation; OSError if charon does not run.  Use it in a `with`."""

    def __init__(self, root: Path = Path("/"), timeout_s: float = TIMEOUT_S) -> None:
        self._socket = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        self._socket.settimeout(timeout_s)
        try:
            self._socket.connect(str(root / SOCKET))
        except OSError:
            self._socket.close()
            raise

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._socket.close()

    def ask(self, request: str, message: Mapping[str, Value] | None = None) -> dict[str, Any]:
        """One request; Refused if charon says that it failed."""
        self._send(_REQUEST, request, encode(message or {}))
        kind, answer = self._receive()
        if kind != _RESPONSE:
            raise Refused(f"charon does not know the request {request}")
        found = decode(answer)
        if found.get("success", "yes") != "yes":
            raise Refused(str(found.get("errmsg", f"{request} failed")))
        return found

    def stream(self, request: str, event: str, message: Mapping[str, Value] | None = None) -> Iterator[dict[str, Any]]:
        """One request that is answered by many events."""
        self._send(_REGISTER, event)
        if self._receive()[0] != _CONFIRM:
            raise Refused(f"charon does not know the event {event}")
        self._send(_REQUEST, request, encode(message or {}))
        while True:
            kind, answer = self._receive()
            if kind == _RESPONSE:
                break
            if kind != _EVENT:
                raise Refused(f"charon does not know the request {request}")
            yield decode(answer[1 + answer[0] :])
        self._send(_UNREGISTER, event)
        self._receive()

    def _send(self, kind: int, name: str, message: bytes = b"") -> None:
        packet = bytes([kind]) + _named(name) + message
        self._socket.sendall(struct.pack("!I", len(packet)) + packet)

    def _receive(self) -> tuple[int, bytes]:
        (length,) = struct.unpack("!I", self._exactly(4))
        packet = self._exactly(length)
        return packet[0], packet[1:]

    def _exactly(self, count: int) -> bytes:
        found = b""
        while len(found) < count:
            part = self._socket.recv(count - len(found))
            if not part:
                raise OSError("charon has hung up")
            found += part
        return found


def encode(message: Mapping[str, Value]) -> bytes:
    """A message as charon reads it."""
    return b"".join(_elements(message))


def _elements(message: Mapping[str, Value]) -> Iterator[bytes]:
    for name, value in message.items():
        if isinstance(value, Mapping):
            yield bytes([_SECTION]) + _named(name) + encode(value) + bytes([_END])
        elif isinstance(value, str | bytes):
            yield bytes([_KEY]) + _named(name) + _valued(value)
        else:
            yield bytes([_LIST]) + _named(name)
            yield b"".join(bytes([_ITEM]) + _valued(item) for item in value) + bytes([_LIST_END])


def _named(name: str) -> bytes:
    raw = name.encode()
    return bytes([len(raw)]) + raw


def _valued(value: str | bytes) -> bytes:
    raw = value.encode() if isinstance(value, str) else value
    return struct.pack("!H", len(raw)) + raw


def decode(message: bytes) -> dict[str, Any]:
    """A message of charon's; ValueError if it is none."""
    root: dict[str, Any] = {}
    path, items, at = [root], [""], 0
    while at < len(message):
        kind, at = message[at], at + 1
        if kind in (_SECTION, _KEY, _LIST):
            name, at = message[at + 1 : at + 1 + message[at]].decode(), at + 1 + message[at]
        if kind in (_KEY, _ITEM):
            (length,) = struct.unpack_from("!H", message, at)
            value, at = message[at + 2 : at + 2 + length].decode(errors="replace"), at + 2 + length
        if kind == _SECTION:
            path.append(path[-1].setdefault(name, {}))
        elif kind == _END and len(path) > 1:
            path.pop()
        elif kind == _KEY:
            path[-1][name] = value
        elif kind == _LIST:
            items = path[-1].setdefault(name, [])
        elif kind == _ITEM:
            items.append(value)
        elif kind != _LIST_END:
            raise ValueError("no message of charon's")
    return root
