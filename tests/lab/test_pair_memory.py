"""What was settled on one router of a pair stays settled on the other: passwords, leases, what was revoked."""

import json
import time
from collections.abc import Iterator

import pytest
from failover import taken_over
from pair import FAR, IsolatedPair, isolated_pair

from holdfast.lab.router import Router

pytestmark = [pytest.mark.lab, pytest.mark.alone, pytest.mark.pair]

PASSWORDS = ("kiwi-Hafen-4711", "Moos-9-trompete")
NONE_WAITS = "saved_password"
TOLD_S = 1.0
"""How long a router has to tell the other one of an acknowledgement: four times it does within this."""
PORT, KEPT = 6200, 5010
BAG = "/etc/cloudstack/vmpassword.json"


@pytest.fixture(scope="module")
def made() -> Iterator[IsolatedPair]:
    with isolated_pair("memory") as made:
        yield made


@pytest.fixture
def pair(made: IsolatedPair) -> IsolatedPair:
    """Both on, one serves, nothing left to do."""
    made.ready()
    return made


def cut(pair: IsolatedPair) -> Router:
    """Take the power from the one that serves; the one that does now."""
    master, backup = pair.master, pair.backup
    master.power_cut()
    taken_over(pair, backup)
    return backup


def asks(pair: IsolatedPair, word: str) -> str:
    """What web1's password script is answered."""
    return pair.web1.can_fetch(pair.gateway, 8080, headers={"DomU_Request": word}).text


def test_a_password_is_never_delivered_again_by_the_other_one(pair: IsolatedPair) -> None:
    pair.web1.gets_lease()
    for password in PASSWORDS:
        pair.ready()
        pair.command("vm_password", {"ip_address": pair.web, "password": password, "type": "vmpassword"})
        assert asks(pair, "send_my_password") == password
        assert asks(pair, "send_my_password") == password  # until it is acknowledged
        assert asks(pair, "saved_password") == NONE_WAITS
        assert asks(pair, "send_my_password") == NONE_WAITS
        time.sleep(TOLD_S)
        # To the other one, and back to the first, which has been off meanwhile.
        for _ in range(2):
            cut(pair)
            assert asks(pair, "send_my_password") == NONE_WAITS
            pair.ready()


def test_a_router_that_has_missed_a_password_gives_the_next_one_once(pair: IsolatedPair) -> None:
    """It was off while one was told, which nobody fetched: from then on the two count differently."""
    pair.web1.gets_lease()
    master, backup = pair.master, pair.backup
    backup.power_cut()
    missed = {"ip_address": pair.web, "password": "Missed-1-by-one", "type": "vmpassword"}
    pair.command_one(pair.routers.index(master), "vm_password", missed)
    pair.ready()
    pair.command("vm_password", missed | {"password": "The-2-next"})
    serials = {router.name: json.loads(router.read(BAG))["passwords"][pair.web]["serial"] for router in pair.routers}
    assert serials[master.name] == serials[backup.name] + 1

    serving = cut(pair)
    assert asks(pair, "send_my_password") == "The-2-next"
    assert asks(pair, "saved_password") == NONE_WAITS
    pair.ready()
    time.sleep(TOLD_S)
    assert cut(pair) is not serving
    assert asks(pair, "send_my_password") == NONE_WAITS

    pair.ready()
    pair.command("vm_password", missed | {"password": "The-3-one-after"})
    cut(pair)
    assert asks(pair, "send_my_password") == "The-3-one-after"
    assert asks(pair, "saved_password") == NONE_WAITS


def test_a_password_that_nobody_has_acknowledged_waits_on_the_other_one(pair: IsolatedPair) -> None:
    pair.app1.gets_lease()
    pair.command("vm_password", {"ip_address": pair.app, "password": PASSWORDS[0], "type": "vmpassword"})
    assert pair.app1.can_fetch(pair.gateway, 8080, headers={"DomU_Request": "send_my_password"}).text == PASSWORDS[0]
    cut(pair)
    assert pair.app1.can_fetch(pair.gateway, 8080, headers={"DomU_Request": "send_my_password"}).text == PASSWORDS[0]


def test_a_lease_lives_on(pair: IsolatedPair) -> None:
    before = pair.web1.gets_lease()
    new = cut(pair)
    after = pair.web1.renews_lease()
    assert (after.address, after.router, after.dns) == (before.address, before.router, before.dns)
    assert after.server == pair.address(pair.routers.index(new))
    assert before.server != after.server


def test_what_was_revoked_stays_revoked(pair: IsolatedPair) -> None:
    rule, forward = pair.opened(300, "tcp", PORT), pair.forward("tcp", PORT)
    pair.command("firewall_rules", {"rules": [rule], "type": "firewallrules"})
    pair.command("forwarding_rules", {"rules": [forward], "type": "forwardrules"})
    for port in (PORT, KEPT):
        pair.web1.serve(port)
    doomed = pair.world.connects(pair.forwards, PORT, source=FAR)
    kept = pair.world.connects(pair.forwards, KEPT, source=FAR)
    pair.ready()
    pair.command("firewall_rules", {"rules": [rule | {"revoked": True}], "type": "firewallrules"})
    doomed.is_cut()
    kept.works()
    cut(pair)
    doomed.is_cut()
    kept.works()
    pair.world.cannot_reach(pair.forwards, PORT, source=FAR)
