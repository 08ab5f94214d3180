"""A guest: a host whose nics ask a real DHCP client for everything."""

from typing import Any, NamedTuple

from holdfast.lab.host import Host, Place
from holdfast.lab.network import Segment
from holdfast.lab.sentence import NotSo

LEASE_S = 10.0
NO_LEASE_S = 2.0


class Lease(NamedTuple):
    """What DHCP gave; `mtu` in bytes and `seconds` are 0 if not said, `options` are all, as udhcpc names them."""

    address: str
    prefix: int
    router: str
    dns: tuple[str, ...]
    domain: str
    search: str
    hostname: str
    mtu: int
    server: str
    seconds: int
    routes: str
    options: dict[str, str]


class Guest(Host):
    """A virtual machine as its network sees it."""

    def __init__(self, place: Place, name: str, segment: Segment, mac: str) -> None:
        super().__init__(place, name)
        self.plug(segment, mac, "eth0")
        self.leases: dict[str, Lease] = {}

    def gets_lease(self, nic: str = "eth0", *, timeout_s: float = LEASE_S) -> Lease:
        """Start a fresh DHCP client, as a boot would; address, routes and name servers are set from what it gets."""
        return self._keep(nic, self.so(f"get a lease for {nic}", "lease", nic=nic, timeout_s=timeout_s))

    def gets_no_lease(self, nic: str = "eth0", *, timeout_s: float = NO_LEASE_S) -> None:
        """Ask and get nothing.  The client goes on asking."""
        self.not_so(f"get a lease for {nic}", "lease", nic=nic, timeout_s=timeout_s)

    def renews_lease(self, nic: str = "eth0", *, timeout_s: float = LEASE_S) -> Lease:
        """Let the running client ask again."""
        return self._keep(nic, self.so(f"renew the lease of {nic}", "renew", nic=nic, timeout_s=timeout_s))

    def releases_lease(self, nic: str = "eth0") -> None:
        """Give the lease back; the client ends."""
        self.so(f"release the lease of {nic}", "release", nic=nic)
        lease = self.leases.pop(nic, None)
        if lease:
            self.addresses.remove(lease.address)

    def _keep(self, nic: str, told: dict[str, Any]) -> Lease:
        lease = _lease(told)
        if not lease.address:
            raise NotSo(f"{self.name}'s lease for {nic} has no address: {told}")
        old = self.leases.get(nic)
        if old:
            self.addresses.remove(old.address)
        self.leases[nic] = lease
        # The first nic's address is the one that others mean by this guest.
        self.addresses = [self.leases[name].address for name in sorted(self.leases)] + [
            address for address in self.addresses if address not in {lease.address for lease in self.leases.values()}
        ]
        return lease


def _lease(told: dict[str, str]) -> Lease:
    return Lease(
        address=told.get("ip", ""),
        prefix=int(told.get("mask", "32")),
        router=told.get("router", ""),
        dns=tuple(told.get("dns", "").split()),
        domain=told.get("domain", ""),
        search=told.get("search", ""),
        hostname=told.get("hostname", ""),
        mtu=int(told.get("mtu", "0")),
        server=told.get("serverid", ""),
        seconds=int(told.get("lease", "0")),
        routes=told.get("staticroutes") or told.get("msstaticroutes", ""),
        options={name: value for name, value in told.items() if name.islower()},
    )
