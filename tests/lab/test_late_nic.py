"""Addresses for a nic that the hypervisor has not plugged yet."""

import json
import threading
import time
from collections.abc import Iterator
from typing import Any

import pytest
from replay import BOOT_LINE, SECOND_PUBLIC, Site, firewall, ingress, ips, said, site
from slack import SLACK

from holdfast.lab.process import Result

pytestmark = pytest.mark.lab

PLUGGED_AFTER_S = 2.0
BOUND_S = 3.0
AT_ONCE_S = SLACK * 1.5  # far below the half minute for which others wait for the nic: it comes when this is answered


class Waiting(threading.Thread):
    """A command that runs beside the test."""

    def __init__(self, made: Site, name: str, payload: dict[str, Any], bound_s: float = 30) -> None:
        super().__init__()
        self.made, self.name_, self.payload, self.bound_s = made, name, payload, bound_s
        self.done: Result | None = None
        self.start()

    def run(self) -> None:
        self.made.router.send(json.dumps(self.payload).encode(), self.name_)
        bound = f"HOLDFAST_NIC_WAIT_S={self.bound_s}"
        self.done = self.made.router.shell(["env", bound, "/opt/cloud/bin/update_config.py", self.name_])

    def result(self) -> Result:
        self.join()
        assert self.done
        return self.done


@pytest.fixture(scope="module")
def booted() -> Iterator[Site]:
    with site("late") as made:
        done = made.boot(BOOT_LINE)
        assert done.code == 0, said(done)
        made.told(ips("203.0.113.10", "203.0.113.11"))
        yield made


@pytest.fixture
def made(booted: Site) -> Iterator[Site]:
    before = booted.state()
    yield booted
    booted.told(late("198.51.100.20", "198.51.100.21", add=False))
    booted.told(firewall(ingress(800, 8000, revoked=True)))
    if "eth3" in booted.router.ports:
        booted.router.unplug("eth3")
    booted.told(firewall(ingress(800, 8000, revoked=True)))
    assert booted.state() == before
    assert booted.plan()["pending"] == []


def late(*addresses: str, add: bool = True) -> dict[str, Any]:
    return ips(*addresses, mac=SECOND_PUBLIC, gateway="198.51.100.1", number=3, add=add)


def test_a_nic_that_comes_late_is_waited_for_and_others_are_answered_meanwhile(made: Site) -> None:
    began = time.monotonic()
    first = Waiting(made, "ip_associations.json.a", late("198.51.100.20"))
    second = Waiting(made, "ip_associations.json.b", late("198.51.100.21"))
    time.sleep(PLUGGED_AFTER_S / 2)
    other = made.tell(firewall(ingress(800, 8000)))
    assert other.code == 0, said(other)
    assert other.seconds < AT_ONCE_S
    assert ". 8000" in made.holds("ingress_port")
    assert f"waits for nic {SECOND_PUBLIC}" in other.text
    time.sleep(max(0.0, began + PLUGGED_AFTER_S - time.monotonic()))
    assert first.is_alive()
    assert second.is_alive()

    assert made.router.plug(made.second, SECOND_PUBLIC) == "eth3"

    for waiting in (first, second):
        done = waiting.result()
        assert done.code == 0, said(done)
    addresses = made.state()["addresses"]
    assert ("eth3", "198.51.100.20/24") in addresses
    assert ("eth3", "198.51.100.21/24") in addresses
    assert ". 8000" in made.holds("ingress_port")
    assert made.plan() == {"changes": [], "pending": [], "refused": [], "conflicts": []}


def test_for_a_nic_that_never_comes_the_command_is_taken_back_and_no_other(made: Site) -> None:
    waiting = Waiting(made, "ip_associations.json.c", late("198.51.100.20"), bound_s=BOUND_S)
    time.sleep(BOUND_S / 3)
    other = made.tell(firewall(ingress(800, 8000)))
    assert other.code == 0, said(other)
    assert waiting.is_alive()
    done = waiting.result()
    assert done.code == 3, said(done)
    assert BOUND_S <= done.seconds < BOUND_S * 3
    assert f"no such nic: {SECOND_PUBLIC}; taken back" in done.text
    assert ". 8000" in made.holds("ingress_port")
    assert made.plan() == {"changes": [], "pending": [], "refused": [], "conflicts": []}
    assert "198.51.100.20" not in made.path("/etc/cloudstack/ips.json").read_text()
    assert SECOND_PUBLIC in made.alerts()
    # The same again, now that the nic is there.
    made.router.plug(made.second, SECOND_PUBLIC)
    again = made.router.run("update_config.py", "ip_associations.json.c")
    assert again.code == 0, said(again)
    assert ("eth3", "198.51.100.20/24") in made.state()["addresses"]


def test_what_asks_for_nothing_waits_for_nothing(made: Site) -> None:
    done = made.tell(late("198.51.100.20", add=False))
    assert done.code == 0, said(done)
    assert done.seconds < AT_ONCE_S


def test_a_late_nic_whose_addresses_the_machine_does_not_take_is_no_success(made: Site) -> None:
    tables = "/etc/iproute2/rt_tables.d/holdfast.conf"
    before = made.state()
    done = made.router.shell(["mount", "--bind", "-o", "ro", tables, tables])
    assert done.code == 0, said(done)
    try:
        waiting = Waiting(made, "ip_associations.json.d", late("198.51.100.20"))
        time.sleep(PLUGGED_AFTER_S / 2)
        made.router.plug(made.second, SECOND_PUBLIC)
        done = waiting.result()
    finally:
        made.router.shell(["umount", tables])
    assert done.code == 3, said(done)
    assert tables in done.text
    assert "198.51.100.20" not in made.path("/etc/cloudstack/ips.json").read_text()
    made.router.unplug("eth3")
    assert made.state() == before
