"""Which keys of a bag the two routers of a pair know differently.  Pure.

A hello tells keys by codes, and those of bags that differ alone: a tenant who listens reads no name.
"""

from collections.abc import Iterable, Mapping, Sequence

from holdfast import peer

MOST = 64
"""Keys of a bag that are compared one by one, and of all bags that a hello tells of; longer bags are named as one."""
SHOWN = 3
_LONGEST = 64

Parts = Mapping[str, Mapping[str, str]]
"""Digests by bag and key, or by bag and code."""


def codes(key: bytes, bag: str, parts: Mapping[str, str]) -> dict[str, str]:
    """Digests by code; `parts`: the same by key."""
    return {_code(key, bag, name): digest for name, digest in parts.items()}


def told(key: bytes, own: Parts, bags: Iterable[str]) -> dict[str, dict[str, str]] | None:
    """What the next hello tells of these bags, None for nothing."""
    found: dict[str, dict[str, str]] = {}
    left = MOST
    for bag in bags:
        if 0 < len(own.get(bag, ())) <= left:
            left -= len(own[bag])
            found[bag] = codes(key, bag, own[bag])
    return found or None


def named(key: bytes, bag: str, own: Mapping[str, str] | None, heard: Mapping[str, str] | None) -> str:
    """The bag, and in brackets which of its keys differ; None: its keys are not known, there or here."""
    if own is None or heard is None:
        return bag
    mine = {_code(key, bag, name): name for name in own}
    other = [name for code, name in mine.items() if code in heard and heard[code] != own[name]]
    here = [name for code, name in mine.items() if code not in heard]
    there = len(heard.keys() - mine.keys())
    said = [_listed(other)] if other else []
    said += [f"{_listed(here)} only here"] if here else []
    said += [f"{there} only at the peer"] if there else []
    return f"{bag} ({'; '.join(said)})" if said else bag


def _code(key: bytes, bag: str, name: str) -> str:
    return peer.digest(key, f"key of {bag}", name.encode("utf-8", "surrogatepass"))


def _listed(names: Sequence[str]) -> str:
    """Some of them.  They reach logs and terminals: what is no plain name is counted only."""
    plain = sorted(name for name in names if len(name) <= _LONGEST and name.isascii() and name.isprintable())[:SHOWN]
    more = len(names) - len(plain)
    return ", ".join([*plain, f"{more} more" if plain else f"{more} keys"] if more else plain)
