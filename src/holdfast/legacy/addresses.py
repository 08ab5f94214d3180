"""Addresses, tiers and aliases: the bags `ips` and `guestnetwork`.  Pure."""

from collections.abc import Iterator, Mapping
from typing import Any

from holdfast.addresses import dotted
from holdfast.legacy.reading import Bag, Json, Notes, device_number, flag, items, number, picked, text
from holdfast.router import Nic
from holdfast.texts import is_ipv4

_OURS = ("guest", "control")
"""Kinds of networks of which `ips` only repeats what another bag, or the boot line, says."""


def ips(bags: Mapping[str, Bag], line: Mapping[str, str], nics: tuple[Nic, ...], notes: Notes) -> list[Json]:
    """Everything that is on public and private nics, as one message."""
    gone: list[str] = []
    units: dict[str, Json] = {}
    tiers = {
        entry.get("router_guest_ip") for entries in bags.get("guestnetwork", {}).values() for entry in _all(entries)
    }
    for device, entry in _entries(bags, notes):
        address = text(entry.get("public_ip")) or text(entry.get("ip_address")) or ""
        if not is_ipv4(address):
            notes.lost("ips", f"{device}: {address or 'an entry'} is no address")
        elif not flag(entry.get("add"), default=True):
            gone.append(address)
        elif _kind(entry) in _OURS:
            if line.get("type") == "vpcrouter" and _kind(entry) == "guest" and address not in tiers:
                notes.lost("ips", f"{device}: {address} is a tier's, and guestnetwork knows no such tier")
        elif not _booted(address, entry, line) and (unit := _unit(address, device, entry, notes)):
            _put(units, unit, nics, notes)
    notes.left_out("ips", "given up earlier, and kept as `add` false", gone)
    return [{"type": "ips", "ip_address": [*units.values()]}] if units else []


def _entries(bags: Mapping[str, Bag], notes: Notes) -> Iterator[tuple[str, Json]]:
    for device, entries in sorted(bags.get("ips", {}).items(), key=lambda item: (device_number(item[0]) or 0, item[0])):
        for entry in items(entries):
            if isinstance(entry, dict):
                yield device, entry
            else:
                notes.lost("ips", f"{device} holds what is no entry")


def _all(entries: Any) -> list[Json]:
    return [entry for entry in items(entries) if isinstance(entry, dict)]


def _kind(entry: Json) -> str:
    return (text(entry.get("nw_type")) or "public").lower()


def _booted(address: str, entry: Json, line: Mapping[str, str]) -> bool:
    """Whether the entry only repeats the boot line: the old agent puts those in without a MAC."""
    return "vif_mac_address" not in entry and any(
        value == address and key.startswith("eth") and key.endswith("ip") for key, value in line.items()
    )


def _unit(address: str, device: str, entry: Json, notes: Notes) -> Json | None:
    mac = text(entry.get("vif_mac_address")) or text(entry.get("mac_address"))
    place = device_number(device)
    if place is None and not mac:
        notes.lost("ips", f"{address} is on {device!r}, which is no nic, and has no MAC")
        return None
    if place is None:
        notes.repair("ips", f"{address} is on {device!r}, which is no nic: its MAC tells which")
    netmask = text(entry.get("netmask")) or _mask(text(entry.get("size")) or "")
    unit: Json = {"public_ip": address, "add": True, "netmask": netmask, "source_nat": flag(entry.get("source_nat"))}
    unit |= {name: flag(entry.get(name)) for name in ("one_to_one_nat", "is_private_gateway")}
    unit |= picked(entry, gateway=text, mtu=number)
    if mac:
        unit["vif_mac_address"] = mac
    if place is not None:
        unit["nic_dev_id"] = place
    if "is_private_gateway" in entry or _kind(entry) != "public":
        # Only such an entry is surely of a server whose MACs are the nics' own: the old agent wrote "public" itself.
        unit["nw_type"] = _kind(entry)
    return unit


def _mask(size: str) -> str | None:
    return dotted(0xFFFFFFFF << (32 - int(size)) & 0xFFFFFFFF) if size.isascii() and size.isdigit() else None


def _put(units: dict[str, Json], unit: Json, nics: tuple[Nic, ...], notes: Notes) -> None:
    """An address lives on one nic: of two the one whose MAC is here; nobody can say more."""
    address = unit["public_ip"]
    known = units.get(address)
    if known is None or known == unit:
        units[address] = unit
        return
    macs = {nic.mac for nic in nics}
    here = [one for one in (known, unit) if str(one.get("vif_mac_address", "")).lower() in macs]
    if len(here) == 1:
        units[address] = here[0]
        notes.repair("ips", f"{address} stands there twice: the nic with {here[0]['vif_mac_address']} has it")
    elif known.get("nic_dev_id") == unit.get("nic_dev_id"):
        units[address] = unit
        notes.repair("ips", f"{address} stands there twice on eth{unit.get('nic_dev_id')}: the later entry counts")
    else:
        where = f"eth{known.get('nic_dev_id')} and eth{unit.get('nic_dev_id')}"
        notes.lost("ips", f"{address} stands there twice, on {where}: nobody can tell which; the first is taken")


def aliases(bags: Mapping[str, Bag], line: Mapping[str, str]) -> list[Json]:
    """Further addresses of the guest nic: the old agent put aliases among the addresses, without their numbers.

    They get numbers that no server gives: the real ones come with the next message, and take the addresses over.
    """
    if line.get("type") not in ("router", "dhcpsrvr"):
        return []
    found = [
        {"revoke": False, "ip_address": address, "netmask": text(entry.get("netmask")) or ""}
        for entries in bags.get("ips", {}).values()
        for entry in _all(entries)
        if _kind(entry) == "guest" and flag(entry.get("add"), default=True)
        if (address := text(entry.get("public_ip")) or "") and not _booted(address, entry, line)
    ]
    numbered = [{**alias, "count": -1 - at} for at, alias in enumerate(found)]
    return [{"type": "ipaliases", "aliases": numbered}] if numbered else []


_TIER: dict[str, Any] = {
    **dict.fromkeys(
        ("router_guest_ip", "router_guest_netmask", "router_guest_gateway", "cidr", "domain_name", "cidr6", "dns6",
         "router_guest_ip6", "router_guest_ip6_gateway", "router_guest_ip6_cidr", "router_ip6", "router_ip6_gateway",
         "router_ip6_cidr"),
        text,
    ),
    "mtu": number,
    "network_id": number,
}  # fmt: skip


def tiers(bags: Mapping[str, Bag], notes: Notes) -> list[Json]:
    """A message for each tier."""
    found = []
    ghosts: list[str] = []
    for device, entries in sorted(bags.get("guestnetwork", {}).items()):
        there = []
        for entry in items(entries):
            if not isinstance(entry, dict):
                notes.lost("guestnetwork", f"{device} holds what is no tier")
            elif flag(entry.get("add"), default=True):
                there.append(entry)
            else:
                ghosts.append(f"{entry.get('router_guest_ip', '?')} on {device}")
        if len(there) > 1 and any(entry != there[-1] for entry in there):
            notes.repair("guestnetwork", f"{device} stands there {len(there)} times: the last entry counts")
        found += [_tier(device, there[-1], notes)] if there else []
    notes.left_out("guestnetwork", "taken down earlier, and kept as `add` false", ghosts)
    return found


def _tier(device: str, entry: Json, notes: Notes) -> Json:
    told = text(entry.get("device")) or device
    if told != device:
        notes.repair("guestnetwork", f"{told} stands under {device}: its MAC tells which nic it is")
    dns = entry.get("dns")
    servers = ",".join(str(one) for one in dns) if isinstance(dns, list) else text(dns)
    message: Json = {
        "type": "guestnetwork",
        "add": True,
        "device": device,
        "mac_address": text(entry.get("mac_address")),
    }
    message |= picked(entry, **_TIER) | ({"dns": servers} if servers else {})
    if "is_vr_guest_gateway" in entry:
        message["is_vr_guest_gateway"] = flag(entry["is_vr_guest_gateway"], default=True)
    return {name: value for name, value in message.items() if value is not None}
