"""Messages whose feature has not been built: decoded, kept whole, and counted as pending."""

from collections.abc import Iterator
from functools import partial
from typing import Any

import msgspec

from holdfast.feature import RELEASE, Claim, Command, Feature, Merged, Pending
from holdfast.router import Router
from holdfast.shared import Data

Json = Any


class Ipv6FirewallRules(Command, frozen=True, kw_only=True, tag="ipv6firewallrules"):
    """All IPv6 rules of a network."""

    rules: tuple[Json, ...]


class BgpPeers(Command, frozen=True, kw_only=True, tag="bgppeers"):
    """All BGP peers."""

    peers: tuple[Json, ...]


class Kept(Data, frozen=True, kw_only=True):
    """The last message of a type, as it came, under an empty name; none before the first."""

    messages: dict[str, Json] = {}


def merge(_bag: Kept, command: Command, _router: Router) -> Merged[Kept]:
    """Keep a message: each is a complete list."""
    # Through JSON, since that is how a bag comes back: a tuple would never equal the list that was read.
    whole = msgspec.json.decode(msgspec.json.encode(command))
    return Merged(Kept(messages={"": {field: value for field, value in whole.items() if field != "type"}}))


def contribute(bag: Kept, _router: Router, *, name: str) -> Iterator[Claim]:
    """Say that it waits."""
    if bag.messages:
        yield Claim(name, Pending(name, RELEASE))


def _feature(command: type[Command]) -> Feature[Kept]:
    name = str(command.__struct_config__.tag)
    return Feature(name, (command,), Kept, merge, partial(contribute, name=name))


FEATURES = (_feature(Ipv6FirewallRules), _feature(BgpPeers))
