"""Tiers come, change and go in any order; what is gone leaves nothing, and what comes inherits nothing."""

import json
import os
import random
import re
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest
from by_mac import by_mac, difference
from replay import Site, said
from slack import SLACK, SOAK
from vpc import acl, begin, host, host_mac, mac, macs, named, net, plug, rule, strict, tell, tier, unplug, up, vpc

from holdfast.lab.process import Result

pytestmark = pytest.mark.lab

ORDERS, MOVES = (30, 25) if SOAK else (3, 12)
TIERS = (1, 2, 3, 4)
PLUGGED_AFTER_S, BOUND_S, AT_ONCE_S = 2.0, 3.0, SLACK * 1.5
KEPT_PLACES = ("/etc", "/run", "/var/lib/misc", "/var/lib/holdfast")


@pytest.fixture(scope="module")
def router() -> Iterator[Site]:
    with vpc("tiers") as made:
        yield made


@pytest.fixture
def made(router: Site) -> Iterator[Site]:
    """A router without tiers, before and after."""
    before = by_mac(router.state(), macs(router))
    yield router
    for number in TIERS:
        tell(router, tier(number, add=False))
        unplug(router, number)
    tell(router, tier(1, add=False))
    assert difference(before, by_mac(router.state(), macs(router))) == {}
    assert router.plan() == {"changes": [], "pending": [], "refused": [], "conflicts": []}


class Life:
    """The messages that hold now, by what they are about, of a VPC that lives."""

    def __init__(self, made: Site, dice: random.Random) -> None:
        self.made, self.dice = made, dice
        self.tiers: dict[int, dict[str, Any]] = {}
        self.others: dict[tuple[str, int], dict[str, Any]] = {}

    def move(self) -> None:
        """One thing that the management server might do."""
        number = self.dice.choice(TIERS)
        if number not in self.tiers:
            plug(self.made, number)
            self.put(number, tier(number))
            return
        chosen = self.dice.choice(["gateway", "dns", "mtu", "domain", "acl", "host", "delete", "delete"])
        if chosen == "delete":
            tell(self.made, tier(number, add=False))
            unplug(self.made, number)
            del self.tiers[number]
            self.others = {key: told for key, told in self.others.items() if key[1] != number}
        elif chosen in ("acl", "host"):
            some = (strict(number), acl(number, [rule("all", "0.0.0.0/0")], [])) if chosen == "acl" else (host(number),)
            self.others[chosen, number] = self.dice.choice(some)
            tell(self.made, self.others[chosen, number])
        else:
            values: dict[str, tuple[str, list[Any]]] = {
                "gateway": ("router_guest_gateway", [f"{net(number)}.1", f"{net(number)}.254"]),
                "dns": ("dns", ["", "192.0.2.53", "192.0.2.54,192.0.2.55"]),
                "mtu": ("mtu", [1400, 1450, 1500]),
                "domain": ("domain_name", ["vpc.example", "other.example"]),
            }
            field, choices = values[chosen]
            self.put(number, {**self.tiers[number], field: self.dice.choice(choices)})

    def put(self, number: int, told: dict[str, Any]) -> None:
        self.tiers[number] = told
        tell(self.made, told)


@pytest.fixture
def seed() -> int:
    seed = int(os.environ.get("HOLDFAST_SEED") or random.SystemRandom().randrange(1 << 32))
    print(f"HOLDFAST_SEED={seed}")  # noqa: T201 a failure is repeated with it
    return seed


def test_whatever_came_and_went_before_the_machine_is_that_of_a_fresh_router(seed: int) -> None:
    dice = random.Random(seed)  # noqa: S311 orders, not secrets
    with vpc("tierorders") as made:
        for _ in range(ORDERS):
            life = Life(made, dice)
            for _ in range(MOVES):
                life.move()
            assert made.plan()["changes"] == []
            lived = by_mac(made.state(), macs(made))

            made.router.power_cut(keep_disk=False)
            for number in TIERS:
                unplug(made, number)
            begin(made)
            final = list(life.tiers.values())
            others = list(life.others.values())
            dice.shuffle(final)
            dice.shuffle(others)
            for told in final:
                plug(made, told["network_id"] - 300)
                tell(made, told)
            for told in others:
                tell(made, told)
            assert difference(lived, by_mac(made.state(), macs(made))) == {}
            for number in life.tiers:
                tell(made, tier(number, add=False))
                unplug(made, number)


def test_a_tier_that_goes_leaves_nothing_and_its_neighbour_is_as_it_was(made: Site) -> None:
    up(made, 1)
    flow(made, f"{net(1)}.21", "198.51.100.7")
    before, generation = made.state(), made.ruleset_generation()
    name = up(made, 2)
    assert made.ruleset_generation() > generation
    vm = made.lab.guest("leaver", made.lab.segment("tier2"), host_mac(2))
    assert vm.gets_lease().address == f"{net(2)}.21"
    flow(made, f"{net(2)}.21", "198.51.100.7")
    flow(made, f"{net(1)}.21", f"{net(2)}.21")
    flow(made, "198.51.100.7", "203.0.113.51", "--dst-nat", f"{net(2)}.21")
    assert len(flows(made, net(2))) == 3

    tell(made, tier(2, add=False))

    assert flows(made, net(2)) == []
    assert len(flows(made, net(1))) == 1
    made.router.unplug(name)
    assert made.state() == before
    assert made.plan()["changes"] == []
    everywhere = made.router.shell(["grep", "-rlE", rf"{net(2)}\.|{name}\b", *KEPT_PLACES]).text.splitlines()
    history = ("/etc/cloudstack/", "/run/log/", "/var/lib/misc/dnsmasq.leases")  # the last: see below
    assert [path for path in everywhere if not path.startswith(history)] == []
    current = made.router.shell(
        ["grep", "-rlE", "--exclude=command.json", rf"{net(2)}\.|{mac(2)}", "/etc/cloudstack/current/"]
    ).text
    assert current == ""


def flow(made: Site, source: str, target: str, *more: str) -> None:
    argv = ["conntrack", "-I", "-s", source, "-d", target, "-p", "udp", "--sport", "4000", "--dport", "4001"]
    done = made.router.shell([*argv, "-t", "600", *more])
    assert done.code == 0, said(done)


def flows(made: Site, prefix: str) -> list[str]:
    listed = made.router.shell(["conntrack", "-L", "-p", "udp", "--sport", "4000"]).text.splitlines()
    return [line for line in listed if f"={prefix}." in line]


def acl_sets(made: Site, name: str) -> list[str]:
    """Sets of a nic's ACL that hold anything, and what stands for it among the open ones."""
    ruleset = made.router.shell(["nft", "-n", "list", "ruleset"]).text
    return sorted(set(re.findall(rf"\bset (acl_(?:in|out)_{name}_\w+)", ruleset)))


def reused(made: Site) -> None:
    """Deleted; another network comes on the same nic."""
    tell(made, tier(2, add=False))
    tell(made, tier(2, router_guest_ip=f"{net(9)}.1", router_guest_gateway=f"{net(9)}.1", network_id=390))


def replaced(made: Site) -> None:
    """Never deleted: the message was lost, and the nic is another network's now."""
    tell(made, tier(2, router_guest_ip=f"{net(9)}.1", router_guest_gateway=f"{net(9)}.1", network_id=390))


def renamed(made: Site) -> None:
    """Deleted and unplugged; another nic gets its name."""
    tell(made, tier(2, add=False))
    unplug(made, 2)
    plug(made, 3)
    tell(made, tier(3))


def back(made: Site) -> None:
    """Deleted; the very same comes back."""
    tell(made, tier(2, add=False))
    tell(made, tier(2))


@pytest.mark.parametrize(
    "happens",
    [reused, replaced, renamed, back],
    ids=lambda happens: happens.__name__,
)
def test_what_comes_on_a_used_nic_inherits_nothing(made: Site, happens: Callable[[Site], None]) -> None:
    name = up(made, 2)
    assert acl_sets(made, name)

    happens(made)

    assert made.router.ports[name]
    assert acl_sets(made, name) == []
    assert f'"{name}"' in made.holds("acl_open")
    assert made.path("/etc/dhcphosts.txt").read_text() == ""
    assert f'"{name}" . 17 . 67' not in made.holds("router_service")
    assert made.plan()["changes"] == []


def test_a_new_vm_gets_the_address_that_one_of_the_old_tier_had(made: Site) -> None:
    up(made, 2)
    assert made.lab.guest("old", made.lab.segment("tier2"), host_mac(2)).gets_lease().address == f"{net(2)}.21"
    tell(made, tier(2, add=False))
    tell(made, tier(2))
    tell(made, host(2, mac_address=host_mac(2, 0x99), host_name="heir"))
    heir = made.lab.guest("heir", made.lab.segment("tier2"), host_mac(2, 0x99))
    assert heir.gets_lease(timeout_s=4).address == f"{net(2)}.21"


def test_a_changed_gateway_dns_mtu_and_domain_reach_the_vms(made: Site) -> None:
    name = up(made, 2)
    vm = made.lab.guest("reader", made.lab.segment("tier2"), host_mac(2))
    lease = vm.gets_lease()
    assert (lease.router, lease.dns, lease.domain, lease.mtu) == (
        f"{net(2)}.1", (f"{net(2)}.1", "192.0.2.53", "192.0.2.54"), "vpc.example", 1500,
    )  # fmt: skip
    acls, changed = acl_sets(made, name), f"{net(2)}.254"

    tell(made, tier(2, router_guest_gateway=changed, dns="192.0.2.99", mtu=1400, domain_name="other.example",
                    is_vr_guest_gateway=False))  # fmt: skip

    lease = vm.gets_lease()
    assert (lease.router, lease.dns, lease.domain, lease.mtu) == (
        changed, (f"{net(2)}.1", "192.0.2.99"), "other.example", 1400,
    )  # fmt: skip
    assert made.state()["links"][name] == (True, 1400)
    assert acl_sets(made, name) == acls


def patient(made: Site, payload: dict[str, Any], bound_s: float) -> Result:
    """Send a message with a bound of its own for nics that come late."""
    made.router.send(json.dumps(payload).encode(), named(payload))
    bound = f"HOLDFAST_NIC_WAIT_S={bound_s}"
    return made.router.shell(["env", bound, "/opt/cloud/bin/update_config.py", named(payload)])


def test_a_tier_whose_nic_comes_late_is_waited_for_and_others_are_answered_meanwhile(made: Site) -> None:
    up(made, 1)
    with ThreadPoolExecutor() as pool:
        began = time.monotonic()
        waiting = pool.submit(patient, made, tier(2), 30)
        time.sleep(PLUGGED_AFTER_S / 2)
        other = made.tell(host(1, 22), named(host(1, 22)))
        assert (other.code, other.seconds < AT_ONCE_S) == (0, True), said(other)
        assert f"waits for nic {mac(2)}" in other.text
        time.sleep(max(0.0, began + PLUGGED_AFTER_S - time.monotonic()))
        assert not waiting.done()
        name = plug(made, 2)
        done = waiting.result()
    assert done.code == 0, said(done)
    assert (name, f"{net(2)}.1/24") in made.state()["addresses"]
    assert made.plan() == {"changes": [], "pending": [], "refused": [], "conflicts": []}


def test_a_tier_whose_nic_never_comes_is_taken_back_and_nothing_else_is(made: Site) -> None:
    up(made, 1)
    before, stored = made.state(), made.store()["documents"]
    done = patient(made, tier(2), BOUND_S)
    assert done.code == 3, said(done)
    assert BOUND_S <= done.seconds < BOUND_S * 3
    assert f"no such nic: {mac(2)}; taken back" in done.text
    assert mac(2) in made.alerts()
    assert made.state() == before
    assert made.store()["documents"].keys() == stored.keys()
    assert mac(2) not in made.path("/etc/cloudstack/current/guestnetwork.json").read_text()
    assert made.plan()["pending"] == []
