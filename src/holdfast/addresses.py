"""Arithmetic with IPv4 addresses as text.  Pure."""

from collections.abc import Iterable


def network(address: str, prefix: int) -> str:
    """Canonical network of an address: `network("10.1.1.7", 24) == "10.1.1.0/24"`."""
    value = number(address) & (0xFFFFFFFF << (32 - prefix)) & 0xFFFFFFFF
    return f"{dotted(value)}/{prefix}"


def number(address: str) -> int:
    """An IPv4 address as a 32-bit number; the address is valid already."""
    a, b, c, d = address.split(".")
    return int(a) << 24 | int(b) << 16 | int(c) << 8 | int(d)


def dotted(value: int) -> str:
    """A 32-bit number as an IPv4 address."""
    return f"{value >> 24}.{value >> 16 & 255}.{value >> 8 & 255}.{value & 255}"


def inside(address: str, networks: Iterable[str]) -> bool:
    """Whether an address lies in one of these canonical networks."""
    for text in networks:
        base, _, length = text.partition("/")
        if network(address, int(length)) == f"{base}/{length}":
            return True
    return False


def overlap(one: str, other: str) -> bool:
    """Whether two canonical networks share an address."""
    length = min(int(one.partition("/")[2]), int(other.partition("/")[2]))
    return network(one.partition("/")[0], length) == network(other.partition("/")[0], length)


def prefix_length(netmask: str) -> int | None:
    """Prefix length of a dotted netmask; None if its ones are not all on the left."""
    ones = f"{number(netmask):032b}"
    length = ones.count("1")
    return length if ones == "1" * length + "0" * (32 - length) else None
