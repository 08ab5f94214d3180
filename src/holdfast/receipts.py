"""What the guest service writes down about passwords: which one a guest was given, and which one it has taken.

One line an event, `delivered ADDRESS SERIAL` or `acknowledged ADDRESS SERIAL`.  The service alone writes them; the
agent reads them as a fact.  Pure.
"""

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
