"""Inside a host: many small machines, a thread and a device each, that boot at once and ask as real ones do."""

import base64
import contextlib
import ctypes
import fcntl
import http.client
import random
import socket
import struct
import threading
import time
from collections.abc import Iterator
from typing import Any, NamedTuple

_SIOCSIFADDR, _SIOCSIFNETMASK, _SIOCSIFMTU = 0x8916, 0x891C, 0x8922
_ETH_P_IP, _UDP, _SERVER, _CLIENT = 0x0800, 17, 67, 68
_COOKIE = bytes((99, 130, 83, 99))
_DISCOVER, _OFFER, _REQUEST, _ACK, _NAK = 1, 2, 3, 5, 6
_MASK, _ROUTER, _DNS, _HOST_NAME, _DOMAIN, _MTU, _ADDRESS = 1, 3, 6, 12, 15, 26, 50
_SECONDS, _KIND, _SERVER_ID, _WANTED, _CLIENT_ID, _END = 51, 53, 54, 55, 61, 255
_ASKED = bytes((_MASK, _ROUTER, _DNS, _HOST_NAME, _DOMAIN, _MTU))
_BOOTP = struct.Struct("!BBBBIHH4s4s4s4s6s10x64x128x4s")
# A classic BPF program on the IP packet: UDP from the server's port to the client's, all of it; else nothing.
_SO_ATTACH_FILTER = 26
_ANSWERS = (
    (0x30, 0, 0, 9),
    (0x15, 0, 3, _UDP),
    (0x20, 0, 0, 20),
    (0x15, 0, 1, _SERVER << 16 | _CLIENT),
    (0x06, 0, 0, 0xFFFF),
    (0x06, 0, 0, 0),
)
_PATIENCE_S = (1.0, 2.0, 4.0, 8.0)  # RFC 2131, 4.1, but faster: as many machines do
_STACK = 256 * 1024
_NOT_FOUND = 404
_NOWHERE, _EVERYWHERE = bytes(4), b"\xff" * 4
_PASSWORDS = 8080


class Machine(NamedTuple):
    """One machine: its device, which has its MAC, and when it must be up."""

    device: str
    mac: str
    end: float

    def left(self) -> float:
        """The seconds that it still has; TimeoutError if none."""
        left = self.end - time.monotonic()
        if left <= 0:
            raise TimeoutError("it was too late")
        return left


def boot(macs: dict[str, str], timeout_s: float) -> list[dict[str, Any]]:
    """Boot all at once: `macs` by device.  Each answer says what the machine saw, or `failed` and why."""
    answers: list[dict[str, Any]] = [{} for _ in macs]
    gate = threading.Barrier(len(macs) + 1)

    def run(at: int, machine: Machine) -> None:
        gate.wait()
        answers[at] = _life(machine)

    end = time.monotonic() + timeout_s
    old = threading.stack_size(_STACK)
    threads = [
        threading.Thread(target=run, args=(at, Machine(device, mac, end)), daemon=True)
        for at, (device, mac) in enumerate(macs.items())
    ]
    for thread in threads:
        thread.start()
    threading.stack_size(old)
    gate.wait()
    for thread in threads:
        thread.join()
    return answers


def _life(machine: Machine) -> dict[str, Any]:
    """From power on to the moment in which a user could log in."""
    answer: dict[str, Any] = {"mac": machine.mac}
    began = time.monotonic()
    try:
        _set_address(machine.device, "0.0.0.0")  # noqa: S104 takes an earlier boot's away
        lease = _leased(machine)
        answer["lease"] = lease
        answer["lease_s"] = time.monotonic() - began
        _set_address(machine.device, lease["address"], lease["mask"])
        if lease["mtu"]:
            _ioctl(_SIOCSIFMTU, machine.device, struct.pack("=i", lease["mtu"]))
        asks = Asks(machine, lease["address"], lease["server"])
        answer |= {"metadata": asks.metadata(), "userdata": asks.userdata()}
        answer["password"] = asks.password("send_my_password")
        answer["acknowledged"] = asks.password("saved_password")
        answer["again"] = asks.password("send_my_password")
    except (OSError, ValueError, http.client.HTTPException) as error:
        answer["failed"] = f"{type(error).__name__}: {error}"
    answer["seconds"] = time.monotonic() - began
    return answer


class Asks:
    """What a machine asks its router over HTTP; a connection for each question, as the scripts in templates do."""

    def __init__(self, machine: Machine, address: str, server: str) -> None:
        self.machine, self.address, self.server = machine, address, server

    def metadata(self) -> dict[str, str]:
        """Every name that is listed, and its text."""
        names = self._text("/latest/meta-data/").splitlines()
        return {name: self._text(f"/latest/meta-data/{name}") for name in names}

    def userdata(self) -> str | None:
        """User data as base64; None if there is none."""
        status, body = self._get(80, "/latest/user-data")
        if status == _NOT_FOUND:
            return None
        return base64.b64encode(_good(status, body, "/latest/user-data")).decode()

    def password(self, word: str) -> str:
        """What the password server says to a word."""
        status, body = self._get(_PASSWORDS, "/", {"DomU_Request": word})
        return _good(status, body, word).decode(errors="surrogateescape")

    def _text(self, path: str) -> str:
        return _good(*self._get(80, path), path).decode(errors="surrogateescape")

    def _get(self, port: int, path: str, headers: dict[str, str] | None = None) -> tuple[int, bytes]:
        connection = http.client.HTTPConnection(self.server, port)
        connection.sock = socket.socket(socket.AF_INET, socket.SOCK_STREAM)
        with contextlib.closing(connection):
            connection.sock.setsockopt(socket.SOL_SOCKET, socket.SO_BINDTODEVICE, self.machine.device.encode())
            connection.sock.settimeout(self.machine.left())
            connection.sock.bind((self.address, 0))
            try:
                connection.sock.connect((self.server, port))
                connection.request("GET", path, headers=headers or {})
                answer = connection.getresponse()
                return answer.status, answer.read()
            except OSError as error:
                raise OSError(f"GET {self.server}:{port}{path}: {error}") from error


def _good(status: int, body: bytes, what: str) -> bytes:
    if status != http.client.OK:
        raise ValueError(f"{what} was answered with status {status}")
    return body


def _ioctl(number: int, device: str, data: bytes) -> None:
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as any_socket:
        fcntl.ioctl(any_socket, number, struct.pack("=16s24s", device.encode(), data))


def _set_address(device: str, address: str, mask: str = "") -> None:
    for number, text in ((_SIOCSIFADDR, address), (_SIOCSIFNETMASK, mask)):
        if text:
            _ioctl(number, device, struct.pack("=HH4s", socket.AF_INET, 0, socket.inet_aton(text)))


def _leased(machine: Machine) -> dict[str, Any]:
    """Discover, request, and what the acknowledgement says.  OSError if nothing came in time or it was refused."""
    mac = bytes.fromhex(machine.mac.replace(":", ""))
    ticket = random.randrange(1 << 32)  # noqa: S311 tells this client's answers from others', no secret
    ours = bytes((_CLIENT_ID, 7, 1)) + mac
    with _wire(machine.device) as wire:
        asked = ours + bytes((_WANTED, len(_ASKED))) + _ASKED
        offered, offer = _exchange(machine, wire, (ticket, mac, _DISCOVER, asked), (_OFFER,))
        wish = bytes((_ADDRESS, 4)) + offered + bytes((_SERVER_ID, 4)) + offer[_SERVER_ID]
        given, said = _exchange(machine, wire, (ticket, mac, _REQUEST, asked + wish), (_ACK, _NAK))
    if said[_KIND] == bytes((_NAK,)):
        raise OSError("the DHCP server refused what it had offered")
    return {
        "address": socket.inet_ntoa(given),
        "mask": socket.inet_ntoa(said.get(_MASK, _EVERYWHERE)),
        "router": " ".join(_addresses(said.get(_ROUTER, b""))),
        "dns": list(_addresses(said.get(_DNS, b""))),
        "hostname": said.get(_HOST_NAME, b"").decode(),
        "domain": said.get(_DOMAIN, b"").decode(),
        "mtu": int.from_bytes(said.get(_MTU, b""), "big"),
        "seconds": int.from_bytes(said.get(_SECONDS, b""), "big"),
        "server": socket.inet_ntoa(said[_SERVER_ID]),
    }


def _wire(device: str) -> socket.socket:
    """A device's DHCP answers, and nothing else: each of hundreds would hear every other's questions too."""
    wire = socket.socket(socket.AF_PACKET, socket.SOCK_DGRAM)
    program = ctypes.create_string_buffer(b"".join(struct.pack("=HBBI", *step) for step in _ANSWERS))
    wire.setsockopt(socket.SOL_SOCKET, _SO_ATTACH_FILTER, struct.pack("@HP", len(_ANSWERS), ctypes.addressof(program)))
    wire.bind((device, _ETH_P_IP))
    return wire


def _exchange(
    machine: Machine, wire: socket.socket, question: tuple[int, bytes, int, bytes], kinds: tuple[int, ...]
) -> tuple[bytes, dict[int, bytes]]:
    """Ask until there is an answer of one of these kinds: the address in it and its options."""
    packet = _packet(*question)
    target = (machine.device, _ETH_P_IP, 0, 0, b"\xff" * 6)
    for patience_s in _PATIENCE_S:
        wire.sendto(packet, target)
        again = time.monotonic() + patience_s
        while (left := min(again - time.monotonic(), machine.left())) > 0:
            wire.settimeout(left)
            with contextlib.suppress(TimeoutError):
                heard = _heard(wire.recv(2048), question[0], question[1])
                if heard and heard[1].get(_KIND, b"\0")[0] in kinds:
                    return heard
    raise TimeoutError(f"no DHCP answer to message {question[2]}")


def _packet(ticket: int, mac: bytes, kind: int, options: bytes) -> bytes:
    """An IP packet from nowhere to everywhere.  No broadcast flag: answers come to this MAC alone."""
    head = _BOOTP.pack(1, 1, 6, 0, ticket, 0, 0, _NOWHERE, _NOWHERE, _NOWHERE, _NOWHERE, mac, _COOKIE)
    bootp = head + bytes((_KIND, 1, kind)) + options + bytes((_END,))
    # A UDP checksum of 0 means that there is none.
    udp = struct.pack("!HHHH", _CLIENT, _SERVER, 8 + len(bootp), 0) + bootp
    bare = struct.pack("!BBHHHBBH4s4s", 0x45, 0, 20 + len(udp), 0, 0, 64, _UDP, 0, _NOWHERE, _EVERYWHERE)
    return bare[:10] + struct.pack("!H", _checksum(bare)) + bare[12:] + udp


def _checksum(header: bytes) -> int:
    total: int = sum(struct.unpack(f"!{len(header) // 2}H", header))
    total = (total & 0xFFFF) + (total >> 16)
    return ~(total + (total >> 16)) & 0xFFFF


def _heard(packet: bytes, ticket: int, mac: bytes) -> tuple[bytes, dict[int, bytes]] | None:
    """The address and the options of an answer to this client; None if the packet is anything else."""
    start = (packet[0] & 15) * 4
    if packet[9] != _UDP or len(packet) < start + 8 + _BOOTP.size:
        return None
    if struct.unpack_from("!HH", packet, start) != (_SERVER, _CLIENT):
        return None
    fields = _BOOTP.unpack_from(packet, start + 8)
    if (fields[0], fields[4], fields[11], fields[12]) != (2, ticket, mac, _COOKIE):
        return None
    return fields[8], dict(_options(packet[start + 8 + _BOOTP.size :]))


def _options(data: bytes) -> Iterator[tuple[int, bytes]]:
    at = 0
    while at < len(data) and data[at] != _END:
        if data[at]:
            yield data[at], data[at + 2 : at + 2 + data[at + 1]]
            at += 2 + data[at + 1]
        else:
            at += 1


def _addresses(data: bytes) -> Iterator[str]:
    for at in range(0, len(data), 4):
        yield socket.inet_ntoa(data[at : at + 4])
