"""Whatever happens to a pair in whatever order: it comes to rest with one master, and both know the same."""

import json
import os
import random
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from typing import Any

import pytest
from failover import TWO_S, overlap_and_gap, reigns
from pair import ADVERT_S, FAR, IsolatedPair, Message, isolated_pair
from slack import SLACK, SOAK
from streams import Streams

from holdfast.lab.router import Router

pytestmark = [pytest.mark.lab, pytest.mark.alone, pytest.mark.pair]

EVENTS = 500 if SOAK else 40
SEED = int(os.environ.get("HOLDFAST_SEED") or random.SystemRandom().randrange(1_000_000))
RESTS_S = 15.0
AGREES_S = 5.0
OUT, INWARD = 20, 20
RETRANSMISSION_S = 10.0
DECK = {
    "command": 11, "command at once": 5, "command without a cable": 2, "word": 4, "cable": 5, "kill keepalived": 2,
    "kill conntrackd": 3, "kill agent": 3, "stun": 2, "reboot": 1, "power cut": 2,
}  # fmt: skip
"""How many of forty events are of a kind."""
UNTOLD = frozenset({"stun", "kill keepalived"})
"""After these a journal says too late, or never, when one served no more."""
_OWN = ("cmdline.json", "command.json", "meta.json")
PUBLIC = "203.0.113.74"


@pytest.fixture
def pair() -> Iterator[IsolatedPair]:
    with isolated_pair("events") as pair:
        yield pair


class Happenings:
    """Things that happen, in the order of a seed.  `told` is what has happened."""

    def __init__(self, pair: IsolatedPair, seed: int) -> None:
        self.pair = pair
        self.random = random.Random(seed)  # noqa: S311 to be repeated
        self.told: list[str] = []
        self.vms: set[int] = set()
        self.opened: set[int] = set()
        self.forwarded: set[int] = set()
        self.associated = False

    def deck(self, count: int) -> Iterator[str]:
        """Kinds, each as often as the deck says, in any order."""
        while count > 0:
            kinds = [kind for kind, often in DECK.items() for _ in range(often)]
            self.random.shuffle(kinds)
            yield from kinds[:count]
            count -= len(kinds)

    def happen(self, kind: str) -> None:
        """Let one thing happen."""
        router = self.random.choice(self.pair.routers)
        master = self.pair.holds(router, self.pair.gateway)
        self.told.append(f"{kind} ({router.name}, {'master' if master else 'backup'})")
        acts: dict[str, Callable[[Router], object]] = {
            "command": partial(self._command, at_once=False),
            "command at once": partial(self._command, at_once=True),
            "command without a cable": self._amid,
            "word": self._word,
            "cable": self._cable,
            "kill keepalived": partial(self._kill, "keepalived.service"),
            "kill conntrackd": partial(self._kill, "conntrackd.service"),
            "kill agent": partial(self._kill, "holdfast-agent.service"),
            "stun": self._stun,
            "reboot": Router.reboot,
            "power cut": self._cut,
        }
        acts[kind](router)

    def _more(self, text: str) -> None:
        self.told[-1] += f": {text}"

    def _command(self, _router: Router, *, at_once: bool) -> None:
        name, message = self._message()
        self.pair.command(name, message, at_once=at_once)
        for router in self.pair.routers:
            planned = self.pair.planned(router)
            assert planned == "nothing to do\n", f"{router.name} said that it had done {message}: {planned}"

    def _amid(self, router: Router) -> None:
        """What is answered while a cable is out is true as well; the server sends what failed again."""
        nic = self._nic(router)
        router.carrier(nic, up=False)
        name, message = self._message()
        try:
            self.pair.command(name, message)
        finally:
            router.carrier(nic, up=True)

    def _message(self) -> tuple[str, Message]:
        number = self.random.randrange(20, 40)
        kind = self.random.choice(("vm", "opened", "forwarded", "associated"))
        self._more(f"{kind} {number}")
        if kind == "vm":
            return self._vm(number)
        if kind == "associated":
            return self._address()
        ours = getattr(self, kind)
        gone = number in ours
        (ours.remove if gone else ours.add)(number)
        if kind == "opened":
            rule = self.pair.opened(100 + number, "tcp", 6000 + number) | {"revoked": gone}
            return "firewall_rules", {"rules": [rule], "type": "firewallrules"}
        rule = self.pair.forward("tcp", 6000 + number) | {"revoke": gone}
        return "forwarding_rules", {"rules": [rule], "type": "forwardrules"}

    def _vm(self, number: int) -> tuple[str, Message]:
        gone = number in self.vms
        (self.vms.remove if gone else self.vms.add)(number)
        return "vm_dhcp_entry", {
            "host_name": f"vm{number}", "mac_address": f"02:1a:70:00:02:{number:02x}",
            "ipv4_address": f"10.70.1.{number}", "ipv6_duid": "", "default_gateway": self.pair.gateway,
            "default_entry": True, "remove": gone, "type": "dhcpentry",
        }  # fmt: skip

    def _address(self) -> tuple[str, Message]:
        self.associated = not self.associated
        item = self.pair.association(PUBLIC, first=False) | {"add": self.associated, "nic_dev_id": 2}
        return "ip_associations", {"ip_address": [item], "type": "ips"}

    def _word(self, router: Router) -> None:
        """What is seen to be wrong mends itself; FAULT looks like BACKUP, so there keepalived says it anew."""
        word = self.random.choice(("--master", "--backup", "--fault"))
        self._more(word)
        said = router.run("master.py", word)
        assert said.code == 0, said.errors
        time.sleep(self.random.uniform(0, 0.5))
        if word == "--fault" and not self.pair.holds(router, self.pair.gateway):
            assert router.shell(["systemctl", "restart", "keepalived.service"]).code == 0

    def _nic(self, router: Router) -> str:
        nic = self.random.choice(sorted(router.ports))
        self._more(nic)
        return nic

    def _cable(self, router: Router) -> None:
        nic, seconds = self._nic(router), self.random.choice((0.1, 0.5, 2.0, 4.0))
        self._more(f"{seconds} s")
        router.carrier(nic, up=False)
        time.sleep(seconds)
        router.carrier(nic, up=True)

    def _kill(self, unit: str, router: Router) -> None:
        done = router.shell(["systemctl", "kill", "--signal=KILL", "--kill-whom=main", unit])
        assert done.code == 0, done.errors
        router.eventually(lambda: router.active(unit), f"has {unit} again", RESTS_S)

    def _stun(self, router: Router) -> None:
        seconds = self.random.choice((0.5, 1.0, 4.5))
        self._more(f"{seconds} s")
        router.stun()
        time.sleep(seconds)
        router.wake()

    def _cut(self, router: Router) -> None:
        router.power_cut()
        time.sleep(self.random.choice((0, 2 * ADVERT_S)))
        self.pair.boot(router)


def documents(router: Router) -> dict[str, Any]:
    """What a router was told, but for its own boot line."""
    current = router.container.root / "etc/cloudstack/current"
    return {
        path.name: json.loads(path.read_bytes())
        for path in sorted(current.iterdir())
        if path.suffix == ".json" and path.name not in _OWN
    }


def _knows(pair: IsolatedPair, router: Router, connections: set[int]) -> bool:
    return connections <= pair.connections(router)


def rests(pair: IsolatedPair, connections: set[int]) -> None:
    """One serves, nothing is left to do, both know the same configuration and the same connections, both say so."""
    pair.settles(RESTS_S)
    with ThreadPoolExecutor(2) as both:
        list(both.map(pair.idle, pair.routers))
    first, second = map(documents, pair.routers)
    assert first == second
    for router in pair.routers:
        router.eventually(partial(_knows, pair, router, connections), "knows every connection", AGREES_S)
    assert sorted(map(pair.says, pair.routers)) == ["BACKUP", "PRIMARY"]


def two_served_s(pair: IsolatedPair, since: float) -> float:
    """For how long both were master since then, by the journals of their present boots."""
    now = time.time()
    return overlap_and_gap([reigns(pair.entered(router), now) for router in pair.routers], since, now)[0]


def test_after_anything_that_happens_one_serves_and_both_know_the_same(
    pair: IsolatedPair, tell: Callable[[str], None]
) -> None:
    tell(f"HOLDFAST_SEED={SEED}, {EVENTS} events")
    happenings = Happenings(pair, SEED)
    began = time.monotonic()
    slowest, both = (0.0, ""), 0.0
    try:
        with (
            Streams(pair.web1, pair.world, FAR, 7000, OUT) as out,
            Streams(pair.world, pair.web1, pair.forwards, 5003, INWARD) as inward,
        ):
            connections = out.ports() | inward.ports()
            rests(pair, connections)
            for kind in happenings.deck(EVENTS):
                since = time.time()
                happenings.happen(kind)
                happened = time.monotonic()
                rests(pair, connections)
                both = max(both, 0.0 if kind in UNTOLD else two_served_s(pair, since))
                slowest = max(slowest, (time.monotonic() - happened, happenings.told[-1]))
            lived = out.alive(RETRANSMISSION_S) + inward.alive(RETRANSMISSION_S)
        tell(
            f"{time.monotonic() - began:.0f} s, longest way to rest {slowest[0]:.1f} s after {slowest[1]},"
            f" two masters for {both * 1000:.0f} ms at most"
        )
        assert both <= SLACK * TWO_S
        assert lived == OUT + INWARD
        pair.web1.gets_lease()
        pair.world.serve(6100)
        pair.web1.reaches(FAR, 6100)
    except BaseException:
        tell("\n  ".join((f"HOLDFAST_SEED={SEED}; what happened:", *happenings.told)))
        raise
