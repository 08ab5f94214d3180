"""cosmic's bags in CloudStack's shapes: its two overviews of the whole, and its private gateways.  Pure."""

from collections.abc import Iterable, Mapping
from typing import Any

from holdfast.addresses import dotted
from holdfast.legacy.reading import Bag, Json, Notes, flag, items, text
from holdfast.router import Nic

_NO_USE = {"sync": "its pair is formed over guest networks", "other": "nothing is done with it"}


def expand(bags: dict[str, Bag], nics: Iterable[Nic], notes: Notes) -> None:
    """Put what cosmic's own bags say into those that CloudStack has; its overview is newer than what stands there."""
    names = {nic.mac: nic.name for nic in nics}
    overview = bags.pop("network_overview", None)
    if overview is not None:
        _interfaces(bags, overview, names, notes)
        _routes(bags, overview, notes)
        _not_taken(overview, notes)
    machines = bags.pop("vm_overview", None)
    if machines is not None:
        _vms(bags, machines)
    for key, entry in bags.pop("privategateway", {}).items():
        for one in items(entry) if isinstance(entry, list) else [entry]:
            if isinstance(one, dict) and flag(one.get("add"), default=True):
                _replace(bags, key, {**one, "public_ip": text(one.get("ip_address")), "is_private_gateway": True})
    if bags.pop("publicipacl", None):
        notes.lost("publicipacl", "ACLs of public addresses are nothing that this router has")
    if bags.pop("virtualrouter", None):
        notes.repair("virtualrouter", "nothing is done with it")


def _replace(bags: dict[str, Bag], device: str, entry: Json) -> None:
    """An address that a newer bag has more to say about."""
    held = bags.setdefault("ips", {})
    for name, entries in held.items():
        held[name] = [one for one in items(entries) if not _same(one, entry)]
    told = {**entry, "nw_type": "public"}
    held.setdefault(text(entry.get("device")) or device, []).append(told)


def _same(one: Any, entry: Json) -> bool:
    return isinstance(one, dict) and entry["public_ip"] in (one.get("public_ip"), one.get("ip_address"))


def _interfaces(bags: dict[str, Bag], overview: Bag, names: Mapping[str, str], notes: Notes) -> None:
    services = overview.get("services")
    found = items(services.get("source_nat")) if isinstance(services, dict) else []
    leaving: Json = found[0] if found and isinstance(found[0], dict) else {}
    for interface in items(overview.get("interfaces")):
        about = interface.get("metadata") if isinstance(interface, dict) else None
        mac = text(interface.get("mac_address")) if isinstance(interface, dict) else None
        if not isinstance(about, dict) or not mac:
            notes.lost("network_overview", "an interface without a MAC or a type")
            continue
        kind, device = text(about.get("type")) or "", names.get(mac.lower(), mac)
        if kind in _NO_USE:
            notes.repair("network_overview", f"{device}, of type {kind}: {_NO_USE[kind]}")
            continue
        for held in items(interface.get("ipv4_addresses")):
            entry = _address(held, mac, device, leaving)
            if entry is None or kind not in ("guesttier", "public", "private"):
                notes.lost("network_overview", f"{device}: an address of type {kind!r} that cannot be read")
            elif kind == "guesttier":
                bags.setdefault("guestnetwork", {})[device] = [_tier(entry, about, device)]
            else:
                _replace(bags, device, {**entry, "is_private_gateway": kind == "private"})


def _address(held: Any, mac: str, device: str, leaving: Json) -> Json | None:
    cidr = text(held.get("cidr")) if isinstance(held, dict) else None
    address, _, size = (cidr or "").partition("/")
    if not size.isdigit():
        return None
    gateway = text(held.get("gateway")) or (text(leaving.get("gateway")) if leaving.get("to") == address else None)
    return {
        "public_ip": address,
        "netmask": dotted(0xFFFFFFFF << (32 - int(size)) & 0xFFFFFFFF),
        "gateway": gateway,
        "vif_mac_address": mac,
        "device": device,
        "source_nat": leaving.get("to") == address,
        "add": True,
    }


def _tier(entry: Json, about: Json, device: str) -> Json:
    servers = [server for name in ("dns1", "dns2") if (server := text(about.get(name)))]
    return {
        "add": True,
        "device": device,
        "mac_address": entry["vif_mac_address"],
        "router_guest_ip": entry["public_ip"],
        "router_guest_netmask": entry["netmask"],
        "router_guest_gateway": entry["gateway"] or entry["public_ip"],
        "dns": ",".join(servers),
        "domain_name": text(about.get("domain_name")),
    }


def _routes(bags: dict[str, Bag], overview: Bag, notes: Notes) -> None:
    held = bags.setdefault("staticroutes", {})
    for route in items(overview.get("routes")):
        target = text(route.get("cidr")) if isinstance(route, dict) else None
        if not target:
            notes.lost("network_overview", "a route without a destination")
        elif target.endswith("/0"):
            notes.repair("network_overview", "its default route: the public network's gateway is it")
        else:
            held[target] = {"network": target, "gateway": text(route.get("next_hop")), "revoke": False}


def _not_taken(overview: Bag, notes: Notes) -> None:
    balancing = overview.get("loadbalancer")
    if isinstance(balancing, dict) and any(balancing.get(name) for name in balancing):
        notes.lost("network_overview", "load balancing: only finished haproxy text is understood")
    if overview.get("vpn"):
        notes.lost("network_overview", "VPN: it has to be sent again")
    if overview.get("syslog"):
        notes.repair("network_overview", "syslog servers: left out")


def _vms(bags: dict[str, Bag], machines: Bag) -> None:
    data = bags.setdefault("vmdata", {})
    for vm in items(machines.get("vms")):
        for interface in items(vm.get("interfaces")) if isinstance(vm, dict) else []:
            address = text(interface.get("ipv4_address")) if isinstance(interface, dict) else None
            if address:
                about, own = interface.get("metadata"), interface.get("user_data")
                rows = [["metadata", name, value] for name, value in about.items()] if isinstance(about, dict) else []
                # cosmic's user data is in base64 already, under names of its own choice; one is served.
                rows += [["userdata", "user-data", one] for one in items(own)[:1]]
                data[address] = rows
