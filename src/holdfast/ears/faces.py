"""The sockets by which a router hears its peer and speaks to it: one for each guest interface."""

import select
import socket
import struct
from collections.abc import Iterable, Iterator
from contextlib import suppress
from fcntl import ioctl
from typing import NamedTuple

from holdfast.peer import GROUP, LONGEST, PORT, Face

_AT_ONCE = 64
"""Datagrams that are read from one face before the others are asked: who floods one is heard on that one alone."""
_SIOCGIFHWADDR = 0x8927


class _Open(NamedTuple):
    """A face with its socket.  `number`: the device's, another one if a device of the same name replaced it."""

    face: Face
    number: int
    mac: str
    ear: socket.socket


class Faces:
    """All of them.  A device that is absent is tried again at each `keep`; one that is down is open, and says nothing.

    OSError if the kernel gives no epoll.
    """

    def __init__(self) -> None:
        self._poll = select.epoll()
        self._open: dict[str, _Open] = {}

    def fileno(self) -> int:
        """Return the descriptor that is readable when any face is."""
        return self._poll.fileno()

    def keep(self, wanted: Iterable[Face]) -> None:
        """Have exactly these open, each on the device that bears its name now."""
        faces = {face.device: face for face in wanted}
        for device, held in list(self._open.items()):
            if held.face != faces.get(device) or held.number != _index(device):
                self._drop(device)
        for device, face in faces.items():
            with suppress(OSError):  # it is not there, or has gone meanwhile
                if device not in self._open and (index := _index(device)):
                    ear = _socket(face, index)
                    self._open[device] = _Open(face, index, "", ear)
                    self._poll.register(ear.fileno(), select.EPOLLIN)
                if device in self._open:
                    self._open[device] = self._open[device]._replace(mac=mac(device))

    def here(self) -> dict[str, tuple[str, str, str]]:
        """Device, address and MAC by network, of the faces that are open."""
        found = sorted(self._open.values(), key=lambda held: held.face.network)
        return {held.face.network: (held.face.device, held.face.address, held.mac) for held in found}

    def say(self, datagram: bytes) -> None:
        """Send it on every face; where that cannot be, nothing happens: nobody there would hear it."""
        for held in self._open.values():
            with suppress(OSError):
                held.ear.sendto(datagram, (GROUP, PORT))

    def heard(self) -> Iterator[tuple[str, bytes]]:
        """Network and datagram, of what waits; a bounded number."""
        ready = {handle for handle, _ in self._poll.poll(0)}
        for held in [held for held in self._open.values() if held.ear.fileno() in ready]:
            for _ in range(_AT_ONCE):
                try:
                    data = held.ear.recv(LONGEST + 1)
                except BlockingIOError:
                    break
                except OSError:
                    self._drop(held.face.device)  # the device has gone; `keep` opens it again
                    break
                yield held.face.network, data

    def close(self) -> None:
        """Close all; what another process has open of it stays."""
        for held in self._open.values():
            held.ear.close()
        self._poll.close()

    def _drop(self, device: str) -> None:
        held = self._open.pop(device)
        with suppress(OSError):
            self._poll.unregister(held.ear.fileno())
        held.ear.close()


def _index(device: str) -> int:
    try:
        return socket.if_nametoindex(device)
    except OSError:
        return 0


def mac(device: str) -> str:
    """The MAC that a device has now; OSError if there is none of this name."""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM | socket.SOCK_CLOEXEC) as asked:
        answer = ioctl(asked, _SIOCGIFHWADDR, struct.pack("40s", device.encode()))
    return answer[18:24].hex(":")


def _socket(face: Face, index: int) -> socket.socket:
    """Speaks and hears on this device alone, whatever the routes say, and does not hear itself."""
    ear = socket.socket(socket.AF_INET, socket.SOCK_DGRAM | socket.SOCK_CLOEXEC | socket.SOCK_NONBLOCK)
    try:
        ear.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        ear.setsockopt(socket.SOL_SOCKET, socket.SO_BINDTODEVICE, face.device.encode())
        ear.bind((GROUP, PORT))
        group, own = socket.inet_aton(GROUP), socket.inet_aton(face.address)
        ear.setsockopt(socket.IPPROTO_IP, socket.IP_ADD_MEMBERSHIP, struct.pack("4s4si", group, own, index))
        ear.setsockopt(socket.IPPROTO_IP, socket.IP_MULTICAST_IF, struct.pack("4s4si", group, own, index))
        ear.setsockopt(socket.IPPROTO_IP, socket.IP_MULTICAST_TTL, 1)
        ear.setsockopt(socket.IPPROTO_IP, socket.IP_MULTICAST_LOOP, 0)
    except BaseException:
        ear.close()
        raise
    return ear
