"""A VPC's recorded story, of two management servers, replayed against a router step by step."""

import json
import time
from collections.abc import Iterator
from typing import Any

import pytest
from by_mac import by_mac, difference
from recorded import Player, Step, begin, story
from replay import HOLDFAST, Site, said, site

from holdfast.health import PLACE

pytestmark = pytest.mark.lab

CONTROL = (("control", "0e:00:a9:fe:58:14"),)
VIEW = "/run/holdfast/guest/view.json"
PUBLIC, GATEWAY, WEB, APP = "1e:00:8f:00:05:11", "1e:01:06:45:00:01", "02:00:6e:01:00:14", "02:00:6e:02:00:14"


@pytest.fixture
def made() -> Iterator[Site]:
    with site("vpcreplay", CONTROL) as made:
        yield made


def macs(made: Site) -> dict[str, str]:
    return {nic: port.mac for nic, port in made.router.ports.items()}


def restart(made: Site, line: Step) -> None:
    """Power cut; the hypervisor starts it with the control nic alone, and the boot line comes again."""
    made.router.power_cut()
    for nic in sorted(made.router.ports, reverse=True)[:-1]:
        made.router.unplug(nic)
    booted = made.boot(line.boot_line or "")
    assert booted.code == 0, said(booted)
    plan = made.plan()
    assert plan["changes"] == []
    for mac in (PUBLIC, WEB, APP):
        assert any(f"waits for nic {mac}" in text for text in plan["pending"]), mac


def farewell(steps: list[Step]) -> list[Step]:
    """The steps that take the private gateway away, which the restart has brought back."""
    [address] = [step for step in steps if step.story == "private gateway deleted"]
    [acl] = [step for step in steps if step.story == "ACL items of the private gateway revoked"]
    return [address, acl]


def private_gateway(made: Site) -> None:
    """It is there as before, with its address, its ACL and its route, under whatever number its nic has now."""
    [nic] = [nic for nic, mac in macs(made).items() if mac == GATEWAY]
    state = made.state()
    assert (nic, "172.16.50.10/24") in state["addresses"]
    routes = [json.loads(route) for route in state["routes"]]
    [way] = [r for r in routes if r["dst"] == "192.168.100.0/24" and r.get("type", "1") != "throw" and "gateway" in r]
    assert (way["gateway"], way["dev"]) == ("172.16.50.1", nic)
    assert "172.16.0.0/12" in made.holds(f"acl_in_{nic}_0_allow_proto")


def without_keys(state: dict[str, Any]) -> dict[str, Any]:
    """Without VMs' public keys: at the restart the recorded server sends one that it had sent before as null.  And
    without what health checks look for: only at the restart it told of port forwards and VMs.
    """
    state = state | {"files": {path: held for path, held in state["files"].items() if path != PLACE}}
    mode, lines = state["files"][VIEW]
    view = json.loads("".join(lines))
    assert [guest["metadata"].pop("public-keys") for guest in view["guests"].values()]
    return state | {"files": state["files"] | {VIEW: (mode, json.dumps(view))}}


@pytest.mark.parametrize("version", ["4.22", pytest.param("4.6.1", marks=pytest.mark.appliance)])
def test_every_step_of_a_vpc_leaves_nothing_to_do_and_a_restart_with_other_numbers_changes_nothing(
    made: Site, version: str
) -> None:
    began = time.monotonic()
    steps = story(version, "S2")
    told = begin(made, steps)
    player = Player(made)
    at = next(index for index, step in enumerate(told) if step.boot_line)
    for step in told[:at]:
        if not any(event[1] == "bootArgs.txt" for event in step.events):
            player.play(step)
    # Every kind of message has come by; a story without its commands would prove nothing.
    assert player.commands > 45
    lived, numbers = by_mac(made.state(), macs(made)), macs(made)

    restart(made, told[at])
    player.starting = True
    for step in told[at + 1 :]:
        player.play(step)
    assert not [text for text in made.plan()["pending"] if "waits for nic" in text]
    assert version == "4.6.1" or macs(made) != {nic: mac for nic, mac in numbers.items() if nic in macs(made)}
    private_gateway(made)
    status = made.router.shell([HOLDFAST, "status"])
    assert status.code == 0, said(status)
    player.starting = False
    for step in farewell(steps):
        player.play(step)
    again = by_mac(made.state(), macs(made))
    assert difference(without_keys(lived), without_keys(again)) == {}
    assert without_keys(again) == without_keys(lived)

    made.router.power_cut()
    made.router.boot()
    assert made.plan()["changes"] == [], made.router.journal(60)
    assert by_mac(made.state(), macs(made)) == again
    player.asking.told_and_kept_secret()
    print(  # noqa: T201 what was not replayed
        f"{version}: {player.commands} commands in {time.monotonic() - began:.0f} s; pending at the end:",
        *made.plan()["pending"],
        f"{len(player.asking.answers)} scripts in {player.asking.seconds:.1f} s:",
        *player.asking.answers,
        sep="\n  ",
    )
