"""Names of peers elsewhere and their addresses: what a run wants to know, and what an ear has found."""

from ipaddress import IPv4Address
from pathlib import Path

import msgspec

from holdfast.swanctl import NAMES
from holdfast.texts import is_host_name, is_ipv4

WANTED = NAMES.lstrip("/")
FOUND = "run/holdfast/names-found.json"
_MOST = 8


def wanted(root: Path) -> tuple[str, ...]:
    """Names that the last run wants to know the addresses of; nothing for what it has not written."""
    try:
        told = msgspec.json.decode((root / WANTED).read_bytes(), type=tuple[str, ...])
    except (OSError, ValueError):
        return ()
    return tuple(name for name in told if is_host_name(name))


def found(root: Path) -> dict[str, tuple[str, ...]]:
    """Addresses by name, as last found."""
    try:
        told = msgspec.json.decode((root / FOUND).read_bytes(), type=dict[str, tuple[str, ...]])
    except (OSError, ValueError):
        return {}
    return {name: held for name, held in told.items() if held and all(is_ipv4(address) for address in held)}


def addresses(said: bytes) -> tuple[str, ...]:
    """Addresses in what getent(1) prints of `ahostsv4`, in an order that every answer has; none that is nobody's."""
    words = (line.split()[0] for line in said.decode("ascii", "replace").splitlines() if line.strip())
    known = {IPv4Address(word) for word in words if is_ipv4(word)}
    reached = [one for one in known if not (one.is_loopback or one.is_multicast or one.is_unspecified)]
    return tuple(str(one) for one in sorted(reached)[:_MOST])
