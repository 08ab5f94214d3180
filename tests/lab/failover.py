"""What a pair's guests notice of a happening: packets by the millisecond, a thousand connections, announcements."""

import contextlib
import itertools
import json
import os
import socket
import statistics
import struct
import threading
import time
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from typing import NamedTuple, Self, TypeVar

from pair import ADVERT_S, FAR, Entry, IsolatedPair, Pair
from slack import SLACK, SOAK
from streams import Busy, Streams

from holdfast.lab.host import Host
from holdfast.lab.probe import RATE_HZ, Count, Flow
from holdfast.lab.router import Router
from holdfast.lab.sentence import LabError
from holdfast.machine import enter_network

RUNS = int(os.environ.get("HOLDFAST_RUNS") or (20 if SOAK else 1))
DETECTION_S = 3.5 * ADVERT_S
FAST_DETECTION_S = 0.5  # with adverts of a tenth of a second
PLANNED_S = 0.1
UNPLANNED_S = DETECTION_S + 0.1
HEALED_S = 3.0 * ADVERT_S
Value = TypeVar("Value")
TWO_S = ADVERT_S + 0.1
"""For how long two may be master where they hear each other."""
IDLE, FORWARDED, BUSY, BUSY_INWARD = 600, 300, 60, 40
FLOWS = IDLE + FORWARDED + BUSY + BUSY_INWARD
RETRANSMISSION_S = 10.0
_ARP, _SENDER, _READY_S = 0x0806, 22, 5.0
AFTER_S = 0.5
"""How long packets are counted after the other one serves."""


def flows(pair: IsolatedPair) -> list[Flow]:
    """Out by source NAT, an open flow and new ones, and in by a port forward."""
    return [
        Flow(pair.web1, pair.world, 6000, address=FAR),
        Flow(pair.web1, pair.world, 6001, "new", FAR),
        Flow(pair.world, pair.web1, 5002, address=pair.forwards, source_address=FAR),
    ]


Span = tuple[float, float]
"""From, to, by the machine's clock."""


class Seen(NamedTuple):
    """What a happening did: packets by flow, how many connections still live, the longest stall of the busy ones.

    `outage_s`: most packets lost in a row, by the rate at which they were sent.
    """

    counts: list[Count]
    outage_s: float
    lived: int
    stall_s: float

    def __str__(self) -> str:
        silence = max(count.silence_s for count in self.counts)
        return (
            f"outage {self.outage_s * 1000:.0f} ms, lost {lost(self.counts)}, silence {silence * 1000:.0f} ms, longest"
            f" stall of TCP {self.stall_s:.2f} s, {self.lived} of {FLOWS} connections lived"
        )


def lost(counts: Sequence[Count]) -> list[int]:
    """Packets that never came, by flow."""
    return [count.lost for count in counts]


def outage_s(counts: Sequence[Count]) -> float:
    """Most packets lost in a row, as a time."""
    return max(count.longest_gap for count in counts) / RATE_HZ


def watch(pair: IsolatedPair, happening: Callable[[], object]) -> Seen:
    """Let something happen while packets are counted and a thousand connections are open."""
    return counted(lambda: _seen(pair, happening))


def _seen(pair: IsolatedPair, happening: Callable[[], object]) -> Seen | None:
    pair.ready()
    with ExitStack() as opened:
        idle = opened.enter_context(Streams(pair.web1, pair.world, FAR, 7000, IDLE))
        forwarded = opened.enter_context(Streams(pair.world, pair.web1, pair.forwards, 5003, FORWARDED))
        out = opened.enter_context(Streams(pair.web1, pair.world, FAR, 7001, BUSY))
        inward = opened.enter_context(Streams(pair.world, pair.web1, pair.forwards, 5004, BUSY_INWARD))
        pair.told_of(idle, forwarded, out, inward)
        with Busy(out, inward) as busy, pair.lab.probe(flows(pair)) as probe:
            time.sleep(0.3)
            happening()
        lived = idle.alive(RETRANSMISSION_S) + forwarded.alive(RETRANSMISSION_S)
    if probe.void:
        return None
    alive = lived + BUSY + BUSY_INWARD - busy.broken
    return Seen(probe.counts, outage_s(probe.counts), alive, max(busy.stalls_s))


def counted(once: Callable[[], Value | None]) -> Value:
    """What a run found whose packets count; a void one, which finds None, is repeated at most twice.  LabError."""
    for _ in range(3):
        if (found := once()) is not None:
            return found
    raise LabError("the control flow lost packets in three runs: this machine is too busy to measure")


def repeated(tell: Callable[[str], None], case: str, bound_s: float, once: Callable[[], float]) -> None:
    """Measure a time, in a soak twenty times: each is within the bound, elsewhere within three times the bound."""
    measured(tell, case, bound_s, [once() for _ in range(RUNS)])


def measured(tell: Callable[[str], None], case: str, bound_s: float, values: Sequence[float]) -> None:
    """Tell the times of all runs and hold them to the bound, see `repeated`."""
    summed(tell, case, values, bound_s)
    assert max(values) <= SLACK * bound_s, case


def summed(tell: Callable[[str], None], case: str, values: Sequence[float], bound_s: float | None = None) -> None:
    """Tell least, median and most of the times of all runs, and their bound where one is promised."""
    times = {"min": min(values), "median": statistics.median(values), "max": max(values)}
    rounded = {name: round(value, 3) for name, value in times.items()}
    tell(json.dumps({"case": case, "bound": bound_s, "runs": len(values), **rounded}))


def taken_over(pair: Pair, router: Router, timeout_s: float = 3 * DETECTION_S) -> None:
    """Wait until a router serves, and a little longer."""
    router.eventually(lambda: pair.holds(router, pair.gateway) and pair.outside(router), "serves", timeout_s)
    time.sleep(AFTER_S)


def serves_guests(pair: IsolatedPair, router: Router) -> None:
    """The gateway answers, and who gives leases, names and metadata is this router."""
    lease = pair.web1.gets_lease()
    assert (lease.address, lease.router) == (pair.web, pair.gateway)
    assert lease.server == pair.address(pair.routers.index(router)), lease
    pair.web1.pings(pair.gateway)
    pair.app1.pings(pair.gateway)
    assert pair.web1.resolves("app1") == (pair.app,)
    assert pair.app1.can_fetch(pair.gateway, path="/latest/meta-data/instance-id").text.strip() == "i-app1"


def truth(pair: Pair, master: Router) -> None:
    """Both tell the management server what is so."""
    assert pair.serving() == [master]
    for router in pair.routers:
        if router.running:
            assert (router.name, pair.says(router)) == (router.name, "PRIMARY" if router is master else "BACKUP")
            assert pair.outside(router) == (router is master)
            assert router.active("dnsmasq.service") == (router is master)
            assert router.active("keepalived.service")
            assert router.active("conntrackd.service")


def reigns(entries: Sequence[Entry], until: float) -> list[Span]:
    """When a router was master: from, to."""
    ends = [*(entry.at for entry in entries), until][1:]  # one that has booted holding back has entered nothing yet
    return [(entry.at, end) for entry, end in zip(entries, ends, strict=True) if entry.word == "MASTER"]


def overlap_and_gap(reigned: Sequence[Sequence[Span]], since: float, until: float) -> tuple[float, float]:
    """Seconds of a span in which two were master at a time, and the longest stretch in which nobody was."""
    edges = sorted({since, until, *(at for one in reigned for span in one for at in span if since < at < until)})
    both, gap, longest = 0.0, 0.0, 0.0
    for start, end in itertools.pairwise(edges):
        masters = sum(any(first <= start < last for first, last in one) for one in reigned)
        both += (end - start) * (masters > 1)
        gap = gap + end - start if masters == 0 else 0.0
        longest = max(longest, gap)
    return both, longest


class Announced(NamedTuple):
    """An address of which somebody told without being asked, when, by the machine's clock, and from which MAC."""

    at: float
    address: str
    mac: str


class Ears:
    """Takes down every announcement that arrives at a host's nic meanwhile."""

    def __init__(self, host: Host, nic: str) -> None:
        self.heard: list[Announced] = []
        self._host, self._nic = host, nic
        self._ready = threading.Event()
        self._over = threading.Event()
        self._thread = threading.Thread(target=self._listen)

    def __enter__(self) -> Self:
        self._thread.start()
        assert self._ready.wait(_READY_S)
        return self

    def __exit__(self, *_: object) -> None:
        self._over.set()
        self._thread.join()

    def of(self, address: str, since: float = 0.0) -> list[Announced]:
        """Those of one address, from a time on."""
        return [one for one in self.heard if one.address == address and one.at >= since]

    def _listen(self) -> None:
        enter_network(self._host.namespace)
        with socket.socket(socket.AF_PACKET, socket.SOCK_RAW, socket.htons(_ARP)) as wire:
            wire.bind((self._nic, _ARP))
            wire.settimeout(0.1)
            self._ready.set()
            while not self._over.is_set():
                with contextlib.suppress(TimeoutError):
                    sender, source, target = struct.unpack_from("!6s4s6x4s", wire.recv(64), _SENDER)
                    if source == target:
                        self.heard.append(Announced(time.time(), socket.inet_ntoa(source), sender.hex(":")))
