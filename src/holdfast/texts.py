"""Which texts are addresses, networks, names: the checks that features share.  Pure."""

import re
from functools import lru_cache

OCTET = r"(25[0-5]|2[0-4][0-9]|1[0-9][0-9]|[1-9]?[0-9])"
IPV4 = rf"{OCTET}(\.{OCTET}){{3}}"
_IPV4 = re.compile(IPV4)
_NETWORK = re.compile(rf"{IPV4}(/(3[0-2]|[12]?[0-9]))?")
_MAC = re.compile(r"[0-9a-f]{2}(:[0-9a-f]{2}){5}")
_LABEL = re.compile(r"[A-Za-z0-9]([A-Za-z0-9-]{0,61}[A-Za-z0-9])?")


def is_ipv4(text: str) -> bool:
    """A dotted IPv4 address."""
    return _IPV4.fullmatch(text) is not None


@lru_cache(maxsize=65536)
def is_network(text: str) -> bool:
    """An IPv4 network `a.b.c.d/n`, or a single address."""
    return _NETWORK.fullmatch(text) is not None


@lru_cache(maxsize=65536)
def canonical(network: str) -> str:
    """A network without host bits, a single address without its length: as the firewall lists it."""
    address, _, length = network.partition("/")
    if not length or length == "32":
        return address
    a, b, c, d = map(int, address.split("."))
    shift = 32 - int(length)
    value = (a << 24 | b << 16 | c << 8 | d) >> shift << shift
    return f"{value >> 24}.{value >> 16 & 255}.{value >> 8 & 255}.{value & 255}/{length}"


def is_mac(text: str) -> bool:
    """A MAC address in lower case."""
    return _MAC.fullmatch(text) is not None


@lru_cache(maxsize=65536)
def is_host_name(text: str) -> bool:
    """A host name or domain of letters, digits and hyphens (RFC 1123)."""
    return len(text) <= 253 and all(_LABEL.fullmatch(label) for label in text.split("."))  # noqa: PLR2004 RFC 1035's limit
