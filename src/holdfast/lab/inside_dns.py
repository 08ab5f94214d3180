"""Inside a host: a question to a name server, and what it answers."""

import contextlib
import ipaddress
import secrets
import socket
import struct
import time
from collections.abc import Iterator, Sequence

_KINDS = {"A": 1, "PTR": 12, "AAAA": 28}
_CODES = {1: "FORMERR", 2: "SERVFAIL", 3: "NXDOMAIN", 4: "NOTIMP", 5: "REFUSED"}
_POINTER = 0xC0
_AGAIN_S = 0.5


def ask(  # noqa: PLR0913 one question, all of it named
    servers: Sequence[str], name: str, kind: str, server: str, timeout_s: float, *, once: bool
) -> list[str]:
    """Return the addresses or names of an answer; OSError with the server's word if it has none."""
    asked = [server] if server else list(servers)
    if not asked:
        raise OSError("it knows no name server: it has no lease, or the lease names none")
    end = time.monotonic() + timeout_s
    while True:
        for one in asked:
            try:
                return _query(one, name, _KINDS[kind], min(_AGAIN_S, timeout_s))
            except OSError as error:
                failed = OSError(f"{one}: {error}")
        if once or time.monotonic() > end:
            raise failed
        time.sleep(0.03)


def _query(server: str, name: str, kind: int, limit_s: float) -> list[str]:
    number = secrets.randbelow(1 << 16)
    asked = ipaddress.ip_address(name).reverse_pointer if kind == _KINDS["PTR"] and name[-1].isdigit() else name
    labels = b"".join(bytes([len(label)]) + label.encode() for label in asked.rstrip(".").split("."))
    question = struct.pack(">6H", number, 0x0100, 1, 0, 0, 0) + labels + struct.pack(">BHH", 0, kind, 1)
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as client:
        client.settimeout(limit_s)
        client.connect((server, 53))
        client.send(question)
        reply = client.recv(4096)
    if reply[:2] != question[:2]:
        raise OSError("an answer to another question")
    code = reply[3] & 0x0F
    if code:
        raise OSError(_CODES.get(code, f"code {code}"))
    found = list(_answers(reply, kind))
    if not found:
        raise OSError("an empty answer")
    return found


def _answers(reply: bytes, kind: int) -> Iterator[str]:
    questions, answers = struct.unpack_from(">2H", reply, 4)
    place = 12
    for _ in range(questions):
        place = _name(reply, place)[1] + 4
    for _ in range(answers):
        place = _name(reply, place)[1]
        found, _, _, length = struct.unpack_from(">HHIH", reply, place)
        place += 10
        if found == kind == _KINDS["PTR"]:
            yield _name(reply, place)[0]
        elif found == kind:
            with contextlib.suppress(ValueError):
                yield str(ipaddress.ip_address(reply[place : place + length]))
        place += length


def _name(reply: bytes, place: int) -> tuple[str, int]:
    """Return the name at a place and where the text behind it begins."""
    labels, after = [], 0
    while length := reply[place]:
        if length >= _POINTER:
            after = after or place + 2
            place = struct.unpack_from(">H", reply, place)[0] & 0x3FFF
            continue
        labels.append(reply[place + 1 : place + 1 + length].decode(errors="replace"))
        place += 1 + length
    return ".".join(labels), after or place + 1
