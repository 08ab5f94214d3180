"""What the guest service writes down about passwords: which one a guest was given, and which one it has taken.

One line an event, `delivered ADDRESS SERIAL` or `acknowledged ADDRESS SERIAL`.  The service alone writes them; the
agent reads them as a fact.  Pure.
"""

import hmac
import re
from typing import Literal, NamedTuple

PATH = "/var/lib/holdfast-guest/receipts"

_SERIAL = re.compile(r"[0-9]{1,18}")

Event = Literal["delivered", "acknowledged"]


class Receipts(NamedTuple):
    """By guest address: the serial that it was given last, and the highest serial that it has acknowledged."""

    delivered: dict[str, int]
    acknowledged: dict[str, int]


def parse(data: bytes) -> Receipts:
    """Read the file's bytes.  A last line without its newline was cut off and does not count; nor do foreign lines."""
    receipts = Receipts({}, {})
    for line in data.split(b"\n")[:-1]:
        words = line.decode("ascii", "replace").split(" ")
        if len(words) == 3 and _SERIAL.fullmatch(words[2]):  # noqa: PLR2004 the form of a line
            note(receipts, words[0], words[1], int(words[2]))
    return receipts


def note(receipts: Receipts, event: str, address: str, serial: int) -> None:
    """Take one event in; a word that is no event's means nothing."""
    if event == "delivered":
        receipts.delivered[address] = serial
    elif event == "acknowledged":
        receipts.acknowledged[address] = max(serial, receipts.acknowledged.get(address, 0))


def render(event: Event, address: str, serial: int) -> bytes:
    """One line with its newline."""
    return f"{event} {address} {serial}\n".encode("ascii")


def compacted(receipts: Receipts) -> bytes:
    """The shortest file that says the same."""
    given = [render("delivered", address, serial) for address, serial in receipts.delivered.items()]
    taken = [render("acknowledged", address, serial) for address, serial in receipts.acknowledged.items()]
    return b"".join([*given, *taken])


_BITS = 16
"""Of what a router tells its peer of an acknowledged password: below them its serial begins."""


def tag(key: bytes, address: str, password: str, again: int, *, secret: bool) -> int:
    """Return what tells a password of an address from another one: on both routers of a pair the same, never 0, and too
    little to find the password by, which whoever can derive the key of an isolated pair could try.

    `again`: counts up where another password, or this very one before it was set anew, has the same.
    """
    text = f"password\0{address}\0{password}\0{again}".encode("utf-8", "surrogatepass")
    digest = int.from_bytes(hmac.digest(key, text, "sha256")[:2], "big")
    return (digest if secret else digest & 0xFF) or 1


def taken(serial: int, mark: int) -> int:
    """Return what a router tells its peer of an acknowledged password: its serial there, and its tag."""
    return serial << _BITS | mark


def serial_of(told: int) -> int:
    """Return the serial in it."""
    return told >> _BITS


def tag_of(told: int) -> int:
    """Return the tag in it, 0 if the peer knew none."""
    return told & (1 << _BITS) - 1
