"""What an act of the demo is, and the claims that every act makes."""

import re
from collections.abc import Callable, Iterable, Mapping
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path
from typing import NamedTuple

from holdfast.lab.host import Connection, Host, Reply
from holdfast.lab.sentence import NotSo
from holdfast.lab.story import Stage, holdfast

EXAMPLES = Path(__file__).parents[3] / "examples"
OFFICE, ELSEWHERE = "192.0.2.10", "192.0.2.200"
SSH = 3922


class Sentence(NamedTuple):
    """A claim and what proves it: NotSo if it is false."""

    text: str
    proves: Callable[[Stage], None]


class Act(NamedTuple):
    """A story in `examples/`, and what is claimed of its router.

    `first` is the public address and UDP port that the world asks after power-on, `refused` an address and TCP port
    that lead to a guest while there is power.  `connects` opens what lives while something is revoked; a step's `cuts`
    names one of them, and `opened` says what they are.  `again` says that the last step changes nothing.
    """

    name: str
    title: str
    cast: str
    sentences: tuple[Sentence, ...]
    prepare: Callable[[Stage], None]
    connects: Callable[[Stage], Mapping[str, Connection]]
    opened: str
    again: str
    first: tuple[str, int]
    refused: tuple[str, int]

    @property
    def directory(self) -> Path:
        """Where its story lies."""
        return EXAMPLES / self.name


def listen(stage: Stage, services: Mapping[str, Iterable[tuple[str, int]]]) -> None:
    """Let everybody answer who is asked later, and make the world one that drops what comes by the wrong nic."""
    hosts: dict[str, Host] = {**stage.guests, "world": stage.world, **stage.beside}
    for name, ports in services.items():
        for proto, port in ports:
            hosts[name].serve(port, proto)
    for nic in stage.world.ports:
        # A neighbour that does not answer yet is asked again soon, or the wait for ARP would be measured.
        # Its ARP asks with the nic's own address, as a gateway's does that forwards for hosts behind it.
        settings = [f"net.ipv4.conf.{nic}.rp_filter=1", f"net.ipv4.conf.{nic}.arp_announce=2"]
        settings.append(f"net.ipv4.neigh.{nic}.retrans_time_ms=50")
        done = stage.world.run(["sysctl", "-q", "-w", *settings])
        if done.code:
            raise NotSo(done.errors)


def said(reply: Reply, name: str, seen: str) -> None:
    """NotSo unless this host answered and saw the question come from this address."""
    if (reply.name, reply.address) != (name, seen):
        raise NotSo(f"{reply.name} answered and saw {reply.address}, where {name} was to see {seen}")


def all_refused(*questions: Callable[[], None]) -> None:
    """Ask at once what is refused, since each takes its time to hear nothing; NotSo if one of them is not."""
    with ThreadPoolExecutor(len(questions)) as pool:
        for asked in [pool.submit(question) for question in questions]:
            asked.result()


def leases(stage: Stage, wanted: Mapping[str, tuple[str, str]], domain: str) -> None:
    """NotSo unless each guest gets by DHCP its address and gateway, which is its first DNS server, and the domain."""
    for name, (address, gateway) in wanted.items():
        lease = stage.guests[name].gets_lease()
        got = (lease.address, lease.router, lease.dns[:1], lease.domain)
        if got != (address, gateway, (gateway,), domain):
            raise NotSo(f"{name}'s lease says {got}")


def resolved(guest: Host, asked: str, wanted: str, kind: str = "A") -> None:
    """NotSo unless this is among what a guest gets for a name, or for an address (`PTR`)."""
    found = guest.resolves(asked, kind=kind)
    if wanted not in [name.rstrip(".") for name in found]:
        raise NotSo(f"{guest.name} asked for {asked} and got {', '.join(found)}, not {wanted}")


def management(control: str, closed: Iterable[tuple[str, str]]) -> Sentence:
    """Claim that ssh answers on the control address alone; `closed` are hosts by name and addresses they may ask at."""

    def check(stage: Stage) -> None:
        answer = stage.mgmt.reaches(control, SSH).text
        if not answer.startswith("SSH-2.0-"):
            raise NotSo(f"{control}:{SSH} says {answer!r}")
        hosts: dict[str, Host] = {**stage.guests, "world": stage.world}
        all_refused(*(partial(hosts[name].cannot_reach, address, SSH) for name, address in closed))

    return Sentence(f"management reaches ssh at {control}:{SSH}; guests and the Internet do not", check)


def _agrees(stage: Stage) -> None:
    plan = holdfast(stage.router, "plan")
    differs = [line for line in plan.text.splitlines() if not line.startswith("pending: ")]
    if plan.code or differs != ["nothing to do"]:
        raise NotSo("; ".join(["holdfast plan:", *(differs or [plan.errors.strip()])]))


AGREES = Sentence("holdfast plan: the machine is as its documents say", _agrees)


def generation(stage: Stage) -> int:
    """The generation that is in force; NotSo if the router does not say."""
    found = re.search(r'"generation":(\d+)', holdfast(stage.router, "status", "--json").text)
    if found is None:
        raise NotSo("holdfast status names no generation")
    return int(found[1])
