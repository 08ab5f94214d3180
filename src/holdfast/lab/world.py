"""What is outside: the world behind the public segments, and the management side on the control segment."""

from collections.abc import Sequence

from holdfast.lab.host import Host, Place
from holdfast.lab.network import Segment, batch
from holdfast.lab.process import must

_FORWARD = (
    "net.ipv4.ip_forward=1",
    "net.ipv4.conf.all.rp_filter=0",
    "net.ipv4.conf.default.rp_filter=0",
    # Its inner addresses must not be what it asks neighbours with: a router that looks at the sender does not answer.
    "net.ipv4.conf.all.arp_announce=2",
)


class World(Host):
    """The upstream gateway of each public segment and, behind it, hosts of the Internet.

    One namespace plays all of them; its addresses are those of the inside hosts first, then the gateways.
    """

    def __init__(self, place: Place, name: str, inside: Sequence[str]) -> None:
        super().__init__(place, name)
        must(["ip", "netns", "exec", self.namespace, "sysctl", "-q", "-w", *_FORWARD])
        # A bridge without ports: there is not everywhere a dummy device.
        batch(self.namespace, ["link add inside type bridge", "link set inside up"])
        for address in inside:
            self.address("inside", f"{address.partition('/')[0]}/32")

    def attach(self, segment: Segment, gateway: str) -> str:
        """Be the gateway of a public segment too, as `198.51.100.1/26`; return the nic's name."""
        number = len(self.ports)
        nic = self.plug(segment, f"02:fe:00:00:00:{number:02x}")
        self.address(nic, gateway)
        return nic


class Management(Host):
    """The management side: one address on the control segment."""

    def __init__(self, place: Place, name: str, segment: Segment, interface: str) -> None:
        super().__init__(place, name)
        self.address(self.plug(segment, "02:fd:00:00:00:01"), interface)
