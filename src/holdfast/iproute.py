"""Reading links and addresses once for everybody who asks, and handing changes over to ip(8) in bulk."""

import re
from collections.abc import Callable, Collection, Iterable, Sequence
from typing import NamedTuple, TypeAlias, TypeVar

import msgspec
from msgspec import Struct

from holdfast.converge import Failure
from holdfast.run import run as run_program
from holdfast.state import Key, Resource

Run: TypeAlias = Callable[..., str]
"""`holdfast.run.run`, or what stands in for it."""

OURS = re.compile(r"eth([0-9]+)")
"""The router's own nics; what else there is (loopback, VLANs, keepalived's macvlans, tunnels) belongs to others."""

GLOBAL_SCOPE = "0"
FOREVER = 0xFFFFFFFF

_WORD = re.compile(r"[A-Za-z0-9_.:/@+][A-Za-z0-9_.:/@+-]*")
_BLAME = re.compile(r"(.*?)(?:; )?Command failed -:(\d+)(?:; |\Z)", re.DOTALL)
_BATCH = ("ip", "-force", "-batch", "-")


class AddressInfo(Struct, frozen=True):
    """One address as `ip -N -j addr` shows it: `scope` is a number as text, lifetime in seconds."""

    family: str = ""
    local: str = ""
    prefixlen: int = 0
    scope: str = ""
    valid_life_time: int = FOREVER


class Device(Struct, frozen=True):
    """One network device as `ip -N -j addr` shows it: `address` is its MAC, `mtu` in bytes."""

    ifname: str = ""
    flags: tuple[str, ...] = ()
    mtu: int = 0
    address: str = ""
    addr_info: tuple[AddressInfo, ...] = ()

    @property
    def ours(self) -> bool:
        """Whether this is one of the router's nics: ethN, by agreement with the management server."""
        return OURS.fullmatch(self.ifname) is not None


class Order(NamedTuple):
    """One line for ip(8) and the resource that it is for.  `fine`: parts of complaints that mean "it is so already"."""

    key: Key
    words: tuple[str, ...]
    fine: tuple[str, ...] = ()


def parse_devices(text: str) -> tuple[Device, ...]:
    """Understand what `ip -N -j addr` printed; msgspec.ValidationError (a ValueError) if it is something else."""
    return tuple(d for d in msgspec.json.decode(text or "[]", type=tuple[Device, ...]) if d.ifname)


def blame(complaint: str) -> dict[int, str] | None:
    """Failed lines of a forced batch, numbered from 1, and what was said; None if the batch did not reach its end."""
    text = complaint.removeprefix(f"{' '.join(_BATCH)}: ")
    found = list(_BLAME.finditer(text))
    if not found or found[-1].end() != len(text):
        return None  # ip(8) gives up, forced or not, at a word that it cannot parse
    return {int(line): said or "refused" for said, line in (match.groups() for match in found)}


R = TypeVar("R", bound=Resource)


def as_wanted(spellings: Sequence[R], desired: Collection[Key]) -> R:
    """Of several spellings of one thing the one that is wanted, else the first, which is the canonical one."""
    return next((one for one in spellings if one.key in desired), spellings[0])


class IpRoute:
    """The machine's links and addresses, read by one child process and kept until `forget`.

    Whoever changes a link or an address calls `forget`; so does a resident caller at the start of each run and
    after it has waited for something.
    """

    def __init__(self, run: Run = run_program) -> None:
        self.run = run
        self._devices: tuple[Device, ...] | None = None

    def devices(self) -> tuple[Device, ...]:
        """All network devices with their addresses; CommandFailed if ip(8) cannot tell."""
        if self._devices is None:
            self._devices = parse_devices(self.run(["ip", "-N", "-j", "addr", "show"]))
        return self._devices

    def forget(self) -> None:
        """Read anew at the next question."""
        self._devices = None

    def change(self, orders: Sequence[Order]) -> list[Failure]:
        """Carry out all orders by one child process; a bad one does not stop the others."""
        good = [order for order in orders if all(map(_WORD.fullmatch, order.words))]
        failures = [Failure(order.key, f"not words for ip: {order.words}") for order in orders if order not in good]
        if not good:
            return failures
        try:
            self.run(_BATCH, "".join(f"{' '.join(order.words)}\n" for order in good))
        except OSError as error:
            guilty = blame(str(error))
            if guilty is None:
                return failures + self._one_by_one(good)
            said = [(good[line - 1], text) for line, text in guilty.items()]
            return failures + [Failure(order.key, text) for order, text in said if not _fine(order, text)]
        return failures

    def _one_by_one(self, orders: Iterable[Order]) -> list[Failure]:
        # Every order may be given twice, so nobody needs to know how far the batch had come.
        failures = []
        for order in orders:
            try:
                self.run(["ip", *order.words])
            except OSError as error:
                if not _fine(order, str(error)):
                    failures.append(Failure(order.key, str(error)))
        return failures


def _fine(order: Order, said: str) -> bool:
    return any(part in said for part in order.fine)
