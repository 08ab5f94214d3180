"""Network devices: administratively up or down, and their MTU."""

import socket
import time
from collections.abc import Callable, Iterable, Iterator, Sequence

from holdfast import ip_words
from holdfast.converge import Failure
from holdfast.iproute import IpRoute, Order
from holdfast.link_flags import RUNNING, link_flags
from holdfast.state import Change, Link, Resource, State

CARRIES_S = 0.3
"""For how long a link that is raised is given to carry."""
_LOOK_S = 0.001


def carries(devices: Iterable[str], within_s: float = CARRIES_S) -> None:
    """Wait until all carry.  One without a cable costs the whole time: nobody misses what is said into it."""
    until = time.monotonic() + within_s
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM | socket.SOCK_CLOEXEC) as asked:
        for device in devices:
            try:
                while not link_flags(asked, device) & RUNNING and time.monotonic() < until:
                    time.sleep(_LOOK_S)
            except OSError:
                continue  # it was unplugged


class Links:
    """Keeps those devices that somebody claims.

    A device without a claim is left as it is: it is not observed, so nothing is ever planned for it.
    """

    kinds: tuple[type[Resource], ...] = (Link,)

    def __init__(self, ip: IpRoute, wait: Callable[[Iterable[str]], None] = carries) -> None:
        self.ip = ip
        self.wait = wait

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
        """Set MTU and state of each device.

        What is said into a link before it carries is lost, without an error: above all the announcement of an address
        that follows at once, and neighbours that knew it elsewhere would look for it there for minutes.
        """
        orders = [self._order(change.after) for change in changes if isinstance(change.after, Link)]
        try:
            failures = self.ip.change(orders)
        finally:
            self.ip.forget()
        self.wait([c.after.device for c in changes if isinstance(c.after, Link) and c.after.up and not _was_up(c)])
        return failures

    @staticmethod
    def _order(link: Link) -> Order:
        return Order(link.key, ip_words.link(link))


def _was_up(change: Change) -> bool:
    return isinstance(change.before, Link) and change.before.up
