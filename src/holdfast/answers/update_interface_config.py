"""What update_interface_config.sh means as a message, and what it prints where no nic has the address.  Pure."""

from typing import Any, NamedTuple

from holdfast.router import Router

_SMALLEST = 576  # RFC 791


class Told(NamedTuple):
    """The message that says the new MTU, or the key of the boot line that does."""

    message: dict[str, Any]
    boot_key: str = ""
    mtu: int = 0


def smallest() -> int:
    """The least MTU that IPv4 allows, in bytes."""
    return _SMALLEST


def not_found(address: str) -> str:
    """The text that servers look for, and forgive."""
    return f"Interface with IP {address} not found"


def retold(router: Router, address: str, mtu: int) -> Told | None:
    """What was said of the nic with this address, with another MTU; None if no nic is known to have it."""
    face = router.holder(address) or next((f for f in router.interfaces if f.virtual == address), None)
    if face is None or not face.device or face.purpose not in ("guest", "public", "private", "tier"):
        return None
    held = router.config["ips"].addresses.get(address)
    if held is not None:
        unit = {
            "public_ip": address,
            "add": True,
            "netmask": _netmask(held.prefix),
            "gateway": held.gateway or None,
            "vif_mac_address": held.nic if ":" in held.nic else None,
            "nic_dev_id": face.number,
            "nw_type": held.kind,
            "is_private_gateway": held.private_gateway,
            "source_nat": held.source_nat,
            "mtu": mtu,
        }
        return Told({"type": "ips", "ip_address": [{k: v for k, v in unit.items() if v is not None}]})
    if face.nic in router.tiers:
        return Told(_tier(router, face.nic, mtu))
    return Told({}, {"guest": "privateMtu", "public": "publicMtu"}[face.purpose], mtu)


def _tier(router: Router, nic: str, mtu: int) -> dict[str, Any]:
    tier = router.tiers[nic]
    fields = {
        "type": "guestnetwork",
        "add": True,
        "mac_address": nic if ":" in nic else router.facts.mac(nic),
        "device": router.facts.device(nic),
        "router_guest_ip": tier.address,
        "router_guest_netmask": _netmask(tier.prefix),
        "router_guest_gateway": tier.gateway,
        "dns": ",".join(tier.dns),
        "domain_name": tier.domain,
        "is_vr_guest_gateway": tier.is_gateway,
        "network_id": tier.network_id,
        "mtu": mtu,
    }
    return fields | tier.ipv6


def _netmask(prefix: int) -> str:
    bits = (0xFFFFFFFF << (32 - prefix)) & 0xFFFFFFFF
    return ".".join(str(bits >> shift & 255) for shift in (24, 16, 8, 0))


def with_mtu(message: dict[str, Any], key: str, mtu: int) -> dict[str, Any]:
    """A boot line's message with another MTU; KeyError if it is none."""
    return {**message, "cmd_line": {**message["cmd_line"], key: str(mtu)}}
