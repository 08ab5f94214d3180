"""Telling the neighbours where an address lives now: gratuitous ARP."""

import socket
import struct
from collections.abc import Iterable
from contextlib import suppress

_ETH_P_ARP = 0x0806
_ETHERNET = 1
_IPV4 = 0x0800
_MAC_BYTES = 6
_REQUEST, _REPLY = 1, 2
_EVERYBODY = b"\xff" * _MAC_BYTES


def frames(mac: bytes, address: str) -> tuple[bytes, bytes]:
    """Return the announcement as request and as reply: some neighbours heed only the one, some only the other."""
    ip = socket.inet_aton(address)
    head = _EVERYBODY + mac + struct.pack("!H", _ETH_P_ARP)
    kind = struct.pack("!HHBB", _ETHERNET, _IPV4, _MAC_BYTES, len(ip))
    return (
        head + kind + struct.pack("!H", _REQUEST) + mac + ip + bytes(_MAC_BYTES) + ip,
        head + kind + struct.pack("!H", _REPLY) + mac + ip + mac + ip,
    )


def announce(device: str, addresses: Iterable[str]) -> None:
    """Announce IPv4 addresses on a device.  Never fails: the address is in place, the neighbours learn it by asking."""
    with (
        suppress(OSError, IndexError),
        socket.socket(socket.AF_PACKET, socket.SOCK_RAW | socket.SOCK_CLOEXEC) as link,
    ):
        link.bind((device, 0))  # protocol 0: it sends and never receives
        mac = link.getsockname()[4]
        if len(mac) != _MAC_BYTES:
            return
        for address in addresses:
            for frame in frames(mac, address):
                link.send(frame)
