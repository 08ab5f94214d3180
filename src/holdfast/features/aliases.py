"""Aliases: the router's addresses in the further subnets of a shared network."""

from collections.abc import Iterator

from holdfast.addresses import prefix_length
from holdfast.feature import Claim, Command, Feature, Ipv4, Item, Merged, Refusal
from holdfast.router import Router
from holdfast.shared import Alias, Aliases


class IpAlias(Item, frozen=True, kw_only=True):
    """One alias; `count` tells it from the others."""

    revoke: bool
    ip_address: Ipv4
    netmask: Ipv4
    count: int


class IpAliases(Command, frozen=True, kw_only=True, tag="ipaliases"):
    """New aliases, or those that go and those that stay (WIRE 5.13)."""

    aliases: tuple[IpAlias, ...]


def merge(bag: Aliases, command: IpAliases, router: Router) -> Merged[Aliases]:
    """Put and remove.  An address belongs to one alias: an older one with it goes."""
    aliases = dict(bag.aliases)
    own = {address for face in router.interfaces for address, _ in face.addresses} - {
        a.address for a in aliases.values()
    }
    refused = []
    for index, told in enumerate(command.aliases):
        name, prefix = str(told.count), prefix_length(told.netmask)
        if told.revoke:  # by address as well: an adopted one has a number of our own
            aliases = {n: alias for n, alias in aliases.items() if n != name and alias.address != told.ip_address}
        elif not prefix:
            refused.append(Refusal(f"aliases[{index}].netmask", name, f"{told.netmask} is not a netmask"))
        elif told.ip_address in own:
            refused.append(Refusal(f"aliases[{index}].ip_address", name, f"{told.ip_address} is the router's already"))
        else:
            aliases = {other: alias for other, alias in aliases.items() if alias.address != told.ip_address}
            aliases[name] = Alias(address=told.ip_address, prefix=prefix)
    return Merged(Aliases(aliases=aliases), tuple(refused))


def contribute(_bag: Aliases, _router: Router) -> Iterator[Claim]:
    """Nothing of its own: they are addresses of the guest nic, and what is done for those is done for them."""
    yield from ()


FEATURE = Feature("ipaliases", (IpAliases,), Aliases, merge, contribute, units="aliases")
