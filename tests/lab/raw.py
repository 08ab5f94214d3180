"""Packets made by hand, and whoever sees what becomes of them: nobody asks for a neighbour or a route first."""

import ipaddress
import socket
import struct
import time
from collections.abc import Sequence
from typing import NamedTuple

from threads import Beside, in_network

from holdfast.lab.host import Host

_MARK = b"holdfast probe "
_FIRST = 20_000
_ALL = 3  # ETH_P_ALL
_TYPES = {4: 0x0800, 6: 0x86DD}
_PROTOCOLS = {"tcp": 6, "udp": 17, "icmp": 1, "icmp6": 58}
_TICK_S = 0.004
_OUTGOING = 4  # PACKET_OUTGOING


class Raw(NamedTuple):
    """One kind of packet: from where to where; `port` is the target's, of tcp and udp."""

    source: str
    target: str
    proto: str
    port: int = 0
    allowed: bool = False

    def __str__(self) -> str:
        return f"{self.proto} {self.source} -> {self.target} {self.port or ''}".strip()


def frame(raw: Raw, number: int, own: str, router: str) -> bytes:
    """The packet as it goes over the wire from the MAC `own` to the MAC `router`; `number` is told in it."""
    source, target = ipaddress.ip_address(raw.source), ipaddress.ip_address(raw.target)
    proto = _PROTOCOLS[raw.proto]
    text = _MARK + struct.pack("!H", number)
    mine = _FIRST + number
    size = 8 + len(text) if raw.proto != "tcp" else 20 + len(text)
    if raw.proto == "tcp":
        head = struct.pack("!HHIIBBHHH", mine, raw.port, 1, 0, 5 << 4, 2, 1024, 0, 0)  # SYN
    elif raw.proto == "udp":
        head = struct.pack("!HHHH", mine, raw.port, size, 0)
    else:
        head = struct.pack("!BBHHH", 8 if raw.proto == "icmp" else 128, 0, 0, mine, 1)  # echo request
    pseudo = source.packed + target.packed + struct.pack("!II", size, proto)
    whole = summed(head + text, b"" if raw.proto == "icmp" else pseudo, {"tcp": 16, "udp": 6}.get(raw.proto, 2))
    if source.version == 4:
        ip = struct.pack("!BBHHHBBH", 0x45, 0, 20 + size, 0, 0, 64, proto, 0) + source.packed + target.packed
        ip = summed(ip, b"", 10)
    else:
        ip = struct.pack("!IHBB", 6 << 28, size, proto, 64) + source.packed + target.packed
    return _mac(router) + _mac(own) + struct.pack("!H", _TYPES[source.version]) + ip + whole


def summed(data: bytes, pseudo: bytes, at: int) -> bytes:
    """The same with its Internet checksum (RFC 1071) at an offset where zero is."""
    words = pseudo + data + b"\0" * (len(data) % 2)
    total = sum(struct.unpack(f"!{len(words) // 2}H", words))
    while total >> 16:
        total = (total & 0xFFFF) + (total >> 16)
    return data[:at] + struct.pack("!H", ~total & 0xFFFF or 0xFFFF) + data[at + 2 :]


def _mac(text: str) -> bytes:
    return bytes.fromhex(text.replace(":", ""))


def number_of(packet: bytes, sources: frozenset[bytes]) -> int | None:
    """Which packet came through, or was answered: what the frame carries, or to which port it goes; None: neither.

    `sources`: addresses that nobody speaks from but these packets.
    """
    at = packet.find(_MARK)
    if at >= 0 and len(packet) >= at + len(_MARK) + 2:
        return int(struct.unpack_from("!H", packet, at + len(_MARK))[0])
    kind = struct.unpack_from("!H", packet, 12)[0]
    if kind == _TYPES[4] and len(packet) >= 42:
        target, proto, body = packet[30:34], packet[23], packet[14 + (packet[14] & 15) * 4 :]
    elif kind == _TYPES[6] and len(packet) >= 62:
        target, proto, body = packet[38:54], packet[20], packet[54:]
    else:
        return None
    if target not in sources:
        return None
    return int(struct.unpack_from("!H", body, 4 if proto in (1, 58) else 2)[0]) - _FIRST


class Side(Beside):
    """A host's nic: sends its packets again and again, and sees what the router sends there.

    `came`: numbers of packets that came through to here or were answered; `sent` counts.
    """

    def __init__(self, host: Host, router: str, packets: dict[int, Raw], sources: Sequence[str]) -> None:
        self.came: set[int] = set()
        self.sent = 0
        port = next(iter(host.ports.values()))
        self._router, self._sources = _mac(router), frozenset(ipaddress.ip_address(one).packed for one in sources)
        self._frames = [frame(raw, number, port.mac, router) for number, raw in packets.items()]
        self._wire = in_network(host.namespace, lambda: _packets(port.nic))
        super().__init__(self._send, self._see, sockets=(self._wire,))

    def once(self) -> None:
        """Send each packet once."""
        for one in self._frames:
            self._wire.send(one)
        self.sent += len(self._frames)

    def _send(self) -> None:
        while not self.over.is_set():
            self.once()
            time.sleep(_TICK_S)

    def _see(self) -> None:
        while not self.over.is_set():
            try:
                packet, (_, _, way, _, _) = self._wire.recvfrom(2048)
            except TimeoutError:
                continue
            if way != _OUTGOING and packet[6:12] == self._router:
                number = number_of(packet, self._sources)
                if number is not None:
                    self.came.add(number)


def _packets(nic: str) -> socket.socket:
    wire = socket.socket(socket.AF_PACKET, socket.SOCK_RAW, socket.htons(_ALL))
    wire.bind((nic, _ALL))
    wire.setsockopt(socket.SOL_SOCKET, 33, 8 << 20)  # SO_RCVBUFFORCE
    wire.settimeout(0.1)
    return wire
