"""What serving guests costs: whole bundles, and one guest more beside two thousand."""

import json
from collections.abc import Iterator
from typing import Any

from measure import RUNS, expect, figure, measured, update

from holdfast.lab.lab import Lab
from holdfast.lab.router import Router

LINE = (
    "template=domP name=r-3-VM type=router eth0ip=10.40.0.1 eth0mask=255.255.0.0 eth1ip=169.254.10.4 "
    "eth1mask=255.255.0.0 eth2ip=203.0.113.30 eth2mask=255.255.255.0 gateway=203.0.113.1 dns1=192.0.2.53 "
    "domain=bench.example disable_rp_filter=true\n"
)
MANY = 2_000
VALUES = (
    "service-offering", "availability-zone", "local-hostname", "public-ipv4", "public-hostname", "instance-id",
    "vm-id", "public-keys", "cloud-identifier",
)  # fmt: skip
USER_DATA = "I2Nsb3VkLWNvbmZpZwpwYWNrYWdlczoKIC0gbmdpbngK" * 8
BUNDLE_RUNS = 3


class Guests:
    """An isolated router whose guests come and go by the thousand."""

    def __init__(self, lab: Lab) -> None:
        nics = [(lab.segment(f"guests-{name}"), f"1e:00:00:00:04:0{n}") for n, name in enumerate("gcp")]
        self.router: Router = lab.router("r3", nics)
        self.router.boot()
        self.router.write("/var/cache/cloud/cmdline", LINE)
        expect(self.router.shell(["/usr/sbin/holdfast", "boot"]).code == 0, "the router boots")

    def bundle(self, name: str, messages: list[tuple[str, dict[str, Any]]]) -> list[str]:
        """Put a bundle where the management server puts it; the command that takes it."""
        blocks = [
            f"<file>\n/var/cache/cloud/{file}.{index}\n{json.dumps(message)}\n</file>\n"
            f"<script>\n/opt/cloud/bin/update_config.py {file}.{index}\n</script>\n"
            for index, (file, message) in enumerate(messages)
        ]
        self.router.send(("<version>\n1.0\n</version>\n" + "".join(blocks)).encode(), name)
        return ["/opt/cloud/bin/vr_cfg.sh", "-c", f"/var/cache/cloud/{name}"]

    def no_guests(self) -> None:
        """Take every guest away."""
        gone = [("vm_dhcp_entry.json", entry(number, remove=True)) for number in range(MANY + RUNS)]
        done = self.router.shell(self.bundle("VR-none.cfg", gone), timeout_s=300)
        expect(done.code == 0, f"all guests go: {done.text[-300:]}{done.errors[-300:]}")


def place(number: int) -> str:
    """A guest's address."""
    return f"10.40.{1 + number // 250}.{1 + number % 250}"


def entry(number: int, *, remove: bool = False) -> dict[str, Any]:
    """A guest's nic."""
    return {
        "host_name": f"vm-{number}", "mac_address": f"02:00:40:00:{number >> 8:02x}:{number & 255:02x}",
        "ipv4_address": place(number), "dns_addresses": "10.40.0.1", "default_gateway": "10.40.0.1",
        "default_entry": True, "remove": remove, "type": "dhcpentry",
    }  # fmt: skip


def metadata(number: int) -> dict[str, Any]:
    """What a guest may ask about itself."""
    told = [["userdata", "user-data", USER_DATA], ["metadata", "local-ipv4", place(number)]]
    told += [["metadata", name, f"{name} of vm-{number}, as long as such values are"] for name in VALUES]
    return {"vm_ip_address": place(number), "vm_metadata": told, "type": "vmdata"}


def password(number: int) -> dict[str, Any]:
    """A guest's password."""
    return {"ip_address": place(number), "password": f"pw-{number}-{number * 7919}", "type": "vmpassword"}


def start(count: int, *, passwords: bool) -> list[tuple[str, dict[str, Any]]]:
    """Everything about so many guests, kind by kind as servers send it."""
    made = [("vm_dhcp_entry.json", entry(number)) for number in range(count)]
    made += [("vm_password.json", password(number)) for number in range(count) if passwords]
    return made + [("vm_metadata.json", metadata(number)) for number in range(count)]


def rules(count: int) -> dict[str, Any]:
    """Ingress rules, each of its own port."""
    return {
        "type": "firewallrules",
        "rules": [
            {
                "id": 1 + n, "src_ip": "203.0.113.30", "protocol": "tcp", "src_port_range": [1 + n, 1 + n],
                "revoked": False, "already_added": False, "source_cidr_list": [f"10.{n}.0.0/16"],
                "dest_cidr_list": [], "purpose": "Firewall", "traffic_type": "Ingress", "default_egress_policy": False,
            }
            for n in range(count)
        ],
    }  # fmt: skip


def bundles(guests: Guests, name: str, size: int, messages: list[tuple[str, dict[str, Any]]]) -> dict[str, Any]:
    """One bundle on a router without guests, several times."""
    rows = []
    for run in range(BUNDLE_RUNS):
        guests.no_guests()
        rows += measured(guests.router, [guests.bundle(f"VR-{name}{run}.cfg", messages)])
    return figure(name, size, rows)


def bundle_s6(name: str, guests: Guests) -> Iterator[dict[str, Any]]:
    """The start of a router with 500 guests and 200 rules."""
    messages = [("firewall_rules.json", rules(200)), *start(500, passwords=False)]
    yield bundles(guests, name, 500, messages)


def bundle_guests(name: str, guests: Guests) -> Iterator[dict[str, Any]]:
    """DHCP, metadata and password of 2,000 guests."""
    yield bundles(guests, name, MANY, start(MANY, passwords=True))


def guest_add_one(name: str, guests: Guests) -> Iterator[dict[str, Any]]:
    """One guest more beside 2,000: its nic, its password, its metadata, a command each."""
    guests.no_guests()
    done = guests.router.shell(guests.bundle("VR-many.cfg", start(MANY, passwords=True)), timeout_s=300)
    expect(done.code == 0, f"{MANY} guests: {done.text[-300:]}{done.errors[-300:]}")
    kinds = {"vm_dhcp_entry.json": entry, "vm_password.json": password, "vm_metadata.json": metadata}
    commands = []
    for run in range(RUNS):
        for file, make in kinds.items():
            message = f"{file}.one{run}"
            guests.router.send(json.dumps(make(MANY + run)).encode(), message)
            commands.append(update(message))
    rows = measured(guests.router, commands)
    for index, kind in enumerate(("", "-password", "-metadata")):
        yield figure(f"{name}{kind}", MANY, rows[index::3])


BENCHES = {"bundle-s6": bundle_s6, "bundle-guests": bundle_guests, "guest-add-one": guest_add_one}
