"""IPv4 addresses: ours are all those of global scope on the router's nics, but for the excepted ones."""

from collections import defaultdict
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path

from msgspec.structs import replace

from holdfast.announce import announce
from holdfast.converge import Failure
from holdfast.iproute import FOREVER, GLOBAL_SCOPE, IpRoute, Order
from holdfast.state import Address, Change, Handover, Resource, State

_SERVES = "MASTER"


class Addresses:
    """Keeps the addresses of the nics ethN, but for those that have another keeper: they go where it has left them."""

    kinds: tuple[type[Resource], ...] = (Address,)

    def __init__(self, ip: IpRoute, root: Path = Path("/")) -> None:
        self.ip = ip
        self.root = root

    def observe(self, desired: State) -> Iterator[Address]:
        """Read what is there and ours; a wanted one as it is wanted, since announcing leaves no trace to read back."""
        kept = {key: one for key, one in desired.items() if isinstance(one, Address) and one.keeper}
        yield from self._kept(kept.values(), self._left(desired))
        for device in self.ip.devices():
            for info in device.addr_info:
                if info.family != "inet":
                    continue
                seen = Address(device.ifname, f"{info.local}/{info.prefixlen}")
                wanted = desired.get(seen.key)
                if seen.key in kept:
                    continue
                if isinstance(wanted, Address):
                    if info.valid_life_time == FOREVER:  # a leased one would vanish: giving it anew makes it stay
                        yield wanted
                elif device.ours and info.scope == GLOBAL_SCOPE:
                    yield seen

    def _kept(self, kept: Iterable[Address], left: set[str]) -> Iterator[Address]:
        """As they are wanted, but for what is left behind: one that differs makes a change, by which it goes."""
        there = {
            (device.ifname, f"{info.local}/{info.prefixlen}")
            for device in (self.ip.devices() if left else ())
            for info in device.addr_info
        }
        for one in kept:
            gone = one.keeper in left and (one.device, one.interface) in there
            yield replace(one, keeper="") if gone else one

    def _left(self, desired: State) -> set[str]:
        """Keepers that may have left addresses behind: they do not run, and the role is not the one that has them."""
        handover = next((one for one in desired.values() if isinstance(one, Handover)), None)
        if handover is None or handover.role == _SERVES:
            return set()
        keepers = {one.keeper for one in desired.values() if isinstance(one, Address) and one.keeper}
        # systemd's link, there while a unit is active; where systemd does not run nothing is known.
        units = self.root / "run/systemd/units"
        return {one for one in keepers if units.is_dir() and not (units / f"invocation:{one}.service").is_symlink()}

    def check(self, changes: Sequence[Change]) -> Iterable[Failure]:
        """Nothing can be told before it is tried."""
        del changes
        return ()

    def apply(self, changes: Sequence[Change]) -> Iterable[Failure]:
        """Take and give in bulk, then announce what is new and was taken.

        Where a device does not promote secondaries, the kernel drops them along with their primary; the next look
        finds them missing and gives them again.
        """
        try:
            first = sorted(changes, key=lambda change: not getattr(change.after, "first", False))
            failures = self.ip.change([self._order(change) for change in first])
        finally:
            self.ip.forget()
        failed = {failure.key for failure in failures}
        self._announce(c.after for c in changes if isinstance(c.after, Address) and c.key not in failed)
        return failures

    @staticmethod
    def _order(change: Change) -> Order:
        address = change.resource
        assert isinstance(address, Address)  # noqa: S101 the spine sends each driver its own kinds
        if change.after and not address.keeper:
            return Order(address.key, ("addr", "replace", address.interface, "brd", "+", "dev", address.device))
        gone = ("Address not found", "Cannot assign requested address", "Cannot find device")
        return Order(address.key, ("addr", "del", address.interface, "dev", address.device), gone)

    @staticmethod
    def _announce(addresses: Iterable[Address]) -> None:
        by_device = defaultdict(list)
        for address in addresses:
            if address.announce and not address.keeper:
                by_device[address.device].append(address.interface.partition("/")[0])
        for device, new in by_device.items():
            announce(device, new)
