"""One broken part never blocks the rest, and what is wrong changes nothing."""

import json
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import pytest
from replay import (
    BOOT_LINE,
    SECOND_PUBLIC,
    Site,
    egress_default,
    firewall,
    forward,
    forwards,
    ingress,
    ips,
    said,
    settled,
    site,
    vm,
    vm_line,
)

pytestmark = pytest.mark.lab

PID_FILE = "/run/dnsmasq/dnsmasq.pid"
UNIT = "/usr/lib/systemd/system/dnsmasq.service"
TRACE = "/tmp/touched"  # noqa: S108 a file inside the router
COMMANDS = 20
FIRST_PORT = 5000


@pytest.fixture(scope="module")
def made() -> Iterator[Site]:
    with settled("faults") as made:
        yield made


def inside(made: Site, script: str) -> None:
    done = made.router.shell(["sh", "-ec", script])
    assert done.code == 0, said(done)


@contextmanager
def broken(made: Site, breaks: str, mends: str) -> Iterator[None]:
    inside(made, breaks)
    try:
        yield
    finally:
        inside(made, mends)


def all_are_applied(made: Site, named: str = "") -> None:
    """Firewall commands, each answered 0 and seen in the kernel; the older fault is named each time."""
    for number in range(COMMANDS):
        answer = made.told(firewall(ingress(100 + number, FIRST_PORT + number)))
        assert f". {FIRST_PORT + number}" in made.holds("ingress_port")
        assert f"+ firewall ingress_port {{ 203.0.113.11 . tcp . 0.0.0.0/0 . {FIRST_PORT + number} }}" in answer
        assert (named in answer) if named else ("not as wanted" not in answer)


def and_revoked(made: Site) -> str:
    return made.told(
        firewall(*(ingress(100 + number, FIRST_PORT + number, revoked=True) for number in range(COMMANDS)))
    )


def test_a_masked_service_that_nothing_needs_is_no_fault(made: Site) -> None:
    before = made.state()
    with broken(made, "systemctl -q mask haproxy", "systemctl -q unmask haproxy"):
        all_are_applied(made)
    and_revoked(made)
    assert made.state() == before


def test_with_dnsmasq_masked_the_firewall_goes_on(made: Site) -> None:
    before = made.state()
    # Masked as an operator of the image would: its own file gives way to the mask.
    breaks = (
        f"mv {UNIT} /root/; ln -s /dev/null {UNIT}; systemctl daemon-reload; kill -9 $(cat /run/dnsmasq/dnsmasq.pid)"
    )
    with broken(made, breaks, f"mv /root/dnsmasq.service {UNIT}; systemctl daemon-reload"):
        all_are_applied(made, "not as wanted: Unit dnsmasq.service: dnsmasq.service is masked")
        assert "dnsmasq.service is masked" in made.alerts()
    assert "unit dnsmasq.service start" in and_revoked(made)
    assert made.router.active("dnsmasq.service")
    assert made.plan()["changes"] == []
    assert made.state() == before


def test_with_an_unwritable_configuration_the_firewall_goes_on(made: Site) -> None:
    before = made.state()
    breaks = "echo log-queries >> /etc/dnsmasq.conf; mount --bind -o ro /etc/dnsmasq.conf /etc/dnsmasq.conf"
    with broken(made, breaks, "umount /etc/dnsmasq.conf"):
        all_are_applied(made, "not as wanted: File /etc/dnsmasq.conf: ")
    assert "~ file /etc/dnsmasq.conf (-log-queries)" in and_revoked(made)
    assert made.plan()["changes"] == []
    assert made.state() == before


def test_with_a_nic_gone_the_firewall_goes_on(made: Site) -> None:
    before = made.state()
    made.router.unplug("eth3")
    try:
        all_are_applied(made, f"pending: address 198.51.100.20/24 waits for nic {SECOND_PUBLIC}")
    finally:
        made.router.plug(made.second, SECOND_PUBLIC)
    assert "+ address eth3 198.51.100.20/24" in and_revoked(made)
    plan = made.plan()
    assert plan["changes"] == []
    assert plan["pending"] == []
    assert made.state() == before


def test_a_command_whose_own_part_cannot_be_applied_is_taken_back(made: Site) -> None:
    made.told(vm(1))
    guest = made.lab.guest("web1", made.lab.segment("guest"), "02:00:4c:5e:00:01")
    before, store, units = made.state(), made.store(), made.units()
    with broken(made, "mount --bind -o ro /etc/dhcphosts.txt /etc/dhcphosts.txt", "umount /etc/dhcphosts.txt"):
        done = made.tell(vm(7))
        assert done.code == 3, said(done)
        assert "/etc/dhcphosts.txt" in done.text
        assert made.store() == store
        assert made.plan()["changes"] == []
        assert guest.gets_lease().address == "10.1.1.11"
    assert made.state() == before
    assert made.units()["dnsmasq.service"]["InvocationID"] == units["dnsmasq.service"]["InvocationID"]
    made.told(vm(7))
    assert vm_line(7) in made.path("/etc/dhcphosts.txt").read_text()
    made.told(vm(7, remove=True))
    assert made.state() == before


def test_with_nowhere_to_store_it_a_command_is_refused_and_the_old_serves_on(made: Site) -> None:
    before, store = made.state(), made.store()
    # The agent has a view of the disk of its own, in which this mount would not be.
    breaking = "systemctl stop holdfast-agent && mount --bind -o ro /etc/cloudstack /etc/cloudstack"
    with broken(made, breaking, "umount /etc/cloudstack && systemctl start holdfast-agent"):
        done = made.tell(firewall(ingress(100, FIRST_PORT)))
        assert done.code == 3, said(done)
        assert made.state() == before
    assert made.store() == store
    made.told(firewall(ingress(100, FIRST_PORT)))
    made.told(firewall(ingress(100, FIRST_PORT, revoked=True)))
    assert made.state() == before


def rule(**changed: Any) -> dict[str, Any]:
    return firewall(ingress(900, 9000) | changed)


def without(payload: dict[str, Any], name: str) -> dict[str, Any]:
    return {key: value for key, value in payload.items() if key != name}


def port_forward(**changed: Any) -> dict[str, Any]:
    return forwards(forward(9022, "10.1.1.11", 22) | changed)


def address(**changed: Any) -> dict[str, Any]:
    [unit] = ips("203.0.113.14")["ip_address"]
    return {"ip_address": [{key: value for key, value in (unit | changed).items() if value is not None}], "type": "ips"}


def user_data(*items: list[str | None], to: str = "10.1.1.11") -> dict[str, Any]:
    return {"vm_ip_address": to, "vm_metadata": list(items), "type": "vmdata"}


INJECTION = f"; touch {TRACE} #"
REFUSED: dict[str, bytes | dict[str, Any]] = {
    "truncated": json.dumps(rule()).encode()[:-9],
    "empty": b"",
    "blank": b" \n",
    "a list": b"[]",
    "not UTF-8": json.dumps(vm(8)).replace("web8", "web\xff").encode("latin-1"),
    "nested without end": b'{"type":"loadbalancer","rules":' + b"[" * 100_000,
    "no type": without(rule(), "type"),
    "unknown type": {"type": "nonsense"},
    "type is a number": {"type": 7},
    "rule without an address": firewall(without(ingress(900, 9000), "src_ip")),
    "CIDR out of range": rule(source_cidr_list=["999.1.2.3/24"]),
    "CIDR with a command": rule(source_cidr_list=[f"10.0.0.0/8{INJECTION}"]),
    "protocol with a command": rule(protocol=f"tcp{INJECTION}"),
    "gateway with a command": address(gateway=f"203.0.113.1{INJECTION}"),
    "address out of range": address(public_ip="203.0.113.300"),
    "address without a netmask": address(netmask=None),
    "ports with a command": port_forward(source_port_range=f"22:22{INJECTION}"),
    "destination ports with a command": port_forward(destination_port_range=f"22:22{INJECTION}"),
    "ports out of range": port_forward(source_port_range="70000:70000"),
    "host name with a line": vm(8, host_name="web8\n02:00:4c:5e:00:01,10.1.1.66,evil,infinite"),
    "MAC is a pattern": vm(8, mac_address=".*"),
    "guest address out of range": vm(8, ipv4_address="10.1.300.4"),
    "guest without default_entry": without(vm(8), "default_entry"),
    "metadata of a path": user_data(["metadata", "x", "y"], to="../../../../../tmp/trav"),
}  # fmt: skip


@pytest.mark.parametrize("payload", REFUSED.values(), ids=list(REFUSED))
def test_what_is_wrong_changes_nothing_and_the_next_command_works(made: Site, payload: bytes | dict[str, Any]) -> None:
    before, footprints = made.state(), made.footprints()
    text = payload if isinstance(payload, bytes) else json.dumps(payload).encode()
    done = made.tell(text)
    assert done.code == 2, said(done)
    assert "Traceback" not in done.errors
    assert "refused" in done.text + done.errors
    assert made.state() == before
    assert made.footprints() == footprints
    assert not made.path(TRACE).exists()
    assert "rolled back" not in made.told(vm(2))
    assert made.footprints() == footprints


@pytest.mark.parametrize(
    "payload",
    [
        vm(8, host_name=f"a{INJECTION}"),
        user_data(["../../../../../etc/cron.d", "evil", "* * * * * root touch /tmp/touched"]),
        user_data(["userdata", "user-data", "%%% not base64"]),
    ],
    ids=["host name with a command", "metadata that climbs", "user data not base64"],
)
def test_hostile_text_stays_text(made: Site, payload: dict[str, Any]) -> None:
    """It is taken in or refused, but it goes nowhere but where such text goes, and blocks nobody."""
    before = made.state()
    done = made.tell(json.dumps(payload).encode(), f"hostile.json.{payload['type']}")
    assert done.code in (0, 2), said(done)
    assert not made.path(TRACE).exists()
    assert not made.path("/etc/cron.d/evil").exists()
    assert "touch" not in "".join(made.path(path).read_text() for path in made.manifest())
    assert made.plan()["changes"] == []
    made.told(vm(8, remove=True))
    made.told(vm(1, remove=True))  # with its nic goes what is known of a VM, if anything was taken in
    made.told(vm(1))
    assert made.state() == before


def test_a_bad_rule_does_not_take_its_good_neighbours_along(made: Site) -> None:
    before = made.state()
    bad = ingress(901, 9001) | {"source_cidr_list": ["999.1.2.3/24"]}
    message = firewall(ingress(900, 9000), bad, ingress(902, 9002))
    done = made.tell(message)
    assert done.code == 5, said(done)
    assert "rules[1]" in done.text
    held = made.holds("ingress_port")
    assert ". 9000" in held
    assert ". 9002" in held
    assert ". 9001" not in held
    # Servers send the whole list again with every change: an old refusal is a warning.
    answer = made.told(message)
    assert "refused: " in answer
    made.told(firewall(*(ingress(number, 0, revoked=True) for number in (900, 901, 902))))
    assert made.state() == before


def test_a_forward_of_an_unknown_address_waits_and_blocks_nobody(made: Site) -> None:
    before = made.state()
    made.told(port_forward(source_ip_address="203.0.113.77"))
    made.told(firewall(ingress(900, 9000)))
    made.told(firewall(ingress(900, 9000, revoked=True)))
    made.told(port_forward(source_ip_address="203.0.113.77", revoke=True))
    assert made.state() == before


@pytest.mark.parametrize(
    "arguments",
    [(), ("a", "b", "c"), ("absent.json",), ("../../../etc/passwd",), ("/etc/passwd",), ("a.json", "perhaps"), ("",)],
)
def test_wrong_use_is_told_apart_from_success(made: Site, arguments: tuple[str, ...]) -> None:
    footprints = made.footprints()
    done = made.router.run("update_config.py", *arguments)
    assert done.code == 2, said(done)
    assert done.errors.startswith(("usage: ", "error: "))
    assert made.footprints() == footprints


def test_a_start_with_a_bad_message_in_its_bundle_still_serves() -> None:
    bad = ingress(2, 80) | {"source_cidr_list": ["999.1.2.3/24"]}
    messages = {
        "ip_associations.json.1": json.dumps(ips("203.0.113.10", "203.0.113.11")),
        "firewall_rules.json.1": json.dumps(firewall(egress_default(), ingress(1, 22), bad)),
        "broken.json.1": '{"type": "firewallrules", "rules": [',
        "vm_dhcp_entry.json.1": json.dumps(vm(1)),
    }
    bundle = "#Apache CloudStack Virtual Router Config File\n<version>\n1.0\n</version>\n" + "".join(
        f"<file>\n/var/cache/cloud/{name}\n{text}\n</file>\n"
        f"<script>\n/opt/cloud/bin/update_config.py {name}\n</script>\n"
        for name, text in messages.items()
    )
    with site("start") as made:
        booted = made.boot(BOOT_LINE)
        assert booted.code == 0, said(booted)
        made.router.send(bundle.encode(), "VR-1.cfg")
        done = made.router.run("vr_cfg.sh", "-c", "/var/cache/cloud/VR-1.cfg")
        assert done.code == 0, said(done)
        assert "refused: firewall_rules.json.1: rules[2]" in done.text
        assert "refused: broken.json.1" in done.text
        alerts = made.alerts()
        assert "firewall_rules.json.1: rules[2]" in alerts
        assert "broken.json.1" in alerts
        assert made.plan()["changes"] == []
        assert ". 22" in made.holds("ingress_port")
        assert ("eth2", "203.0.113.11/24") in made.state()["addresses"]
        guest = made.lab.guest("web1", made.lab.segment("guest"), "02:00:4c:5e:00:01")
        assert guest.gets_lease().address == "10.1.1.11"
        # Once it runs, a refusal is no longer hidden behind a success.
        made.told(vm(2))
        again = made.tell(firewall(ingress(3, 443), ingress(4, 81) | {"source_cidr_list": ["999.9.9.9/9"]}))
        assert again.code == 5, said(again)
