"""Packets that only one of a pair may send, as anybody could make them: VRRP's adverts, and what conntrackd says."""

import ipaddress
import re
import socket
import struct

from raw import summed
from threads import in_network

from holdfast.lab.host import Host

_VRRP, _UDP, _TTL = 112, 17, 255
_ELECTION, _CONNECTIONS = ("01:00:5e:00:00:12", "224.0.0.18"), ("01:00:5e:00:00:32", "225.0.0.50")
_SYNC_PORT = 3780


def advert(conf: str, source: str, mac: str) -> bytes:
    """An advert of the highest priority there is, in all else as this keepalived.conf has it."""

    def told(pattern: str) -> str:
        found = re.search(pattern, conf)
        assert found, f"{pattern} in {conf}"
        return found[1]

    gateway = told(r"virtual_ipaddress \{\s+([0-9.]+)/")
    whole = struct.pack("!BBBBBBH", 0x21, int(told(r"virtual_router_id (\d+)")), 255, 1, 1, 1, 0)
    whole += socket.inet_aton(gateway) + told(r"auth_pass (\S+)").encode().ljust(8, b"\0")
    return _frame(_ELECTION, source, mac, _VRRP, summed(whole, b"", 6))


def sync(source: str, mac: str) -> bytes:
    """A datagram where conntrackd listens: no message of its protocol, which it counts as malformed."""
    text = b"holdfast probe " * 4
    return _frame(
        _CONNECTIONS, source, mac, _UDP, struct.pack("!HHHH", _SYNC_PORT, _SYNC_PORT, 8 + len(text), 0) + text
    )


def _frame(group: tuple[str, str], source: str, mac: str, proto: int, body: bytes) -> bytes:
    to, address = group
    head = struct.pack("!BBHHHBBH", 0x45, 0, 20 + len(body), 0, 0, _TTL, proto, 0)
    head += ipaddress.ip_address(source).packed + ipaddress.ip_address(address).packed
    macs = bytes.fromhex(to.replace(":", "")) + bytes.fromhex(mac.replace(":", ""))
    return macs + struct.pack("!H", 0x0800) + summed(head, b"", 10) + body


def send(host: Host, frames: list[bytes]) -> None:
    """Send frames as they are from a host's first nic."""
    port = next(iter(host.ports.values()))
    with in_network(host.namespace, lambda: socket.socket(socket.AF_PACKET, socket.SOCK_RAW)) as wire:
        wire.bind((port.nic, 0))
        for frame in frames:
            wire.send(frame)
