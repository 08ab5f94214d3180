"""What checkrouter.sh prints: which of a pair this router is, as it is seen to be.  Pure.

Management servers look at how the line begins: `Status: ` and PRIMARY (4.16 and newer) or MASTER, BACKUP, FAULT; any
other text means that nothing is known, and no text that the router does not answer.
"""

from collections.abc import Mapping
from types import MappingProxyType
from typing import NamedTuple

CHECK_LOG = "/run/holdfast/vrrp/check.log"
"""Why keepalived has refused a text at a reload."""

WATCH = "/run/holdfast/watch.json"
"""Where to look: `outer` (names of nics), `missing` (nics), `virtual` (an address), `kept` (addresses), `word`."""


class Seen(NamedTuple):
    """What one of a pair looks like.

    `role`: keepalived's last word, empty if it has said none; `runs`: keepalived does; `virtual`: the address that it
    keeps for guests, empty where nothing is elected yet; `held`: this router has that address; `outer`: whether each
    public or private gateway's nic is up, by name; `word`: what this management server calls the one that serves;
    `missing`: such nics that are wanted and absent, by MAC, or by name where none is known.
    `kept`: whether each address that keepalived keeps is here; `refused`: why it has not taken its newest text.
    """

    role: str
    runs: bool
    virtual: str
    held: bool
    outer: dict[str, bool]
    word: str
    missing: tuple[str, ...] = ()
    kept: Mapping[str, bool] = MappingProxyType({})
    refused: str = ""


def doubts(seen: Seen) -> list[str]:
    """What does not fit together, and what keepalived has refused: that is no other role, so the line leaves it out."""
    return [*misfits(seen), *([f"keepalived has refused its text: {seen.refused}"] if seen.refused else [])]


def misfits(seen: Seen) -> list[str]:
    """What does not fit together; nothing in a router that is what keepalived says."""
    role = seen.role or "BACKUP"
    serving = role == "MASTER" and bool(seen.virtual)
    found = []
    if seen.virtual and not seen.runs:
        found.append("keepalived does not run")
    if seen.virtual and seen.held != serving:
        found.append(f"{role}, but {seen.virtual} is {'' if seen.held else 'not '}here")
    for address, here in sorted(seen.kept.items()):
        if seen.virtual and address != seen.virtual and here != serving:
            found.append(f"{role}, but {address} is {'' if here else 'not '}here")
    for device, up in sorted(seen.outer.items()):
        if up != serving:
            found.append(f"{role}, but {device} is {'up' if up else 'down'}")
    return [*found, *(f"the outer nic {nic} is missing" for nic in seen.missing)]


def pair(seen: Seen) -> str:
    """The line for one of a pair: FAULT where things do not fit together (`holdfast status` says which)."""
    if misfits(seen):
        return "Status: FAULT"
    if not seen.virtual:
        return "Status: BACKUP"
    return f"Status: {seen.word if seen.role == 'MASTER' else seen.role or 'BACKUP'}"


ALONE = "Status: PRIMARY"
"""The line for a router that is not one of a pair: it serves."""

UNKNOWN = "Status: UNKNOWN"
"""The line while nothing can be told: there is no boot line yet, or nothing has been applied since the start."""
