"""The ear for network devices: a nic that comes, goes or becomes another is a reason to converge."""

import fcntl
import math
import socket
import struct
from collections.abc import Callable, Iterator, Mapping

from holdfast.ears import Wish
from holdfast.link_flags import RUNNING, link_flags
from holdfast.netlink import LinkEvents

SETTLE_S = 0.1
"""Nics that come together are one reason."""
_SIOCGIFHWADDR = 0x8927

Nics = Mapping[str, tuple[bytes, bool]]
"""MAC and carrier by name."""


def nics() -> Nics:
    """Look at the router's nics (ethN) as they are now; no program is started."""
    found = {}
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as asked:
        for _, name in socket.if_nameindex():
            if name.startswith("eth"):
                request = struct.pack("40s", name.encode())
                try:
                    (mac,) = struct.unpack_from("18x6s", fcntl.ioctl(asked, _SIOCGIFHWADDR, request))
                    flags = link_flags(asked, name)
                except OSError:
                    continue  # it has gone meanwhile
                found[name] = mac, bool(flags & RUNNING)
    return found


class Links:
    """Listens to the kernel.  Other names or MACs are a wish; a carrier that changes only rouses the other ears."""

    def __init__(self, look: Callable[[], Nics] = nics) -> None:
        self._events = LinkEvents()  # first: what happens after the first look is heard
        self._look = look
        self._seen = look()
        self._known = _identities(self._seen)
        self._due = math.inf

    def fileno(self) -> int:
        """Return the netlink socket's descriptor."""
        return self._events.fileno()

    def ready(self, now: float) -> Iterator[Wish]:
        """Something happened to some device."""
        self._events.wait(0)
        before, self._seen = self._seen, self._look()
        if _identities(self._seen) != self._known:
            self._due = min(self._due, now + SETTLE_S)
        if self._seen != before:
            yield Wish("", urgent=True)

    def tick(self, now: float) -> Iterator[Wish]:
        """Wish, once what has changed has settled."""
        if now < self._due:
            return
        self._due = math.inf
        self._seen = self._look()
        before, self._known = self._known, _identities(self._seen)
        names = sorted({name for name, _ in before ^ self._known})
        if names:
            yield Wish(f"nics: {' '.join(names)}")

    def due(self) -> float:
        """Return when it has settled."""
        return self._due

    def close(self) -> None:
        """Stop listening."""
        self._events.close()


def _identities(nics: Nics) -> set[tuple[str, bytes]]:
    return {(name, mac) for name, (mac, _) in nics.items()}
