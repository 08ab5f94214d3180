"""The gateways' MACs: found in the kernel by who serves, told to its peer, and left by both for keepalived's hook."""

import socket
import struct
from collections.abc import Mapping
from contextlib import suppress
from fcntl import ioctl
from math import inf
from pathlib import Path

from holdfast import alerts, neighbours, pairing
from holdfast.peer import Pair, Peer

LOOK_S = 1.0
"""How often the kernel is asked."""
_SIOCGARP = 0x8954
_ATF_COM = 0x02
_ARPREQ = struct.Struct("=HH4s8x H14s i 16x 16s")  # arp(7)
_ETHERNET = 1


class Neighbours:
    """What this router knows of its gateways' MACs, of its own while it serves, else as its peer has told."""

    def __init__(self, root: Path, asked: socket.socket) -> None:
        self.root = root
        self.found: dict[str, str] = {}
        self._asked = asked
        self._known: dict[str, str] = {}
        self._looked = -inf
        self._left = ""

    def keep(self, pair: Pair, heard: Peer | None, now: float, *, serving: bool) -> None:
        """Look, and leave the text for the hook where it has changed.  What is not told of any more is kept: a gateway
        that is silent when its router dies may still be where it was.
        """
        if not serving:
            self.found, self._looked = {}, -inf
        elif now - self._looked >= LOOK_S:
            self._looked = now
            self.found = {gateway: mac for device, gateway in pair.gateways if (mac := self._mac(device, gateway))}
        told: Mapping[str, str] = self.found if serving else (heard and heard.hello.neighbours) or {}
        own = {gateway for _, gateway in pair.gateways}
        self._known = {gateway: mac for gateway, mac in {**self._known, **told}.items() if gateway in own}
        self._leave(neighbours.batch(pair.gateways, self._known))

    def _leave(self, text: str) -> None:
        if text == self._left:
            return
        try:
            pairing.leave(self.root, neighbours.PATH.lstrip("/"), text)
        except OSError as error:
            alerts.note(f"{neighbours.PATH} cannot be written: {error}", urgent=True)
            return
        self._left = text

    def _mac(self, device: str, gateway: str) -> str:
        """The MAC if the kernel is sure enough of it to use it, else nothing."""
        with suppress(OSError):  # the device has gone, or nobody has asked for this gateway yet
            request = _ARPREQ.pack(socket.AF_INET, 0, socket.inet_aton(gateway), 0, b"", 0, device.encode())
            _, _, _, family, mac, flags, _ = _ARPREQ.unpack(ioctl(self._asked, _SIOCGARP, request))
            return mac[:6].hex(":") if flags & _ATF_COM and family == _ETHERNET else ""
        return ""

    def over(self) -> None:
        """There is no pair: nothing is left for it."""
        self.found, self._known, self._left = {}, {}, ""
        with suppress(OSError):
            (self.root / neighbours.PATH.lstrip("/")).unlink(missing_ok=True)
