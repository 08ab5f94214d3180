"""What may pass: ACLs, firewall rules, forwards and static NAT, static routes.  Pure."""

from collections.abc import Mapping
from typing import Any

from holdfast.legacy.reading import Bag, Json, Notes, flag, items, number, objects, picked, text


def acl_default(bags: Mapping[str, Bag], line: Mapping[str, str], *, strict: bool, notes: Notes) -> list[Json]:
    """What the old agent did with egress that no rule matches: it let it out.  `strict`: it was cosmic's, which did as
    users are told.
    """
    if line.get("type") != "vpcrouter" or strict:
        return []
    ruled = [
        device
        for device, acl in bags.get("networkacl", {}).items()
        if isinstance(acl, dict) and acl.get("egress_rules")
    ]
    if ruled:
        notes.repair("networkacl", f"egress that no rule matches stays accepted, as it was, on {', '.join(ruled)}")
    return [{"type": "acldefault", "always_accept": True}]


def acls(bags: Mapping[str, Bag], *, modern: bool, notes: Notes) -> list[Json]:
    """A message for each nic's ACL that still is that nic's.  `modern`: a server of 4.8 or newer has spoken."""
    macs, nameless = _nic_macs(bags)
    found = []
    for device, entry in objects("networkacl", bags.get("networkacl", {}), notes):
        mac = (text(entry.get("mac_address")) or "").lower()
        rules = {field: items(entry.get(field)) for field in ("ingress_rules", "egress_rules")}
        if mac not in macs and device not in nameless:
            notes.repair("networkacl", f"{device}: an ACL of what was there before ({mac or 'no MAC'}): left out")
            continue
        message: Json = {"type": "networkacl", "device": device, "mac_address": mac}
        message["private_gateway_acl"] = flag(entry.get("private_gateway_acl"))
        message |= picked(entry, nic_ip=text, nic_netmask=text, nic_ip6_cidr=text)
        message |= {field: [_acl_rule(rule) for rule in one] for field, one in rules.items()}
        texts = [str(rule.get("cidr", "")) for one in rules.values() for rule in one if isinstance(rule, dict)]
        newer = modern and not any("-" in cidr for cidr in texts)
        if newer:
            message["delete_from_processed_cache"] = False  # what only servers since 4.14 say: ascending rules
        elif any(len({_verdict(rule) for rule in one}) > 1 for one in rules.values()):
            notes.repair(
                "networkacl", f"{device}: the highest number was evaluated first; now it is the lowest, as meant"
            )
        found.append(message)
    return found


def _verdict(rule: Any) -> bool:
    return isinstance(rule, dict) and flag(rule.get("allowed"))


def _nic_macs(bags: Mapping[str, Bag]) -> tuple[set[str], set[str]]:
    """MACs of all tiers and addresses, and the devices whose addresses have none."""
    macs: set[str] = set()
    nameless: set[str] = set()
    for name in ("guestnetwork", "ips"):
        for device, entries in bags.get(name, {}).items():
            held = [entry for entry in items(entries) if isinstance(entry, dict)]
            live = [entry for entry in held if flag(entry.get("add"), default=True)]
            own = {text(entry.get(field)) for entry in live for field in ("mac_address", "vif_mac_address")} - {None}
            macs |= {str(mac).lower() for mac in own}
            if live and not own:
                nameless.add(device)
    # What `ips` repeats of a tier has no MAC there, and has one in `guestnetwork`.
    return macs, nameless - {device for device, entries in bags.get("guestnetwork", {}).items() if entries}


def _acl_rule(rule: Any) -> Any:
    if not isinstance(rule, dict):
        return rule
    numbers = dict.fromkeys(("first_port", "last_port", "icmp_type", "icmp_code", "protocol"), number)
    return {
        "type": text(rule.get("type")) or "all",
        "allowed": flag(rule.get("allowed")),
        "cidr": text(rule.get("cidr")) or "",
    } | picked(rule, **numbers)


def firewall(bags: Mapping[str, Bag], line: Mapping[str, str], *, modern: bool, notes: Notes) -> list[Json]:
    """All rules as one message."""
    found, gone = [], []
    for key, entry in objects("firewallrules", bags.get("firewallrules", {}), notes):
        rule = _firewall_rule(key, entry)
        if flag(entry.get("revoked")):
            gone.append(key)
        else:
            if str(rule["id"]) != key:
                notes.repair("firewallrules", f"rule {rule['id']} stands under {key}: its own number counts")
            found.append(rule)
    notes.left_out("firewallrules", "revoked earlier", gone)
    allows = any(rule["id"] == 0 and rule["default_egress_policy"] for rule in found)
    some = any(rule["traffic_type"] == "Egress" and not rule["default_egress_policy"] for rule in found)
    if line.get("type") == "router" and not modern and not allows:
        rest = "only what its rules allow leaves" if some else "nothing leaves"
        notes.repair(
            "firewallrules",
            f"the network denies by default; agents of this age let everything out all the same: now {rest}",
        )
    return [{"type": "firewallrules", "rules": found}] if found else []


def _firewall_rule(key: str, entry: Json) -> Json:
    told = number(entry.get("id"))
    fields = picked(entry, src_ip=_word, protocol=text, traffic_type=text, icmp_type=number, icmp_code=number)
    rule: Json = {"id": number(key) if told is None else told, "protocol": "", "traffic_type": "Ingress", **fields}
    rule["default_egress_policy"] = flag(entry.get("default_egress_policy"))
    rule["source_cidr_list"] = _cidrs(entry.get("source_cidr_list"))
    if entry.get("dest_cidr_list") is not None:
        rule["dest_cidr_list"] = _cidrs(entry["dest_cidr_list"])
    if ports := _ports(entry.get("src_port_range")):
        rule["src_port_range"] = ports
    return rule


def _word(value: Any) -> str:
    return text(value) or ""


def _cidrs(value: Any) -> list[Any]:
    return [part for part in value.split(",") if part] if isinstance(value, str) else items(value)


def _ports(value: Any) -> list[Any]:
    parts = value.replace("-", ":").split(":") if isinstance(value, str) else items(value)
    return [number(part) for part in parts if number(part) is not None]


def ipv6(bags: Mapping[str, Bag], notes: Notes) -> list[Json]:
    """All IPv6 rules as one message; they are kept as they are."""
    found = [
        {name: value for name, value in rule.items() if value is not None}
        for _, rule in objects("ipv6firewallrules", bags.get("ipv6firewallrules", {}), notes)
        if not flag(rule.get("revoked"))
    ]
    return [{"type": "ipv6firewallrules", "rules": found}] if found else []


def forwarding(bags: Mapping[str, Bag], notes: Notes) -> list[Json]:
    """Static NATs as one message, port forwards as another.

    Under each public address stands a list of rules, or, as servers between had it, an object of them by name.
    """
    static: dict[str, Json] = {}
    ports: dict[tuple[str, str, str], Json] = {}
    for public, entries in bags.get("forwardingrules", {}).items():
        for rule in items(entries):
            if not isinstance(rule, dict):
                notes.lost("forwardingrules", f"{public} holds what is no rule")
                continue
            told = text(rule.get("public_ip")) or public
            unit: Json = {"revoke": False, "source_ip_address": told}
            unit["destination_ip_address"] = _word(rule.get("internal_ip"))
            if rule.get("type") == "staticnat":
                static[told] = unit
                continue
            fields = picked(rule, protocol=text, public_ports=text, internal_ports=text)
            unit["protocol"] = fields.get("protocol", "").lower()
            unit["source_port_range"] = fields.get("public_ports", "")
            unit["destination_port_range"] = fields.get("internal_ports", "")
            unit["source_cidr_list"] = ",".join(str(cidr) for cidr in _cidrs(rule.get("source_cidr_list")))
            key = (told, unit["protocol"], unit["source_port_range"])
            if ports.get(key, unit) != unit:
                notes.repair("forwardingrules", f"{' '.join(key)} stands there twice: the later entry counts")
            ports[key] = unit
    for public in sorted(static.keys() & {address for address, _, _ in ports}):
        notes.repair("forwardingrules", f"{public} has static NAT and port forwards: the forwards come first")
    found: list[Json] = [{"type": "staticnatrules", "rules": [*static.values()]}] if static else []
    return [*found, *([{"type": "forwardrules", "rules": [*ports.values()]}] if ports else [])]


def routes(bags: Mapping[str, Bag], *, applied: bool, notes: Notes) -> list[Json]:
    """All static routes as one message.  `applied`: the old agent did something with them."""
    found, gone = [], []
    for key, entry in objects("staticroutes", bags.get("staticroutes", {}), notes):
        if flag(entry.get("revoke")):
            gone.append(key)
            continue
        route: Json = {"revoke": False, "network": text(entry.get("network")) or key}
        found.append(route | {"gateway": _word(entry.get("gateway"))} | picked(entry, ip_address=text))
    notes.left_out("staticroutes", "revoked earlier", gone)
    if found and not applied:
        notes.repair("staticroutes", f"the old agent never applied static routes: now {len(found)} hold")
    return [{"type": "staticroutes", "routes": found}] if found else []
