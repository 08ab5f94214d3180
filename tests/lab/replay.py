"""Routers that have lived through something: a site with questions about it, and a small story told here."""

import json
import os
import re
import threading
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from itertools import count
from pathlib import Path
from typing import Any

import pytest

from holdfast.drivers.ruleset import generation
from holdfast.lab.lab import Lab
from holdfast.lab.network import Segment
from holdfast.lab.process import Result
from holdfast.lab.router import Router
from holdfast.machine import enter_network

HOLDFAST = "/usr/sbin/holdfast"
SERVICES = ("dnsmasq.service", "ssh.service", "haproxy.service", "holdfast-guest.service")
Nics = Sequence[tuple[str, str]]
NICS: Nics = (("guest", "02:00:4c:5e:00:aa"), ("control", "0e:00:a9:fe:00:49"), ("public", "1e:00:d1:00:00:0a"))
SECOND_PUBLIC = "06:00:d3:00:00:0a"
BOOT_LINE = (
    "template=domP name=r-10-VM eth0ip=10.1.1.1 eth0mask=255.255.255.0 domain=cs1cloud.internal cidrsize=24 "
    "dhcprange=10.1.1.1 eth1ip=169.254.216.73 eth1mask=255.255.0.0 eth2ip=203.0.113.10 eth2mask=255.255.255.0 "
    "gateway=203.0.113.1 type=router disable_rp_filter=true dns1=8.8.8.8 dns2=8.8.4.4\n"
)
FILES = {
    "ips": "ip_associations.json",
    "firewallrules": "firewall_rules.json",
    "forwardrules": "forwarding_rules.json",
    "staticnatrules": "staticnat_rules.json",
    "dhcpentry": "vm_dhcp_entry.json",
}
_UNIT = ("Id", "ActiveState", "InvocationID", "MainPID", "StateChangeTimestampMonotonic")
_LOOK = """
ip -4 -j address; printf '\\0'
ip -4 -N -j route show table all; printf '\\0'
ip -4 -N -j rule; printf '\\0'
nft -n -s list ruleset; printf '\\0'
cat /proc/sys/net/ipv4/ip_forward
"""
_COUNTER = re.compile(r"^\tcounter \S+ \{\n\t\}\n\n?", re.MULTILINE)
"""Of the usage table: those of nics that have left stay, and they stand in the order in which they were made."""
_EPOCH = re.compile(r"chain judged \{\s+ct mark & 0x[0-9a-f]{8} == (0x[0-9a-f]{8})")


class Site:
    """A router in its lab, and questions about it."""

    def __init__(self, lab: Lab, nics: Nics = NICS, name: str = "r1") -> None:
        self.lab = lab
        segments: dict[str, Segment] = {segment: lab.segment(segment) for segment, _ in nics}
        self.second = lab.segment("second")
        self.router: Router = lab.router(name, [(segments[segment], mac) for segment, mac in nics])
        self._names = count(1)

    def boot(self, line: str | Path = BOOT_LINE) -> Result:
        """Switch it on as on KVM: the line comes when it runs already."""
        self.router.boot()
        self.router.write("/var/cache/cloud/cmdline", line if isinstance(line, str) else line.read_bytes())
        return self.router.shell([HOLDFAST, "boot"])

    def tell(self, payload: Mapping[str, Any] | bytes, name: str = "") -> Result:
        """Send a message under a name of its own and let it be taken in."""
        if not isinstance(payload, bytes):
            name = name or f"{FILES[payload['type']]}.{next(self._names)}"
            payload = json.dumps(payload).encode()
        return self.router.command(name or f"firewall_rules.json.{next(self._names)}", payload)

    def told(self, payload: Mapping[str, Any]) -> str:
        """Send a message that must be taken in whole; what was answered."""
        done = self.tell(payload)
        assert done.code == 0, said(done)
        return done.text

    def plan(self) -> dict[str, Any]:
        """What a command would change now."""
        done = self.router.shell([HOLDFAST, "plan", "--json"])
        assert done.code == 0, said(done)
        planned: dict[str, Any] = json.loads(done.text)
        return planned

    def path(self, path: str) -> Path:
        """A file as this process sees it: of its disk, or while it runs, of its memory in /run."""
        leader = self.router.container.leader
        if path.startswith("/run/") and leader is not None:
            return Path(f"/proc/{leader.pid}/root{path}")
        return self.router.container.root / path.lstrip("/")

    def manifest(self) -> list[str]:
        """The paths of Holdfast's own files."""
        paths: list[str] = json.loads(self.path("/var/lib/holdfast/manifest.json").read_bytes())
        return paths

    def state(self) -> dict[str, Any]:
        """Everything that must be the same after a reboot."""
        done = self.router.shell(["sh", "-ec", _LOOK])
        assert done.code == 0, said(done)
        devices, routes, rules, ruleset, forward = done.text.split("\0")
        links = [device for device in json.loads(devices) if device["ifname"] != "lo"]
        return {
            "links": {d["ifname"]: ("UP" in d["flags"], d["mtu"]) for d in links},
            "addresses": sorted(
                (d["ifname"], f"{a['local']}/{a['prefixlen']}")
                for d in links
                for a in d["addr_info"]
                if a["family"] == "inet"
            ),
            "routes": sorted(json.dumps(route | {"flags": []}, sort_keys=True) for route in json.loads(routes)),
            "rules": sorted(json.dumps(rule, sort_keys=True) for rule in json.loads(rules)),
            "ruleset": _sorted(_without_epoch(_COUNTER.sub("", ruleset))),
            "forward": forward.strip(),
            "files": {
                path: (f"{self.path(path).stat().st_mode:o}", self.path(path).read_text()) for path in self.manifest()
            },
        }

    def units(self) -> dict[str, dict[str, str]]:
        """What systemd knows of the services: a restart changes the invocation, a reload the time of the change."""
        options = [word for name in _UNIT for word in ("-p", name)]
        text = self.router.shell(["systemctl", "show", *options, *SERVICES]).text
        blocks = [dict(line.split("=", 1) for line in block.splitlines()) for block in text.strip().split("\n\n")]
        return {block["Id"]: block for block in blocks}

    def footprints(self) -> dict[str, Any]:
        """What any work leaves behind, even work that ends where it began."""
        return {
            "ruleset generation": self.ruleset_generation(),
            "units": self.units(),
            "files": {path: _print(self.path(path)) for path in self.manifest()},
            "store": self.store(),
        }

    def store(self) -> dict[str, Any]:
        """Which generation is in force, which there are, and what each document was last written."""
        root = self.path("/etc/cloudstack")
        return {
            "current": str((root / "current").readlink()),
            "generations": sorted(path.name for path in (root / "generations").iterdir()),
            "documents": {path.name: _print(path) for path in (root / "current/").iterdir()},
        }

    def ruleset_generation(self) -> int:
        """The kernel's count of transactions on the ruleset; read in a thread, since it has to enter the router."""
        found: list[int] = []

        def look() -> None:
            enter_network(self.router.namespace)
            found.append(generation())

        thread = threading.Thread(target=look)
        thread.start()
        thread.join()
        return found[0]

    def holds(self, name: str) -> str:
        """What a set or map of the firewall holds, as nft lists it."""
        done = self.router.shell(["nft", "-n", "list", "ruleset"])
        found = re.search(rf"\t(?:set|map) {name} \{{\n(.*?)^\t\}}", done.text, re.MULTILINE | re.DOTALL)
        assert found, f"no set {name}: {done.errors}"
        return found[1]

    def alerts(self) -> str:
        """The log that management servers read."""
        path = self.path("/var/log/routerServiceMonitor.log")
        return path.read_text() if path.exists() else ""


def said(done: Result) -> str:
    """All that a command said, for an assertion's message."""
    return f"exit {done.code}: {done.text}{done.errors}"


def _print(path: Path) -> tuple[int, int, int]:
    status = path.stat()
    return status.st_ino, status.st_mtime_ns, status.st_mode


def _without_epoch(ruleset: str) -> str:
    """The epoch of judgement begins anywhere: two rulesets that differ by it alone are the same."""
    found = _EPOCH.search(ruleset)
    return re.sub(r"0x[0-9a-f]{8} \| EPOCH", "KEPT | EPOCH", ruleset.replace(found[1], "EPOCH")) if found else ruleset


def _sorted(ruleset: str) -> list[str]:
    """A listing by tables, their chains and sets and the elements of each set sorted: nft shows them in the order in
    which they were made.
    """

    def in_order(found: re.Match[str]) -> str:
        return f"elements = {{ {', '.join(sorted(item.strip() for item in found[1].split(',')))} }}"

    elements = re.compile(r"elements = \{ (.*?) \}$", re.MULTILINE | re.DOTALL)
    tables = re.split(r"^(?=table )", ruleset, flags=re.MULTILINE)
    blocks = re.compile(r"^\t\w+ \S+ \{$.*?^\t\}$", re.MULTILINE | re.DOTALL)
    found = [
        (table.partition("\n")[0], sorted(blocks.findall(elements.sub(in_order, table)))) for table in tables if table
    ]
    return ["\n".join((name, *parts)) for name, parts in sorted(found)]


@contextmanager
def site(name: str, nics: Nics = NICS) -> Iterator[Site]:
    """Make a router that is off, with these nics (segment, MAC); it and its lab are removed at the end."""
    if os.geteuid() != 0:
        pytest.skip("the lab needs root: it makes network namespaces and containers")
    with Lab(name) as lab:
        yield Site(lab, nics)


@contextmanager
def settled(name: str) -> Iterator[Site]:
    """Make a router that serves: three addresses, a second public network, rules, forwards, VMs."""
    with site(name) as made:
        booted = made.boot()
        assert booted.code == 0, said(booted)
        made.router.plug(made.second, SECOND_PUBLIC)
        for payload in (
            ips("203.0.113.10", "203.0.113.11", "203.0.113.12"),
            ips("198.51.100.20", mac=SECOND_PUBLIC, gateway="198.51.100.1", number=3),
            firewall(egress_default()),
            firewall(ingress(1, 22, "192.0.2.0/24"), ingress(2, 80), ingress(3, 443)),
            forwards(forward(2222, "10.1.1.11", 22)),
            static_nat("198.51.100.20", "10.1.1.13"),
            vm(1),
            vm(2),
        ):
            made.told(payload)
        assert made.plan()["changes"] == []
        yield made


def ips(
    *addresses: str, mac: str = NICS[2][1], gateway: str = "203.0.113.1", number: int = 2, add: bool = True
) -> dict[str, Any]:
    """Addresses of one public network."""
    return {
        "ip_address": [
            {
                "public_ip": address, "source_nat": not index, "add": add, "one_to_one_nat": False,
                "first_i_p": not index, "gateway": gateway, "netmask": "255.255.255.0", "vif_mac_address": mac,
                "nic_dev_id": number, "new_nic": False, "nw_type": "Public", "is_private_gateway": False, "mtu": 1500,
            }
            for index, address in enumerate(addresses)
        ],
        "type": "ips",
    }  # fmt: skip


def ingress(number: int, port: int, *sources: str, revoked: bool = False) -> dict[str, Any]:
    """A rule that opens a port of 203.0.113.11."""
    return {
        "id": number, "src_ip": "203.0.113.11", "protocol": "tcp", "src_port_range": [port, port],
        "revoked": revoked, "already_added": False, "source_cidr_list": list(sources) or ["0.0.0.0/0"],
        "dest_cidr_list": [], "purpose": "Firewall", "traffic_type": "Ingress", "default_egress_policy": False,
    }  # fmt: skip


def egress_default() -> dict[str, Any]:
    """The built-in rule of a network that lets its guests out."""
    return {
        "id": 0, "protocol": "all", "revoked": False, "already_added": False, "source_cidr_list": [],
        "purpose": "Firewall", "traffic_type": "Egress", "default_egress_policy": True,
    }  # fmt: skip


def firewall(*rules: dict[str, Any]) -> dict[str, Any]:
    """Rules as a message."""
    return {"rules": list(rules), "type": "firewallrules"}


def forward(port: int, to: str, to_port: int, *, revoke: bool = False) -> dict[str, Any]:
    """A port of 203.0.113.12 that leads to a VM."""
    return {
        "revoke": revoke, "protocol": "tcp", "source_ip_address": "203.0.113.12", "source_port_range": f"{port}:{port}",
        "destination_ip_address": to, "destination_port_range": f"{to_port}:{to_port}",
    }  # fmt: skip


def forwards(*rules: dict[str, Any]) -> dict[str, Any]:
    """Port forwards as a message."""
    return {"rules": list(rules), "type": "forwardrules"}


def static_nat(public: str, to: str) -> dict[str, Any]:
    """One address for one VM."""
    return {
        "rules": [{"revoke": False, "source_ip_address": public, "destination_ip_address": to}],
        "type": "staticnatrules",
    }


def vm(number: int, *, remove: bool = False, **changed: Any) -> dict[str, Any]:
    """A VM's nic on the guest network: 10.1.1.(10 + number)."""
    return {
        "host_name": f"web{number}", "mac_address": f"02:00:4c:5e:00:{number:02x}",
        "ipv4_address": f"10.1.1.{10 + number}", "dns_addresses": "10.1.1.1", "default_gateway": "10.1.1.1",
        "default_entry": True, "remove": remove, "type": "dhcpentry", **changed,
    }  # fmt: skip


def vm_line(number: int) -> str:
    """What dnsmasq is told of such a nic."""
    return f"02:00:4c:5e:00:{number:02x},10.1.1.{10 + number},web{number},infinite"
