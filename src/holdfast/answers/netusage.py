"""What netusage.sh and vpc_netusage.sh print: bytes sent and received, in pairs that the reader adds up.  Pure."""

from collections.abc import Iterable, Mapping

from holdfast.usage_table import KINDS, Count, names

NOTHING = ""
"""For an address that no public nic has."""


def of_nic(counters: Mapping[str, Count], nic: str) -> str:
    """One nic's four numbers, each followed by a colon: sent, received for guests; sent, received by the router."""
    return "".join(f"{counters.get(name, Count(0, 0)).size}:" for name in names(nic))


def of_all(counters: Mapping[str, Count]) -> str:
    """The same of all nics together, those that have left as well: a sum that sank would be taken for a reset."""
    return "".join(f"{_sum(counters, kind)}:" for kind in KINDS)


def _sum(counters: Mapping[str, Count], kind: str) -> int:
    return sum(count.size for name, count in counters.items() if name.rpartition("_")[0] == kind)


def holder(nics: Iterable[tuple[str, Iterable[str]]], address: str) -> str:
    """The nic, of pairs of a nic and its addresses, that has an address; empty if none has."""
    return next((nic for nic, addresses in nics if address in addresses), "")
