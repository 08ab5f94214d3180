"""A nic with everything that it is to carry, and what a nic is for.  Pure."""

from collections.abc import Iterable

from msgspec import Struct

from holdfast.addresses import network

PURPOSES = {
    "router": ("guest", "control", "public"),
    "dhcpsrvr": ("guest", "control"),
    "ilbvm": ("guest", "control"),
    "vpcrouter": ("control",),
}
"""What eth0, eth1, … are for, by type of router."""
OUTER = ("public", "private")
"""Purposes of the nics that only the serving router of a pair has up."""


class Interface(Struct, frozen=True):
    """A nic and everything it is to carry.  `device` is its present name, empty while it is absent.

    `purpose`: guest, control, public, private (a private gateway) or tier.
    `addresses`: (address, prefix length) in a fixed order.  `virtual`: the address of a pair that guests use, which the
    serving router has besides its own.
    """

    nic: str
    device: str
    purpose: str
    addresses: tuple[tuple[str, int], ...]
    gateway: str = ""
    mtu: int = 0
    virtual: str = ""

    @property
    def number(self) -> int:
        """N of ethN; 0 for a nic that is absent."""
        digits = self.device.removeprefix("eth")
        return int(digits) if digits.isdigit() else 0

    @property
    def table(self) -> int:
        """Number of its policy table, Table_ethN: 100 + N, as management servers' own tests expect."""
        return 100 + self.number

    @property
    def networks(self) -> tuple[str, ...]:
        """The connected networks, canonical."""
        return tuple(sorted({network(address, prefix) for address, prefix in self.addresses}))


def missing(faces: Iterable[Interface]) -> tuple[str, ...]:
    """The outer nics, public and private gateways', that are to carry addresses and are absent: MAC, or name where no
    MAC is known.  One that the boot line knows by its number alone is not missed once another carries its addresses.
    """
    outer = [face for face in faces if face.purpose in OUTER]
    carried = {address for face in outer if face.device for address, _ in face.addresses}
    found = []
    for face in sorted((face for face in outer if not face.device), key=lambda face: (":" not in face.nic, face.nic)):
        own = {address for address, _ in face.addresses} - carried
        if own:
            found.append(face.nic)
            carried |= own
    return tuple(found)
