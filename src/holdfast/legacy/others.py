"""Load balancing, and what is kept for features to come: monitoring, VPN, BGP.  Pure."""

from collections.abc import Mapping
from typing import Any

from holdfast.legacy.reading import Bag, Json, Notes, flag, items, number, objects, picked, text


def load_balancer(bags: Mapping[str, Bag], notes: Notes) -> list[Json]:
    """The one complete configuration."""
    config = bags.get("loadbalancer", {}).get("config")
    rules = [rule for rule in items([config] if isinstance(config, dict) else config) if isinstance(rule, dict)]
    if config and not rules:
        notes.lost("loadbalancer", "config is none")
    if len(rules) > 1:
        notes.repair("loadbalancer", f"{len(rules)} configurations: the last one counts")
    if not rules:
        return []
    rule = {name: value for name, value in rules[-1].items() if value is not None}
    rule["configuration"] = [str(one) for one in items(rule.get("configuration"))]
    return [{"type": "loadbalancer", "rules": [rule]}]


def monitor(bags: Mapping[str, Bag]) -> list[Json]:
    """What is watched."""
    held = bags.get("monitorservice", {})
    found = picked(
        held,
        config=text,
        disable_monitoring=text,
        health_checks_basic_run_interval=number,
        health_checks_advanced_run_interval=number,
        excluded_health_checks=_plain,
        health_checks_config=_texts,
    )
    if "health_checks_enabled" in held:
        found["health_checks_enabled"] = flag(held["health_checks_enabled"])
    return [{"type": "monitorservice", **found}] if found else []


def _plain(value: Any) -> str:
    return text(value) or ""


def _texts(value: Any) -> dict[str, str] | None:
    return {name: str(one) for name, one in value.items()} if isinstance(value, dict) else None


_TUNNEL: dict[str, Any] = {
    **dict.fromkeys(
        ("local_public_ip", "peer_gateway_ip", "local_guest_cidr", "local_public_gateway", "peer_guest_cidr_list",
         "ike_policy", "esp_policy", "ike_version"),
        text,
    ),
    "ipsec_psk": _plain,
    **dict.fromkeys(("ike_lifetime", "esp_lifetime"), number),
    **dict.fromkeys(("dpd", "passive", "encap", "split_connections"), flag),
}  # fmt: skip


def tunnels(bags: Mapping[str, Bag], notes: Notes) -> list[Json]:
    """A message for each site-to-site VPN."""
    return _created("site2sitevpn", bags, _TUNNEL, notes)


def remote_access(bags: Mapping[str, Bag], notes: Notes) -> list[Json]:
    """A message for each remote access VPN."""
    names = ("vpn_server_ip", "ip_range", "local_ip", "local_cidr", "public_interface")
    return _created("remoteaccessvpn", bags, {**dict.fromkeys(names, text), "preshared_key": _plain}, notes)


def _created(name: str, bags: Mapping[str, Bag], fields: Mapping[str, Any], notes: Notes) -> list[Json]:
    found, ghosts = [], []
    for key, entry in objects(name, bags.get(name, {}), notes):
        if flag(entry.get("create"), default=True):
            found.append({"type": name, "create": True, **picked(entry, **fields)})
        else:
            ghosts.append(key)
    notes.left_out(name, "deleted earlier, and configured again by each command", ghosts)
    return found


def users(bags: Mapping[str, Bag], notes: Notes) -> list[Json]:
    """The users of the remote access VPN."""
    held = {name: value for name, value in bags.get("vpnuserlist", {}).items() if name != "vpn_type"}
    found = [
        {"user": text(entry.get("user")) or name, "password": _plain(entry.get("password")), "add": True}
        for name, entry in objects("vpnuserlist", held, notes)
        if flag(entry.get("add"), default=True)
    ]
    return [{"type": "vpnuserlist", "vpn_users": found}] if found else []


def peers(bags: Mapping[str, Bag]) -> list[Json]:
    """BGP peers."""
    found = [entry for entry in bags.get("bgppeers", {}).values() if isinstance(entry, dict)]
    return [{"type": "bgppeers", "peers": found}] if found else []
