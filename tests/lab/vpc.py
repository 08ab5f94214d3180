"""A VPC's router in the lab, and messages about its tiers."""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from replay import Site, ips, said, site

CONTROL = (("control", "0e:00:a9:fe:31:05"),)
PUBLIC = "1e:00:cb:00:71:32"
BOOT_LINE = (
    "vpccidr=10.64.0.0/16 domain=vpc.example template=domP name=r-31-VM eth0ip=169.254.49.5 eth0mask=255.255.0.0 "
    "type=vpcrouter disable_rp_filter=true dns1=192.0.2.53 dns2=192.0.2.54 source_nat_ip=203.0.113.50 "
    "has_public_network=true publicMtu=1500\n"
)


def mac(number: int) -> str:
    """The MAC of the router's nic in a tier."""
    return f"02:00:5a:00:{number:02x}:01"


def net(number: int) -> str:
    """What all addresses of a tier begin with."""
    return f"10.64.{number}"


def tier(number: int, *, add: bool = True, **changed: Any) -> dict[str, Any]:
    """One tier, put up or torn down: 10.64.<number>.0/24."""
    return {
        "add": add, "mac_address": mac(number), "device": "eth9", "router_guest_ip": f"{net(number)}.1",
        "router_guest_netmask": "255.255.255.0", "router_guest_gateway": f"{net(number)}.1", "cidr": "24",
        "dns": "192.0.2.53,192.0.2.54", "domain_name": "vpc.example", "is_vr_guest_gateway": True,
        "network_id": 300 + number, "mtu": 1500, "type": "guestnetwork", "delete_from_processed_cache": False,
        **changed,
    }  # fmt: skip


def rule(kind: str, cidr: str, *, allowed: bool = True, **more: Any) -> dict[str, Any]:
    """One rule of an ACL."""
    return {"type": kind, "cidr": cidr, "allowed": allowed, **more}


def acl(number: int, ingress: list[dict[str, Any]], egress: list[dict[str, Any]], **changed: Any) -> dict[str, Any]:
    """A tier's whole ACL."""
    return {
        "device": "eth9", "mac_address": mac(number), "private_gateway_acl": False, "nic_ip": f"{net(number)}.1",
        "nic_netmask": "24", "ingress_rules": ingress, "egress_rules": egress, "type": "networkacl",
        "delete_from_processed_cache": False, **changed,
    }  # fmt: skip


def strict(number: int) -> dict[str, Any]:
    """An ACL that opens one port and one way out."""
    ingress = [rule("tcp", "192.0.2.0/24", first_port=443, last_port=443), rule("all", "0.0.0.0/0", allowed=False)]
    return acl(number, ingress, [rule("udp", "192.0.2.53/32", first_port=53, last_port=53)])


def host(number: int, at: int = 21, *, remove: bool = False, **changed: Any) -> dict[str, Any]:
    """A VM's nic in a tier."""
    return {
        "host_name": f"vm{number}-{at}", "mac_address": host_mac(number, at), "ipv4_address": f"{net(number)}.{at}",
        "ipv6_duid": "", "default_gateway": f"{net(number)}.1", "default_entry": True, "remove": remove,
        "type": "dhcpentry", "delete_from_processed_cache": False, **changed,
    }  # fmt: skip


def host_mac(number: int, at: int = 21) -> str:
    """The MAC of a VM's nic."""
    return f"02:00:5b:00:{number:02x}:{at:02x}"


def tell(made: Site, payload: dict[str, Any]) -> str:
    """Send a message that must be taken in whole; what was answered."""
    done = made.tell(payload, named(payload))
    assert done.code == 0, said(done)
    return done.text


def named(payload: dict[str, Any]) -> str:
    """The file that a message comes in."""
    files = {"guestnetwork": "guest_network", "networkacl": "network_acl", "dhcpentry": "vm_dhcp_entry"}
    return f"{files.get(payload['type'], 'ip_associations')}.json.{abs(hash(str(payload))):x}"


def plug(made: Site, number: int) -> str:
    """Plug a tier's nic; its name."""
    assert not nic(made, number)
    return made.router.plug(made.lab.segment(f"tier{number}"), mac(number))


def nic(made: Site, number: int) -> str:
    """What a tier's nic is called now; empty if it is not plugged."""
    return next((name for name, port in made.router.ports.items() if port.mac == mac(number)), "")


def macs(made: Site) -> dict[str, str]:
    """MACs by the nics' names."""
    return {name: port.mac for name, port in made.router.ports.items()}


def unplug(made: Site, number: int) -> None:
    """Take a tier's nic away, if it is there."""
    if nic(made, number):
        made.router.unplug(nic(made, number))


def up(made: Site, number: int, **changed: Any) -> str:
    """A tier with an ACL and a VM; its nic's name."""
    name = nic(made, number) or plug(made, number)
    tell(made, tier(number, **changed))
    tell(made, strict(number))
    tell(made, host(number))
    return name


def begin(made: Site) -> None:
    """Boot it and give it its public network."""
    booted = made.boot(BOOT_LINE)
    assert booted.code == 0, said(booted)
    if PUBLIC not in [port.mac for port in made.router.ports.values()]:
        assert made.router.plug(made.second, PUBLIC) == "eth1"
    made.told(ips("203.0.113.50", "203.0.113.51", mac=PUBLIC, number=1))
    assert made.plan()["changes"] == []


@contextmanager
def vpc(name: str) -> Iterator[Site]:
    """Make a router of a VPC that serves and has no tiers yet."""
    with site(name, CONTROL) as made:
        begin(made)
        yield made
