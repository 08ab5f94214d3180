"""What VMs are given: addresses and names, data about themselves, passwords.  Pure."""

from collections.abc import Mapping, Sequence
from typing import Any

from holdfast.addresses import inside, network, prefix_length
from holdfast.legacy.reading import Bag, Json, Notes, flag, items, objects, picked, text
from holdfast.texts import is_ipv4


def dhcp(bags: Mapping[str, Bag], line: Mapping[str, str], notes: Notes) -> list[Json]:
    """A message for each nic of a VM; `line` tells the networks of the boot line's nics."""
    found: dict[str, list[Json]] = {}
    gone: list[str] = []
    for key, entry in objects("dhcpentry", bags.get("dhcpentry", {}), notes):
        if flag(entry.get("remove")) or not flag(entry.get("add"), default=True):
            gone.append(key)
            continue
        message = _entry(key, entry)
        found.setdefault(str(message.get("mac_address")).lower(), []).append(message)
    notes.left_out("dhcpentry", "removed earlier, and kept", gone)
    networks = _networks(bags, line)
    messages: list[Json] = []
    for mac, several in found.items():
        if len(several) > 1:
            several = _chosen(mac, several, networks, notes)  # noqa: PLW2901 what is left of it
        messages += several
    return messages


def _entry(key: str, entry: Json) -> Json:
    names = dict.fromkeys(("host_name", "mac_address", "default_gateway", "ipv6_address", "ipv6_duid"), text)
    message: Json = {"type": "dhcpentry", "default_entry": flag(entry.get("default_entry"), default=True)}
    message["ipv4_address"] = text(entry.get("ipv4_address")) or text(entry.get("ipv4_adress")) or key
    return message | picked(entry, **names)


def _chosen(mac: str, several: list[Json], networks: list[str], notes: Notes) -> list[Json]:
    """One nic has one address: the one in a network that is here."""
    here = [message for message in several if inside_any(message["ipv4_address"], networks)]
    addresses = ", ".join(str(message["ipv4_address"]) for message in several)
    if len(here) == 1:
        notes.repair("dhcpentry", f"{mac} has {addresses}: only {here[0]['ipv4_address']} is in a network here")
        return here
    notes.lost("dhcpentry", f"{mac} has {addresses}: nobody can tell which; none is served")
    return []


def inside_any(address: Any, networks: list[str]) -> bool:
    """Whether text is an address in one of these networks."""
    return is_ipv4(str(address)) and inside(str(address), networks)


def _networks(bags: Mapping[str, Bag], line: Mapping[str, str]) -> list[str]:
    pairs = [(line.get(f"eth{number}ip"), line.get(f"eth{number}mask")) for number in range(3)]
    for name, address, mask in (
        ("ips", "public_ip", "netmask"),
        ("guestnetwork", "router_guest_ip", "router_guest_netmask"),
    ):
        for entries in bags.get(name, {}).values():
            held = [entry for entry in items(entries) if isinstance(entry, dict)]
            pairs += [(text(e.get(address)), text(e.get(mask))) for e in held if flag(e.get("add"), default=True)]
    good = [(one, mask) for one, mask in pairs if one and mask and is_ipv4(one) and is_ipv4(mask)]
    return [network(one, length) for one, mask in good if (length := prefix_length(mask))]


def metadata(bags: Mapping[str, Bag], known: list[Json], notes: Notes) -> list[Json]:
    """A message for each VM; what is about VMs that are gone is left out, where it is known which are here."""
    addresses = {message["ipv4_address"] for message in known}
    found, gone = [], []
    for address, entries in bags.get("vmdata", {}).items():
        if addresses and address not in addresses:
            gone.append(address)
            continue
        rows = [row for row in items(entries) if isinstance(row, list) and len(row) == _ROW]
        if len(rows) < len(items(entries)):
            notes.lost("vmdata", f"{address}: {len(items(entries)) - len(rows)} entries are none")
        data = [[str(row[0]), str(row[1]), row[2] if row[2] is None else str(row[2])] for row in rows]
        found.append({"type": "vmdata", "vm_ip_address": address, "vm_metadata": data})
    notes.left_out("vmdata", "of VMs that are gone", sorted(gone))
    return found


_ROW = 3


def passwords(bags: Mapping[str, Bag], waiting: Sequence[str] | None, notes: Notes) -> list[Json]:
    """Those that still wait, as the old password servers' files (lines `address=password`) tell.

    The bag keeps what was fetched long ago: serving it would set a VM back to an old password.  `waiting` None: there
    are no files.
    """
    held = {one.partition("=")[0]: one.partition("=")[2] for one in waiting or () if "=" in one}
    stale = sorted(address for address in bags.get("vmpassword", {}) if address not in held)
    if stale and waiting is None:
        notes.repair("vmpassword", f"{len(stale)} left out: nobody can tell which of them VMs have fetched")
    elif stale:
        notes.repair("vmpassword", f"{len(stale)} were fetched already: left out")
    return [{"type": "vmpassword", "ip_address": address, "password": held[address]} for address in sorted(held)]
