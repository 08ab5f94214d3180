"""Network devices: administratively up or down, and their MTU."""

from collections.abc import Iterable, Iterator, Sequence

from holdfast import ip_words
from holdfast.converge import Failure
from holdfast.iproute import IpRoute, Order
from holdfast.state import Change, Link, Resource, State


class Links:
    """Keeps those devices that somebody claims.

    A device without a claim is left as it is: it is not observed, so nothing is ever planned for it.
    """

    kinds: tuple[type[Resource], ...] = (Link,)

    def __init__(self, ip: IpRoute) -> None:
        self.ip = ip

    def observe(self, desired: State) -> Iterator[Link]:
        """Read the claimed devices that are present; `up` is what was ordered, not whether a cable is plugged."""
        for device in self.ip.devices():
            wanted = desired.get(("Link", device.ifname))
            if isinstance(wanted, Link):
                yield Link(device.ifname, up="UP" in device.flags, mtu=device.mtu if wanted.mtu else 0)

    def check(self, changes: Sequence[Change]) -> Iterable[Failure]:
        """Nothing can be told before it is tried."""
        del changes
        return ()

    def apply(self, changes: Sequence[Change]) -> Iterable[Failure]:
        """Set MTU and state of each device."""
        orders = [self._order(change.after) for change in changes if isinstance(change.after, Link)]
        try:
            return self.ip.change(orders)
        finally:
            self.ip.forget()

    @staticmethod
    def _order(link: Link) -> Order:
        return Order(link.key, ip_words.link(link))
