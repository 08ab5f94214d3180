"""Databags as CloudStack's agents of several ages leave them, for the networks of the lab's `isolated` and `tiers`.

Written for this project.  The shapes are facts of those agents; names and addresses are the lab's own.
"""

import json
from typing import Any

Json = dict[str, Any]

ISOLATED_AGES = ("4.6.1", "4.9", "4.11", "4.22")
VPC_AGES = (*ISOLATED_AGES, "cosmic")

GUEST, CONTROL, PUBLIC, PUBLIC2 = (
    "02:1a:33:00:00:01",
    "0e:1a:33:00:00:02",
    "1e:1a:33:00:00:03",
    "06:1a:33:00:00:04",
)
FORWARDS, STATIC, FAR_STATIC = "203.0.113.22", "203.0.113.23", "198.51.100.20"
WEB, APP, DB = "10.31.5.10", "10.31.5.11", "10.31.5.12"
LINE = {
    "template": "domP", "name": "r-31-VM", "eth0ip": "10.31.5.1", "eth0mask": "255.255.255.0",
    "domain": "ring.example", "cidrsize": "24", "dhcprange": "10.31.5.1", "eth1ip": "169.254.77.3",
    "eth1mask": "255.255.0.0", "eth2ip": "203.0.113.21", "eth2mask": "255.255.255.0", "gateway": "203.0.113.1",
    "type": "router", "disable_rp_filter": "true", "dns1": "192.0.2.53",
}  # fmt: skip


def written(bags: dict[str, Json]) -> dict[str, bytes]:
    """Files as the agents write them: indented, keys sorted, with the bag's own name under `id`."""
    return {name: json.dumps({"id": name, **bag}, indent=2, sort_keys=True).encode() for name, bag in bags.items()}


def since(age: str, first: str) -> bool:
    """Whether an age is as new as another; cosmic's is as 4.8."""

    def number(text: str) -> list[int]:
        return [int(part) for part in text.replace("cosmic", "4.8").split(".")]

    return number(age) >= number(first)


def address(public: str, device: str, age: str, **fields: Any) -> Json:
    """An element of `ips`: what was sent, and what the agent worked out of it."""
    mask, net = (
        ("255.255.255.192", "198.51.100.0/26")
        if public.startswith("198.51")
        else (
            "255.255.255.0",
            f"{public.rpartition('.')[0]}.0/24",
        )
    )
    number = int(device.removeprefix("eth"))
    entry = {
        "public_ip": public, "netmask": mask, "source_nat": False, "add": True, "one_to_one_nat": False,
        "gateway": f"{net.rpartition('.')[0]}.1", "nic_dev_id": number, "nw_type": "public", "device": device,
        "cidr": f"{public}/{net.partition('/')[2]}", "size": net.partition("/")[2], "network": net,
        "broadcast": "203.0.113.255", "first_i_p": False, "new_nic": False,
    }  # fmt: skip
    if since(age, "4.14.1"):
        entry |= {"is_private_gateway": False, "mtu": "1500"}
    return entry | fields


def booted(  # noqa: PLR0913, PLR0917 what a boot line says of a nic
    ip: str, mask: str, device: str, kind: str, age: str, gateway: str = ""
) -> Json:
    """An element that the agent made of the boot line: its number is text, and it has no MAC."""
    return {
        "public_ip": ip, "netmask": mask, "source_nat": False, "add": True, "one_to_one_nat": False,
        "gateway": gateway or ("" if since(age, "4.9") else "None"), "nic_dev_id": device.removeprefix("eth"),
        "nw_type": kind, "device": device,
    }  # fmt: skip


def isolated(age: str) -> dict[str, Json]:
    """The bags of an isolated network's router: forwards, static NAT on two public networks, egress denied but for
    some; with what its age left behind.
    """
    # 4.6.1 invents a MAC for each address.
    mac = PUBLIC if since(age, "4.9") else "06:77:77:00:00:0a"
    mac2 = PUBLIC2 if since(age, "4.9") else "06:77:77:00:00:0b"
    public = [
        booted("203.0.113.21", "255.255.255.0", "eth2", "public", age, "203.0.113.1"),
        address(FORWARDS, "eth2", age, vif_mac_address=mac, source_nat=True),
        address(STATIC, "eth2", age, vif_mac_address=mac, one_to_one_nat=True),
        address("203.0.113.29", "eth2", age, vif_mac_address=mac, add=False),
    ]
    ips = {
        "eth0": [booted("10.31.5.1", "255.255.255.0", "eth0", "guest", age)],
        "eth1": [booted("169.254.77.3", "255.255.0.0", "eth1", "control", age)],
        "eth2": public,
        "eth3": [address(FAR_STATIC, "eth3", age, vif_mac_address=mac2, source_nat=True)],
        "eth4": [],
    }
    line = LINE | ({"publicMtu": "1500", "privateMtu": "1450"} if since(age, "4.18") else {})
    line |= {"redundant_router": "false"}
    return {
        "cmdline": {"config": line},
        "ips": ips,
        "firewallrules": _rules(age),
        "forwardingrules": _forwarding(age),
        "dhcpentry": dict(
            vm(name, f"02:1a:33:00:01:0{number}", f"10.31.5.{9 + number}", "10.31.5.1", age)
            for number, name in enumerate(("web1", "app1", "db1"), 1)
        ),
        "vmdata": {WEB: [["userdata", "user-data", "Zm9v"], ["metadata", "instance-id", "i-2-9-VM"]], "10.31.5.99": []},
        "vmpassword": {WEB: "old-one"} if since(age, "4.9") else {WEB: "old-one", APP: "older-one"},
        "monitorservice": {"config": "[dhcp]:processname=dnsmasq:servicename=dnsmasq:pidfile=/run/x.pid:,"},
    }


def _rules(age: str) -> Json:
    def rule(number: int, way: str, ports: list[int], src_ip: str, **fields: Any) -> Json:
        entry: Json = {
            "id": number, "src_ip": src_ip, "protocol": "udp", "src_port_range": ports, "revoked": False,
            "already_added": True, "source_cidr_list": ["0.0.0.0/0"], "purpose": "Firewall", "traffic_type": way,
            "default_egress_policy": False,
        }  # fmt: skip
        return entry | ({"dest_cidr_list": []} if since(age, "4.10") else {}) | fields

    return {
        "1": rule(1, "Ingress", [5100, 5108], FORWARDS),
        "2": rule(2, "Ingress", [5200, 5209], STATIC),
        "3": rule(3, "Egress", [5000, 5009], "", source_cidr_list=["10.31.5.0/24"]),
        "4": rule(4, "Egress", [5300, 5309], "", source_cidr_list=[f"{DB}/32"]),
        "5": rule(5, "Ingress", [5400, 5409], FAR_STATIC),
        "6": rule(6, "Ingress", [22, 22], FORWARDS, protocol="tcp"),
    }


def _forwarding(age: str) -> Json:
    forward: Json = {
        "type": "forward", "public_ip": FORWARDS, "internal_ip": WEB, "public_ports": "5100:5109",
        "internal_ports": "6100:6109", "protocol": "udp",
    }  # fmt: skip
    tcp = forward | {"public_ports": "22:22", "internal_ports": "22:22", "protocol": "tcp"}
    if since(age, "4.19.2"):
        forward["source_cidr_list"] = tcp["source_cidr_list"] = ""
    several: Any = [forward, tcp]
    if age == "4.9":
        several = {f"f{one['public_ip']}{one['public_ports']}{one['protocol']}": one for one in (forward, tcp)}
    static = {one: [{"type": "staticnat", "public_ip": one, "internal_ip": vm}] for one, vm in _STATIC.items()}
    return {FORWARDS: several, "203.0.113.28": [], **static}


_STATIC = {STATIC: DB, FAR_STATIC: APP}


def vm(name: str, mac: str, ip: str, gateway: str, age: str) -> tuple[str, Json]:
    """An entry of `dhcpentry`."""
    spelt = "ipv4_address" if since(age, "4.11") else "ipv4_adress"
    entry: Json = {
        "host_name": name, "mac_address": mac, spelt: ip, "ipv6_duid": f"00:03:00:01:{mac}", "default_entry": True,
        "default_gateway": gateway, "type": "dhcpentry",
    }  # fmt: skip
    return ip, entry | ({"remove": False} if since(age, "4.11.3") else {})


VPC_LINE = {
    "vpccidr": "10.61.0.0/16", "domain": "vpc.example", "dns1": "192.0.2.53", "template": "domP", "name": "r-61-VM",
    "eth0ip": "169.254.61.3", "eth0mask": "255.255.0.0", "type": "vpcrouter", "disable_rp_filter": "true",
}  # fmt: skip
VPC_PUBLIC, VPC_PRIVATE = "1e:1a:61:00:00:03", "1e:1a:61:00:00:05"


def tier(number: int, device: str, age: str) -> Json:
    """An element of `guestnetwork`."""
    entry: Json = {
        "type": "guestnetwork", "add": True, "device": device, "mac_address": f"02:00:61:0{number}:00:01",
        "router_guest_ip": f"10.61.{number}.1", "router_guest_gateway": f"10.61.{number}.1",
        "router_guest_netmask": "255.255.255.0", "cidr": "24", "dns": "192.0.2.53", "domain_name": "vpc.example",
    }  # fmt: skip
    if since(age, "4.22"):
        entry |= {"mtu": 1450 - number, "network_id": 600 + number, "is_vr_guest_gateway": True}
    return entry


def acl(number: int, device: str, ingress: list[Json], age: str) -> Json:
    """An element of `networkacl`: rules in the order in which a server of that age sends them."""
    entry: Json = {
        "type": "networkacl", "device": device, "mac_address": f"02:00:61:0{number}:00:01",
        "nic_ip": f"10.61.{number}.1", "private_gateway_acl": False, "nic_netmask": "24", "egress_rules": [],
        "ingress_rules": ingress if since(age, "4.8") else ingress[::-1],
    }  # fmt: skip
    return entry | ({"delete_from_processed_cache": False} if since(age, "4.14") else {})


def vpc(age: str) -> dict[str, Json]:
    """The bags of a VPC's router: a public address, a private gateway, two tiers with ACLs, a route."""
    joint = "," if since(age, "4.8") else "-"
    first = {"type": "udp", "cidr": f"192.0.2.10/32{joint}10.61.2.0/24", "first_port": 5100, "last_port": 5109}
    rules = [first | {"allowed": True}, {"type": "all", "cidr": "0.0.0.0/0", "allowed": False}]
    bags: dict[str, Json] = {
        "cmdline": {"config": VPC_LINE | ({"source_nat_ip": "203.0.113.61"} if since(age, "4.18.2") else {})},
        "ips": {
            "eth0": [booted("169.254.61.3", "255.255.0.0", "eth0", "control", age)],
            "eth1": [address("203.0.113.61", "eth1", age, vif_mac_address=VPC_PUBLIC, source_nat=True)],
            "eth2": [
                address("172.16.61.10", "eth2", age, vif_mac_address=VPC_PRIVATE)
                | ({"is_private_gateway": True} if since(age, "4.14.1") else {})
            ],
            "eth3": [booted("10.61.1.1", "255.255.255.0", "eth3", "guest", age, "10.61.1.1")],
            "eth4": [booted("10.61.2.1", "255.255.255.0", "eth4", "guest", age, "10.61.2.1")],
        },
        "guestnetwork": {"eth3": [tier(1, "eth3", age)], "eth4": [tier(2, "eth4", age)], "eth5": []},
        "networkacl": {
            "eth2": acl(0, "eth2", [{"type": "all", "cidr": "0.0.0.0/0", "allowed": True}], age)
            | {"mac_address": VPC_PRIVATE, "private_gateway_acl": True},
            "eth3": acl(1, "eth3", rules, age),
            "eth4": acl(2, "eth4", [], age),
            "eth5": acl(9, "eth5", [{"type": "all", "cidr": "0.0.0.0/0", "allowed": True}], age),
        },
        "forwardingrules": {},
        "dhcpentry": dict(
            vm(name, mac, ip, f"{ip.rpartition('.')[0]}.1", age)
            for name, mac, ip in (
                ("web1", "02:1a:61:01:01:01", "10.61.1.10"),
                ("app1", "02:1a:61:02:01:01", "10.61.2.10"),
            )
        ),
        "staticroutes": {
            "192.168.61.0/24": {"network": "192.168.61.0/24", "gateway": "172.16.61.1", "revoke": False},
            "192.168.62.0/24": {"network": "192.168.62.0/24", "gateway": "172.16.61.1", "revoke": True},
        },
    }
    return _overview(bags) if age == "cosmic" else bags


def _overview(bags: dict[str, Json]) -> dict[str, Json]:
    """cosmic's newer form: one document of the whole in place of addresses, tiers and routes."""

    def interface(mac: str, kind: str, cidr: str, gateway: str, **about: str) -> Json:
        return {
            "mac_address": mac,
            "metadata": {"type": kind, **about},
            "ipv4_addresses": [{"cidr": cidr, "gateway": gateway}],
        }

    names = {"dns1": "192.0.2.53", "domain_name": "vpc.example"}
    overview = {
        "interfaces": [
            interface(VPC_PUBLIC, "public", "203.0.113.61/24", "203.0.113.1"),
            interface(VPC_PRIVATE, "private", "172.16.61.10/24", "172.16.61.1"),
            interface("02:00:61:01:00:01", "guesttier", "10.61.1.1/24", "10.61.1.1", **names),
            interface("02:00:61:02:00:01", "guesttier", "10.61.2.1/24", "10.61.2.1", **names),
            interface("02:00:61:09:00:09", "sync", "100.100.0.2/24", ""),
        ],
        "services": {"source_nat": [{"to": "203.0.113.61", "gateway": "203.0.113.1"}]},
        "routes": [
            {"cidr": "192.168.61.0/24", "next_hop": "172.16.61.1", "metric": 100},
            {"cidr": "0.0.0.0/0", "next_hop": "203.0.113.1", "metric": 1},
        ],
        "loadbalancer": {},
    }
    own = {name: bags[name] for name in ("cmdline", "networkacl", "forwardingrules", "dhcpentry")}
    metadata = {"instance-id": "i-61-VM"}
    seen = {"interfaces": [{"mac_address": "02:1a:61:01:01:01", "ipv4_address": "10.61.1.10", "metadata": metadata}]}
    return own | {"network_overview": overview, "vm_overview": {"vms": [seen]}}
