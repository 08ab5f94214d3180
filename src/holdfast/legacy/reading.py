"""Reading values that were written by many hands: text for numbers, words for truth, Python's None.  Pure."""

import re
from collections.abc import Iterator, Mapping
from typing import Any, TypeAlias

import msgspec

Json: TypeAlias = dict[str, Any]
Bag: TypeAlias = dict[str, Any]

_DEVICE = re.compile(r"eth([0-9]{1,3})")
_NOTHING = (None, "", "None", "null")
_SHOWN = 8


class Notes:
    """What is said of the bags while they are read; lines begin with the bag's name, and hold no secret."""

    def __init__(self) -> None:
        self.repaired: list[str] = []
        self.unread: list[str] = []

    def repair(self, name: str, text: str) -> None:
        """Something was put right, or left out because it means nothing."""
        self.repaired.append(f"{name}: {text}")

    def lost(self, name: str, text: str) -> None:
        """Something could not be read; what it said is missing."""
        self.unread.append(f"{name}: {text}")

    def left_out(self, name: str, what: str, items: list[str]) -> None:
        """Several of one kind in one line."""
        if items:
            more = f" and {len(items) - _SHOWN} more" if len(items) > _SHOWN else ""
            self.repair(name, f"{what}: {', '.join(items[:_SHOWN])}{more}: left out")


def bag(name: str, document: bytes, notes: Notes) -> Bag:
    """A bag without its `id`; an unreadable one is named, and empty."""
    try:
        found = msgspec.json.decode(document)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        notes.lost(name, f"{name}.json cannot be read: {'empty' if not document.strip(chr(0).encode()) else error}")
        return {}
    if not isinstance(found, dict):
        notes.lost(name, f"{name}.json is no bag")
        return {}
    return {key: value for key, value in found.items() if not (key == "id" and isinstance(value, str))}


def device_number(device: str) -> int | None:
    """N of ethN; None for `ethNone` and whatever else there is."""
    match = _DEVICE.fullmatch(device)
    return int(match[1]) if match else None


def text(value: Any) -> str | None:
    """Text, None for what Python and Java write for nothing."""
    if value in _NOTHING or isinstance(value, (dict, list)):
        return None
    return ("true" if value else "false") if isinstance(value, bool) else str(value)


def flag(value: Any, *, default: bool = False) -> bool:
    """Truth, however it was spelt."""
    if value in _NOTHING:
        return default
    return value.strip().lower() in ("true", "1", "yes") if isinstance(value, str) else bool(value)


def number(value: Any) -> Any:
    """A whole number where it is one, in whatever form; None for nothing; what is no number as it came, so that it is
    refused by who knows what it should be.
    """
    if value in _NOTHING:
        return None
    if isinstance(value, str) and re.fullmatch(r"-?[0-9]{1,18}", value.strip()):
        return int(value)
    if isinstance(value, float) and value.is_integer():
        return int(value)
    return value


def items(value: Any) -> list[Any]:
    """The elements of a list, the values of an object, nothing of nothing."""
    if isinstance(value, dict):
        return list(value.values())
    return value if isinstance(value, list) else [] if value in _NOTHING else [value]


def objects(name: str, entries: Mapping[str, Any], notes: Notes) -> Iterator[tuple[str, Json]]:
    """Entries that are objects; others are named."""
    for key, value in entries.items():
        if isinstance(value, dict):
            yield key, value
        else:
            notes.lost(name, f"{key} is no entry")


def picked(entry: Mapping[str, Any], **fields: Any) -> Json:
    """Fields of an entry, each by its converter; those that say nothing are left away."""
    found = {name: convert(entry.get(name)) for name, convert in fields.items() if name in entry}
    return {name: value for name, value in found.items() if value is not None}


_NEWER = {
    "ips": ("is_private_gateway", "mtu"),
    "guestnetwork": ("network_id", "is_vr_guest_gateway", "mtu", "cidr6"),
    "dhcpentry": ("ipv4_address", "remove"),
    "firewallrules": ("dest_cidr_list",),
    "site2sitevpn": ("encap", "ike_version"),
    "networkacl": ("delete_from_processed_cache", "nic_ip6_cidr"),
}
"""Fields of entries that no server before 4.8 sends."""


def is_modern(bags: Mapping[str, Bag]) -> bool:
    """Whether a management server of 4.8 or newer has spoken to this router (WIRE 8)."""
    for name, fields in _NEWER.items():
        for value in bags.get(name, {}).values():
            for entry in items(value) if isinstance(value, list) else [value]:
                if isinstance(entry, dict) and any(field in entry for field in fields):
                    return True
    texts = [str(acl) for acl in bags.get("networkacl", {}).values() if isinstance(acl, dict)]
    if any(re.search(r"'cidr': '[^']*[,:]", one) for one in texts):
        return True
    return any(key.startswith("health_checks") for key in bags.get("monitorservice", {}))
