"""From power-on to the first packet that passes: what was stored serves before anybody is heard of."""

import contextlib
import json
import os
import re
import socket
import statistics
import time
from collections.abc import Callable, Iterator
from typing import Any, NamedTuple

import pytest
from replay import NICS, Site, said, site
from threads import Beside
from watching import socket_in

from holdfast.lab.host import Host
from holdfast.lab.network import batch

pytestmark = [pytest.mark.lab, pytest.mark.alone, pytest.mark.appliance]

SOAK = os.environ.get("HOLDFAST_SOAK") == "1"
BOUND_S = 3.0 if SOAK else 9.0
BOOTS = 5
RULES, ADDRESSES, GUESTS = 1_000, 64, 2_000
LINE = (
    "template=domP name=r-10-VM eth0ip=10.40.0.1 eth0mask=255.255.0.0 domain=cs1cloud.internal cidrsize=16 "
    "dhcprange=10.40.0.1 eth1ip=169.254.216.73 eth1mask=255.255.0.0 eth2ip=203.0.113.10 eth2mask=255.255.255.0 "
    "gateway=203.0.113.1 type=router disable_rp_filter=true dns1=8.8.8.8 dns2=8.8.4.4\n"
)
PUBLIC = [f"203.0.113.{10 + number}" for number in range(ADDRESSES)]
VM, FAR, OPEN, TARGET = "10.40.0.9", "192.0.2.10", 8443, 5353
STEP_S = 0.001


class Both(NamedTuple):
    """A router with a guest and the world beyond it."""

    site: Site
    guest: Host
    world: Host


@pytest.fixture(scope="module")
def both() -> Iterator[Both]:
    with site("restore") as made:
        world = made.lab.world(made.lab.segment("public"), "203.0.113.1/24", (FAR,))
        guest = Host(made.lab._place, "neighbour")  # noqa: SLF001 a host that asks nobody for its address
        made.lab.hosts["neighbour"] = guest
        guest.address(guest.plug(made.lab.segment("guest"), "02:00:40:00:ff:01"), f"{VM}/16")
        guest.route("default", "10.40.0.1")
        # They knew the router before it went: nobody measures how long a host takes to ask for it again.
        macs = dict(NICS)
        for host, address, mac in ((guest, "10.40.0.1", macs["guest"]), (world, PUBLIC[0], macs["public"])):
            batch(host.namespace, [f"neighbour replace {address} lladdr {mac} dev eth0 nud permanent"])
        done = made.boot(LINE)
        assert done.code == 0, said(done)
        made.router.send(_bundle(), "VR-restore.cfg")
        done = made.router.run("vr_cfg.sh", "-c", "/var/cache/cloud/VR-restore.cfg", timeout_s=120)
        assert done.code == 0, said(done)
        yield Both(made, guest, world)


def _bundle() -> bytes:
    """Everything that the router is to restore."""
    told: list[tuple[str, dict[str, Any]]] = [("ip_associations.json", {"type": "ips", "ip_address": [
        {
            "public_ip": address, "source_nat": number == 0, "add": True, "one_to_one_nat": False,
            "first_i_p": number == 0, "gateway": "203.0.113.1", "netmask": "255.255.255.0",
            "vif_mac_address": dict(NICS)["public"], "nic_dev_id": 2, "new_nic": False, "nw_type": "Public",
        }
        for number, address in enumerate(PUBLIC)
    ]})]  # fmt: skip
    told.append(("forwarding_rules.json", {"type": "forwardrules", "rules": [{
        "revoke": False, "protocol": "udp", "source_ip_address": PUBLIC[0], "source_port_range": f"{OPEN}:{OPEN}",
        "destination_ip_address": VM, "destination_port_range": f"{OPEN}:{OPEN}",
    }]}))  # fmt: skip
    rules = [_rule(number) for number in range(RULES - 2)]
    rules.append(_rule(RULES) | {"src_ip": PUBLIC[0], "protocol": "udp", "src_port_range": [OPEN, OPEN],
                                 "source_cidr_list": ["0.0.0.0/0"]})  # fmt: skip
    rules.append({"id": 0, "src_ip": "", "protocol": "all", "revoked": False, "already_added": False,
                  "source_cidr_list": [], "purpose": "Firewall", "traffic_type": "Egress",
                  "default_egress_policy": True})  # fmt: skip
    told.append(("firewall_rules.json", {"type": "firewallrules", "rules": rules}))
    told += [("vm_dhcp_entry.json", _entry(number)) for number in range(GUESTS)]
    blocks = [
        f"<file>\n/var/cache/cloud/{file}.{number}\n{json.dumps(message)}\n</file>\n"
        f"<script>\n/opt/cloud/bin/update_config.py {file}.{number}\n</script>\n"
        for number, (file, message) in enumerate(told)
    ]
    return ("<version>\n1.0\n</version>\n" + "".join(blocks)).encode()


def _rule(number: int) -> dict[str, Any]:
    return {
        "id": 1 + number, "src_ip": PUBLIC[number % ADDRESSES], "protocol": "tcp",
        "src_port_range": [1 + number, 1 + number], "revoked": False, "already_added": False,
        "source_cidr_list": [f"10.{number % 250}.0.0/16"], "dest_cidr_list": [], "purpose": "Firewall",
        "traffic_type": "Ingress", "default_egress_policy": False,
    }  # fmt: skip


def _entry(number: int) -> dict[str, Any]:
    return {
        "host_name": f"vm-{number}", "mac_address": f"02:00:40:00:{number >> 8:02x}:{number & 255:02x}",
        "ipv4_address": f"10.40.{1 + number // 250}.{1 + number % 250}", "dns_addresses": "10.40.0.1",
        "default_gateway": "10.40.0.1", "default_entry": True, "remove": False, "type": "dhcpentry",
    }  # fmt: skip


class Stream(Beside):
    """Packets sent all the time between two hosts; `first_s` is when one first came, of the machine's clock."""

    def __init__(self, source: Host, target: Host, address: str, port: int) -> None:
        self._near, self._far = (socket_in(host, socket.SOCK_DGRAM) for host in (source, target))
        self._far.bind(("", port))
        self._far.settimeout(0.2)
        self._to = (address, port)
        self.first_s = 0.0
        super().__init__(self._send, self._hear, sockets=(self._near, self._far))

    def _send(self) -> None:
        while not self.over.is_set() and not self.first_s:
            with contextlib.suppress(OSError):  # what an earlier packet brought back
                self._near.sendto(b"through", self._to)
            time.sleep(STEP_S)

    def _hear(self) -> None:
        while not self.over.is_set() and not self.first_s:
            with contextlib.suppress(TimeoutError):
                self._far.recv(64)
                self.first_s = time.monotonic()


def _unit_s(both: Both, unit: str) -> float:
    """When a unit was reached, of the machine's clock, which the router has in common with its hosts."""
    text = both.site.router.shell(["systemctl", "show", "-p", "ActiveEnterTimestampMonotonic", unit]).text
    found = re.search(r"=(\d+)", text)
    assert found, text
    return int(found[1]) / 1e6


def test_what_was_stored_serves_within_three_seconds(both: Both, tell: Callable[[str], None]) -> None:
    router, outward, inward = both.site.router, [], []
    for _ in range(BOOTS):
        router.power_cut()
        with (
            Stream(both.guest, both.world, FAR, TARGET) as out,
            Stream(both.world, both.guest, PUBLIC[0], OPEN) as back,
        ):
            router.boot()
            router.eventually(lambda out=out, back=back: out.first_s and back.first_s, "forwards again", 30)  # type: ignore[misc]
        began = _unit_s(both, "network-pre.target")
        outward.append(out.first_s - began)
        inward.append(back.first_s - began)
    for name, found in (("outward", outward), ("through a port forward", inward)):
        low, middle, high = min(found), statistics.median(found), max(found)
        tell(f"first packet {name} after network-pre: {low:.2f} / {middle:.2f} / {high:.2f} s (bound {BOUND_S:g} s)")
    assert both.site.plan()["changes"] == []
    assert max(*outward, *inward) <= BOUND_S
