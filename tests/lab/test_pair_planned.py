"""A pair whose roles are changed on purpose, which strangers speak to, and which is told different things."""

import time
from collections.abc import Callable, Iterator

import pytest
from adverts import advert, send, sync
from failover import (
    FLOWS,
    PLANNED_S,
    flows,
    lost,
    repeated,
    taken_over,
    truth,
    watch,
)
from pair import ADVERT_S, IsolatedPair, isolated_pair

from holdfast.lab.host import Host
from holdfast.lab.router import Router
from holdfast.verdict import DIVERGED_S

pytestmark = [pytest.mark.lab, pytest.mark.alone, pytest.mark.pair]

HOLDFAST = "/usr/sbin/holdfast"
STRANGER = ("10.70.1.99", "02:1a:70:00:00:99")
TOLD_S = 6.0
"""A difference counts when it has lasted for longer than the other router's command takes."""


@pytest.fixture(scope="module")
def made() -> Iterator[IsolatedPair]:
    with isolated_pair("planned") as made:
        yield made


@pytest.fixture
def pair(made: IsolatedPair) -> IsolatedPair:
    """Both on, one serves, nothing left to do: whatever the test before has done to them."""
    made.ready()
    return made


def planned(pair: IsolatedPair, tell: Callable[[str], None], case: str, act: Callable[[Router], None]) -> None:
    """Change roles on purpose, and hold the outage to its bound; each connection lives on."""

    def once() -> float:
        def change() -> None:
            master, backup = pair.master, pair.backup
            act(master)
            taken_over(pair, backup)

        seen = watch(pair, change)
        tell(str(seen))
        assert seen.lived == FLOWS, str(seen)
        truth(pair, pair.master)
        return seen.outage_s

    repeated(tell, case, PLANNED_S, once)


def test_a_handover_by_an_operator(pair: IsolatedPair, tell: Callable[[str], None]) -> None:
    def hand_over(master: Router) -> None:
        done = master.shell([HOLDFAST, "handover"])
        assert (done.code, done.text) == (0, "the other router serves\n"), done.text + done.errors

    planned(pair, tell, "holdfast handover", hand_over)


def test_a_reboot_of_the_one_that_serves(pair: IsolatedPair, tell: Callable[[str], None]) -> None:
    def reboot(master: Router) -> None:
        master.reboot()

    planned(pair, tell, "planned reboot", reboot)


def test_a_stranger_elects_nobody(pair: IsolatedPair, tell: Callable[[str], None]) -> None:
    """What it says is dropped, from whatever address, and by whatever nic; the same from the peer's would be heeded."""
    master, backup = pair.master, pair.backup
    conf, peer = master.read("/etc/keepalived/keepalived.conf"), pair.routers.index(backup)
    known = (pair.address(peer), pair.mac(backup))
    stranger = Host(pair.lab._place, "stranger")  # noqa: SLF001 a host that nobody knows
    pair.lab.hosts["stranger"] = stranger
    stranger.plug(pair.guests, STRANGER[1])
    before, malformed = pair.elections(), {router.name: _malformed(router) for router in pair.routers}
    with_lies = [(STRANGER[0], STRANGER[1]), (known[0], STRANGER[1]), (STRANGER[0], known[1])]

    def speak() -> None:
        for _ in range(20):
            for source, mac in with_lies:
                send(stranger, [advert(conf, source, mac), sync(source, mac)])
            send(pair.world, [advert(conf, *known), sync(*known)])
            time.sleep(0.1)

    counts = pair.lab.measure(flows(pair), speak)

    assert lost(counts) == [0] * len(counts)
    assert pair.elections() == before
    assert {router.name: _malformed(router) for router in pair.routers} == malformed
    truth(pair, master)

    send(stranger, [sync(*known)])
    master.eventually(lambda: _malformed(master) > malformed[master.name], "hears what comes as from its peer")
    send(stranger, [advert(conf, *known)])
    master.eventually(lambda: pair.elections() > before, "yields to what comes as from its peer")
    tell("20 times three adverts and datagrams of strangers: nobody was elected")


def _malformed(router: Router) -> int:
    """How many datagrams conntrackd could make nothing of."""
    text = router.shell(["conntrackd", "-s", "network"]).text
    return sum(int(word) for line in text.splitlines() if "alformed" in line for word in line.split() if word.isdigit())


@pytest.mark.appliance
def test_two_that_were_told_different_things_say_which(pair: IsolatedPair, tell: Callable[[str], None]) -> None:
    rule = {"rules": [pair.opened(9, "tcp", 4433)], "type": "firewallrules"}
    began = time.monotonic()
    pair.command_one(0, "firewall_rules", rule)

    named = ("differs from the peer: firewallrules (9 only here)", "differs from the peer: firewallrules (1 only at")
    for router, text in zip(pair.routers, named, strict=True):
        router.eventually(
            lambda router=router, text=text: text in _status(router),  # type: ignore[misc]
            "names the rule that differs",
            3 * TOLD_S,
        )
    tell(f"named after {time.monotonic() - began:.1f} s")
    for router, text in zip(pair.routers, named, strict=True):
        router.eventually(
            lambda router=router, text=text: text in _alerts(router),  # type: ignore[misc]
            "tells its management server",
            DIVERGED_S + 3 * TOLD_S,
        )
        assert text in router.journal(200)

    pair.command_one(1, "firewall_rules", rule)
    for router in pair.routers:
        router.eventually(
            lambda router=router: "differs from the peer" not in _status(router),  # type: ignore[misc]
            "is told the same",
            3 * ADVERT_S,
        )
        assert "no longer differs from the peer: firewallrules" in router.journal(200)
    pair.command(
        "firewall_rules", {"rules": [pair.opened(9, "tcp", 4433) | {"revoked": True}], "type": "firewallrules"}
    )


def _alerts(router: Router) -> str:
    return router.shell(["cat", "/var/log/routerServiceMonitor.log"]).text


def _status(router: Router) -> str:
    return router.shell([HOLDFAST, "status"]).text
