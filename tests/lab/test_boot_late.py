"""KVM's boot line, which its agent writes some seconds after the start, and which a plain reboot never sees."""

import json
import time
from collections.abc import Iterator

import pytest
from replay import BOOT_LINE, HOLDFAST, Site, egress_default, firewall, forward, forwards, ingress, ips, said, site, vm
from served import bundle

pytestmark = [pytest.mark.lab, pytest.mark.appliance]

LINE = "/var/cache/cloud/cmdline"
DETECTED = "/usr/local/bin/systemd-detect-virt"
ADDRESSES = ips("203.0.113.10", "203.0.113.11", "203.0.113.12")
KEPT, REVOKED = ingress(1, 22), ingress(2, 80)
LATE_S = 5.0


@pytest.fixture
def stored() -> Iterator[Site]:
    """A router that has lived: rules, a forward and two VMs; its machine says that it is one of KVM's."""
    with site("kvmlate") as made:
        made.router.write(DETECTED, "#!/bin/sh\necho kvm\n", mode=0o755)
        made.router.write(LINE, BOOT_LINE)
        made.router.boot()
        for payload in (
            ADDRESSES,
            firewall(egress_default()),
            firewall(KEPT, REVOKED),
            forwards(forward(2222, "10.1.1.11", 22)),
            vm(1),
            vm(2),
        ):
            made.told(payload)
        assert made.plan()["changes"] == []
        yield made


def opened(made: Site) -> set[str]:
    """Ports of 203.0.113.11 that the firewall lets in."""
    return {port for port in ("22", "80") if f"203.0.113.11 . 6 . 0.0.0.0/0 . {port}" in made.holds("ingress_port")}


def test_the_same_line_late_is_a_start_and_what_it_does_not_say_anew_goes(stored: Site) -> None:
    router = stored.router
    lived = stored.state()
    router.power_cut()
    router.boot()
    assert stored.state() == lived, "it waits for nobody"

    time.sleep(LATE_S)
    router.write(LINE, BOOT_LINE)
    router.eventually(lambda: "a start by the management server" in router.journal(400), "it is taken for a start", 20)
    assert stored.state() == lived, "what was restored serves on"

    said_anew = [
        ("ip_associations", ADDRESSES), ("firewall_rules", firewall(egress_default(), KEPT)), ("vm_dhcp_entry", vm(1)),
    ]  # fmt: skip
    router.send(bundle(said_anew), "VR-8b5f0f3c.cfg")
    done = router.run("vr_cfg.sh", "-c", "/var/cache/cloud/VR-8b5f0f3c.cfg")
    assert done.code == 0, said(done)
    assert opened(stored) == {"22", "80"}, "not before the start has come to its end"
    stored.told(vm(3))

    assert opened(stored) == {"22"}
    assert "2222" not in router.shell(["nft", "list", "ruleset"]).text
    names = router.read("/etc/dhcphosts.txt")
    assert ("web1" in names, "web2" in names, "web3" in names) == (True, False, True)
    assert stored.plan()["changes"] == []
    history = json.loads(router.shell([HOLDFAST, "history", "--json"]).text)
    assert len(history["generations"]) > 6, "what was before is kept"


def test_a_plain_reboot_takes_nothing_away(stored: Site) -> None:
    router = stored.router
    lived = stored.state()
    router.reboot()

    time.sleep(LATE_S)
    stored.told(vm(3))

    assert "a start by the management server" not in router.journal(400)
    assert opened(stored) == {"22", "80"}
    stored.told(vm(3, remove=True))
    assert stored.state() == lived


def test_another_line_late_is_taken_when_it_comes(stored: Site) -> None:
    router = stored.router
    router.power_cut()
    router.boot()

    time.sleep(LATE_S)
    router.write(LINE, BOOT_LINE.replace("dns1=8.8.8.8", "dns1=9.9.9.9"))

    router.eventually(lambda: "9.9.9.9" in router.read("/etc/resolv.conf"), "the other line is in force", 20)
    # The resolver's file is among the first that the run writes: a plan asked for meanwhile has the rest in it.
    router.eventually(lambda: stored.plan()["changes"] == [], "that run has ended", 5)
    assert opened(stored) == {"22", "80"}
