"""What a router sees of its outer links: their carrier, and whether the gateways behind them still speak."""

import array
import socket
import struct
from contextlib import suppress
from fcntl import ioctl
from math import inf

from holdfast.ears.faces import mac
from holdfast.link_flags import RUNNING, UP, link_flags
from holdfast.peer import Pair
from holdfast.verdict import Links

ASK_S = 1.0
"""How often a gateway is asked."""
SILENT_S = 3.5
"""How long one that has spoken may be silent: three questions without an answer."""
_SIOCETHTOOL, _GLINK = 0x8946, 0x0A
_ETH_P_ARP = 0x0806
_ARP = struct.Struct("!HHBBH6s4s6s4s")
_AT_ONCE = 64
_EVERYBODY = b"\xff" * 6


def links(asked: socket.socket, devices: tuple[str, ...], missing: int = 0) -> Links:
    """How the devices are now.  `asked`: any socket; `missing`: how many others were not there to be named."""
    carrying = lost = down = 0
    for device in devices:
        try:
            flags = link_flags(asked, device)
        except OSError:
            missing += 1  # it was unplugged, and no run has found that out yet
            continue
        if flags & UP:
            carries = _carries(asked, device, flags)
            carrying, lost = carrying + carries, lost + (not carries)
        else:
            down += 1
    return Links(carrying, lost, down=down, missing=missing)


def _carries(asked: socket.socket, device: str, flags: int) -> bool:
    """The carrier itself: the flag follows it by up to a second."""
    value = array.array("I", [_GLINK, 0])
    try:
        ioctl(asked, _SIOCETHTOOL, struct.pack("16sP16x", device.encode(), value.buffer_info()[0]))
    except OSError:
        return bool(flags & RUNNING)  # a device whose driver cannot tell
    return bool(value[1])


class Gateways:
    """Asks the gateways by ARP while this router serves.  One that has never answered is not missed."""

    def __init__(self) -> None:
        self._ears: dict[tuple[str, str, str], socket.socket] = {}
        self._spoke: dict[tuple[str, str, str], float] = {}
        self._asked = self._stepped = -inf

    def keep(self, pair: Pair | None, *, serving: bool) -> None:
        """Have an ear for each gateway on its device, none where nobody asked for it or this router does not serve."""
        wanted = set()
        if pair and serving:
            own = {device: addresses[0] for device, addresses in pair.announce if addresses}
            wanted = {(device, gateway, own[device]) for device, gateway in pair.probed if device in own}
        for gone in self._ears.keys() - wanted:
            self._ears.pop(gone).close()
        self._spoke = {name: at for name, at in self._spoke.items() if name in wanted}
        for new in sorted(wanted - self._ears.keys()):
            with suppress(OSError):  # the device has gone
                self._ears[new] = _arp(new[0])

    def step(self, now: float) -> bool | None:
        """Listen, ask where it is time to, and say whether all speak; None where not all have spoken yet."""
        asleep, self._stepped = now - self._stepped > 2 * ASK_S, now
        for name, ear in self._ears.items():
            # Who was not asked has not kept silent: this agent may have stood still.
            if _heard(ear, name[1]) or (asleep and name in self._spoke):
                self._spoke[name] = now
        if self._ears and now - self._asked >= ASK_S:
            self._asked = now
            for name in list(self._ears):
                self._ask(*name)
        if any(now - spoke > SILENT_S for spoke in self._spoke.values()):
            return False
        return True if self._ears and self._spoke.keys() == self._ears.keys() else None

    def _ask(self, device: str, gateway: str, own: str) -> None:
        ear = self._ears[device, gateway, own]
        try:
            ear.sendto(question(mac(device), own, gateway), (device, _ETH_P_ARP, 0, 0, _EVERYBODY))
        except (OSError, ValueError):  # its device is down, or another one bears the name now: `keep` opens it again
            ear.close()
            del self._ears[device, gateway, own]

    def due(self) -> float:
        """When to ask again."""
        return self._asked + ASK_S if self._ears else inf

    def close(self) -> None:
        """Stop asking."""
        for ear in self._ears.values():
            ear.close()


def _arp(device: str) -> socket.socket:
    ear = socket.socket(socket.AF_PACKET, socket.SOCK_DGRAM | socket.SOCK_NONBLOCK | socket.SOCK_CLOEXEC)
    try:
        ear.bind((device, _ETH_P_ARP))
    except OSError:
        ear.close()
        raise
    return ear


def question(own_mac: str, own: str, gateway: str) -> bytes:
    """The payload of an ARP request."""
    source, target = socket.inet_aton(own), socket.inet_aton(gateway)
    return _ARP.pack(1, 0x0800, 6, 4, 1, bytes.fromhex(own_mac.replace(":", "")), source, bytes(6), target)


def _heard(ear: socket.socket, gateway: str) -> bool:
    """Whether the gateway has said anything by ARP, of what waits there."""
    heard = False
    with suppress(OSError):
        for _ in range(_AT_ONCE):
            data = ear.recv(_ARP.size)
            heard = heard or (len(data) == _ARP.size and data[14:18] == socket.inet_aton(gateway))
    return heard
