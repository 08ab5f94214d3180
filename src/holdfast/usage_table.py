"""The usage table's counters: what they are called and what they hold.  Imports little.  Pure."""

import re
from collections.abc import Mapping
from typing import Any, NamedTuple

TABLE = "holdfast_usage"
NOTE = "usage"
"""The driver's mark: the scripts read there which nic has which address."""
KINDS = ("out", "in", "own_out", "own_in")
"""A nic's counters in the order in which scripts print them: sent and received by guests, then by the router itself."""
_NAME = re.compile(r"[^0-9A-Za-z]")


class Count(NamedTuple):
    """What one counter holds; `size` in bytes, of whole IP packets."""

    packets: int
    size: int


def names(nic: str) -> tuple[str, ...]:
    """A nic's counters."""
    return tuple(f"{kind}_{_NAME.sub('', nic.lower())}" for kind in KINDS)


def counts(listing: Mapping[str, Any]) -> dict[str, Count]:
    """Counters by name from `nft -j list counters`; KeyError or TypeError if it is something else."""
    found = [item["counter"] for item in listing["nftables"] if "counter" in item]
    return {item["name"]: Count(item["packets"], item["bytes"]) for item in found if item["table"] == TABLE}
