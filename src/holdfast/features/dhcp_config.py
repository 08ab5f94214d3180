"""The subnets of a shared network: which gateway the guests of each are given."""

from collections.abc import Iterator

from holdfast.addresses import prefix_length
from holdfast.feature import Claim, Command, Feature, Ipv4, Item, Merged, Refusal
from holdfast.router import Router
from holdfast.shared import Subnet, Subnets


class Entry(Item, frozen=True, kw_only=True):
    """One subnet; the first is the router's own."""

    router_ip_address: Ipv4
    gateway: Ipv4
    netmask: Ipv4
    first_ip_of_subnet: Ipv4 | None = None


class DhcpConfig(Command, frozen=True, kw_only=True, tag="dhcpconfig"):
    """All subnets (WIRE 5.12)."""

    entries: tuple[Entry, ...]


def merge(bag: Subnets, command: DhcpConfig, _router: Router) -> Merged[Subnets]:
    """Replace all.  A refused one keeps its last good form."""
    subnets = {}
    refused = []
    for index, told in enumerate(command.entries):
        address, prefix = told.router_ip_address, prefix_length(told.netmask)
        if not prefix:
            refused.append(Refusal(f"entries[{index}].netmask", address, f"{told.netmask} is not a netmask"))
            if address in bag.subnets:
                subnets[address] = bag.subnets[address]
        else:
            subnets[address] = Subnet(prefix=prefix, gateway=told.gateway)
    return Merged(Subnets(subnets=subnets), tuple(refused))


def contribute(_bag: Subnets, _router: Router) -> Iterator[Claim]:
    """Nothing of its own: DHCP asks for it."""
    yield from ()


FEATURE = Feature("dhcpconfig", (DhcpConfig,), Subnets, merge, contribute, units="entries")
