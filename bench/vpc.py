"""What a VPC router's commands cost: ACLs of one tier of three, many public addresses, connection set-up."""

import json
import statistics
from collections.abc import Iterator
from typing import Any

from measure import RUNS, SIZES, expect, figure, measured, update

from holdfast.lab.guest import Guest
from holdfast.lab.lab import Lab
from holdfast.lab.router import Router

LINE = (
    "template=domP name=r-2-VM type=vpcrouter vpccidr=10.20.0.0/16 eth0ip=169.254.10.3 eth0mask=255.255.0.0 "
    "dns1=192.0.2.53 domain=bench.example disable_rp_filter=true has_public_network=true source_nat_ip=203.0.113.50\n"
)
PUBLIC_MAC = "1e:00:00:00:01:01"
TIERS = {number: f"02:00:00:00:02:0{number}" for number in (1, 2, 3)}
ADDRESSES = (1, 16, 64)
FLOWS = 4_000
SETUP_RATE = 0.8
"""Through 10,000 rules that can be merged, new connections are to be set up at this part of the rate through 10."""

# New sockets by the thousand, each asking once: what is timed is the first packet of each flow, there and back.
ASK = """
import socket, sys, time
address, count = sys.argv[1], int(sys.argv[2])
began, answered = time.perf_counter(), 0
for _ in range(count):
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as flow:
        flow.settimeout(1)
        flow.sendto(b"?", (address, 7007))
        try:
            flow.recv(64)
            answered += 1
        except TimeoutError:
            pass
print(answered / (time.perf_counter() - began), answered)
"""


class Vpc:
    """A VPC router with three tiers, a guest in two of them, and one public nic."""

    def __init__(self, lab: Lab) -> None:
        control, self.public = lab.segment("vpc-control"), lab.segment("vpc-public")
        self.router: Router = lab.router("r2", [(control, "1e:00:00:00:01:00")])
        self.router.boot()
        self.router.write("/var/cache/cloud/cmdline", LINE)
        expect(self.router.shell(["/usr/sbin/holdfast", "boot"]).code == 0, "the VPC router boots")
        self.router.plug(self.public, PUBLIC_MAC)
        self.tell("ip_associations", {"type": "ips", "ip_address": [address(50, source_nat=True)]})
        self.guests: dict[int, Guest] = {}
        self._sent = 0
        for number, mac in TIERS.items():
            segment = lab.segment(f"tier{number}")
            self.router.plug(segment, mac)
            self.tell("guest_network", tier(number, mac))
            guest = lab.guest(f"vm{number}", segment, f"02:00:00:00:03:0{number}")
            guest.address("eth0", f"10.20.{number}.10/24")
            guest.route("default", f"10.20.{number}.1")
            self.guests[number] = guest

    def tell(self, name: str, message: dict[str, Any]) -> None:
        """Send a message that has to be taken."""
        done = self.router.command(f"{name}.json.bench", message, timeout_s=600)
        expect(done.code == 0, f"{name} is taken: {done.text[-300:]}")

    def send(self, message: dict[str, Any]) -> list[str]:
        """Put an ACL where the router finds it, and return the command that takes it."""
        self._sent += 1
        name = f"network_acl.json.{self._sent}"
        self.router.send(json.dumps(message).encode(), name)
        return update(name)


def address(last: int, *, source_nat: bool = False) -> dict[str, Any]:
    """A public address."""
    return {
        "public_ip": f"203.0.113.{last}", "source_nat": source_nat, "add": True, "one_to_one_nat": False,
        "first_i_p": source_nat, "gateway": "203.0.113.1", "netmask": "255.255.255.0", "vif_mac_address": PUBLIC_MAC,
        "nic_dev_id": 1, "new_nic": False, "nw_type": "Public", "is_private_gateway": False,
    }  # fmt: skip


def tier(number: int, mac: str) -> dict[str, Any]:
    """A guest network."""
    return {
        "type": "guestnetwork", "add": True, "mac_address": mac, "device": f"eth{number + 1}",
        "router_guest_ip": f"10.20.{number}.1", "router_guest_netmask": "255.255.255.0",
        "router_guest_gateway": f"10.20.{number}.1", "cidr": "24", "dns": "192.0.2.53",
        "domain_name": f"t{number}.bench.example", "is_vr_guest_gateway": True, "network_id": 200 + number,
    }  # fmt: skip


def acl(size: int, number: int = 1) -> dict[str, Any]:
    """An ACL of so many allowing rules, each unlike any other, the last of which lets the other tiers ask port 7007."""
    rules = [
        {"type": "tcp", "cidr": f"10.{n >> 8 & 255}.{n & 255}.0/24", "first_port": 1 + n % 60_000,
         "last_port": 1 + n % 60_000, "allowed": True}
        for n in range(1, size)
    ]  # fmt: skip
    rules.append({"type": "udp", "cidr": "10.20.0.0/16", "first_port": 7007, "last_port": 7007, "allowed": True})
    return {
        "type": "networkacl", "device": f"eth{number + 1}", "mac_address": TIERS[number], "private_gateway_acl": False,
        "nic_ip": f"10.20.{number}.1", "nic_netmask": "24", "ingress_rules": rules, "egress_rules": [],
    }  # fmt: skip


def acl_noop(name: str, vpc: Vpc) -> Iterator[dict[str, Any]]:
    """The same ACL again."""
    for size in SIZES:
        vpc.tell("network_acl", acl(size))
        rows = measured(vpc.router, [vpc.send(acl(size))] * (RUNS + 1))[1:]
        yield figure(name, size, rows)


def acl_add_one(name: str, vpc: Vpc) -> Iterator[dict[str, Any]]:
    """One rule more."""
    for size in SIZES:
        vpc.tell("network_acl", acl(size))
        yield figure(name, size, measured(vpc.router, [vpc.send(acl(size + 1 + run)) for run in range(RUNS)]))


def acl_other_tier(name: str, vpc: Vpc) -> Iterator[dict[str, Any]]:
    """Another tier's small ACL changes beside the large one."""
    for size in SIZES:
        vpc.tell("network_acl", acl(size))
        yield figure(name, size, measured(vpc.router, [vpc.send(acl(2 + run, 2)) for run in range(RUNS)]))


def addresses_noop(name: str, vpc: Vpc) -> Iterator[dict[str, Any]]:
    """The same public addresses again, beside a small ACL."""
    vpc.tell("network_acl", acl(10))
    for size in ADDRESSES:
        held = [address(50, source_nat=True), *(address(60 + n) for n in range(size - 1))]
        message = {"type": "ips", "ip_address": held}
        vpc.tell("ip_associations", message)
        vpc.router.send(json.dumps(message).encode(), "ip_associations.json.same")
        yield figure(name, size, measured(vpc.router, [update("ip_associations.json.same")] * (RUNS + 1))[1:])


def acl_setup_rate(name: str, vpc: Vpc) -> Iterator[dict[str, Any]]:
    """New connections a second from another tier, through 10 rules and through 10,000, taken in turn."""
    vpc.guests[1].serve(7007, "udp")
    rates: dict[int, list[float]] = {10: [], 10_000: []}
    for _ in range(3):
        for size, found in rates.items():
            vpc.tell("network_acl", acl(size))
            argv = ["/usr/bin/python3", "-I", "-c", ASK, "10.20.1.10", str(FLOWS)]
            rate, answered = vpc.guests[2].run(argv, timeout_s=300).text.split()
            expect(int(answered) >= FLOWS * 0.99, f"{answered} of {FLOWS} new connections through {size} rules")
            found.append(float(rate))
    few, many = (statistics.median(found) for found in rates.values())
    yield {"bench": name, "size": 10_000, "per_s": round(many), "per_s_at_10": round(few), "rate": round(many / few, 2)}


BENCHES = {
    "acl-noop": acl_noop,
    "acl-add-one": acl_add_one,
    "acl-other-tier": acl_other_tier,
    "addresses-noop": addresses_noop,
    "acl-setup-rate": acl_setup_rate,
}
