"""A lab: its segments, hosts and routers, made on one machine and removed from it to the last trace."""

import atexit
import contextlib
import re
import secrets
from collections.abc import Callable, Sequence
from types import TracebackType
from typing import Self, TypeVar

from holdfast.lab import image, ledger, requirements
from holdfast.lab.guest import Guest
from holdfast.lab.host import Host, Place
from holdfast.lab.network import Segment, Switch
from holdfast.lab.probe import RATE_HZ, Count, Flow, Probe
from holdfast.lab.router import Router
from holdfast.lab.sentence import LabError, NotSo
from holdfast.lab.swarm import Swarm
from holdfast.lab.world import Management, World

_NAME = re.compile(r"[a-z][a-z0-9]{0,15}")
_JOURNAL_LINES = 20
_REPEATS = 2
Named = TypeVar("Named", Host, Guest, World, Management, Swarm, Router)


class Lab:
    """One lab.  Removed by `close`, by leaving its `with`, or when this process ends; `stay`: by `down` alone."""

    def __init__(self, name: str = "lab", *, stay: bool = False) -> None:
        requirements.require()
        if not _NAME.fullmatch(name):
            raise LabError(f"a lab's name is a lower-case word of at most 16 letters, not {name!r}")
        # What will not go now keeps its records and is tried again by the next lab; it is in nobody's way.
        with contextlib.suppress(LabError):
            ledger.sweep()
        image.base()  # built before anything needs removing
        self.name = name
        self.prefix = f"hf-{name}" if stay else f"hf-{name}-{secrets.token_hex(2)}"
        self.ledger = ledger.Ledger.open(name if stay else self.prefix, stay=stay)
        self.hosts: dict[str, Host] = {}
        self.routers: dict[str, Router] = {}
        atexit.register(self.close)
        self._stays = stay
        try:
            switch = Switch(self.ledger, f"{self.prefix}-switch")
            self._place = Place(self.ledger, switch, self.prefix, stay, self._background)
        except BaseException:
            self.remove()
            raise

    def segment(self, name: str) -> Segment:
        """Return a segment, made if it is new."""
        return self._place.switch.segment(name)

    def world(self, segment: Segment, gateway: str, inside: Sequence[str] | str, name: str = "world") -> World:
        """Return a world that is `gateway` (as `203.0.113.1/24`) on a public segment and holds the inside addresses."""
        addresses = [inside] if isinstance(inside, str) else inside
        world = self._add(name, lambda: World(self._place, name, addresses))
        world.attach(segment, gateway)
        return world

    def mgmt(self, segment: Segment, interface: str = "169.254.0.1/16", name: str = "mgmt") -> Management:
        """Return the management side, with an address on the control segment."""
        return self._add(name, lambda: Management(self._place, name, segment, interface))

    def guest(self, name: str, segment: Segment, mac: str) -> Guest:
        """Return a guest with one nic, up; it has no address until it gets a lease or is given one."""
        return self._add(name, lambda: Guest(self._place, name, segment, mac))

    def swarm(self, segment: Segment, macs: Sequence[str]) -> Swarm:
        """Return machines that are off, one for each MAC, on a segment; `boots` switches them on."""
        return self._add(f"swarm-{segment.name}", lambda: Swarm(self._place, f"swarm-{segment.name}", segment, macs))

    def router(self, name: str, nics: Sequence[tuple[Segment, str]]) -> Router:
        """Return a router that is off, with nics eth0, eth1, … of these segments and MACs."""
        self._free(name)
        self.routers[name] = Router(self._place, name, nics)
        return self.routers[name]

    def bystander(self, segment: Segment) -> Host:
        """Return the host beside a segment to which control flows go."""
        name = f"bystander-{segment.bridge}"
        if name not in self.hosts:
            host = self._add(name, lambda: Host(self._place, name))
            number = len(self.hosts)
            host.plug(segment, f"02:fc:00:00:00:{number:02x}")
        return self.hosts[name]

    def cable(self, host: Host, nic: str, *, up: bool) -> None:
        """Pull a host's cable out, or put it back in."""
        self._place.switch.carry([host.ports[nic]], up=up)

    def partition(self, segment: Segment, away: Sequence[Host | Router]) -> None:
        """Cut a segment in two, with these on the far side of the cut; nobody loses the carrier.  `heal` ends it."""
        ports = [port for one in away for port in one.ports.values() if port.segment == segment]
        self._place.switch.partition(segment, ports)

    def heal(self, segment: Segment) -> None:
        """Make a segment whole again."""
        self._place.switch.heal(segment)

    def _free(self, name: str) -> None:
        if name in self.hosts or name in self.routers:
            raise LabError(f"there is a {name} already")

    def _add(self, name: str, make: Callable[[], Named]) -> Named:
        self._free(name)
        made = make()
        if isinstance(made, Host):
            self.hosts[name] = made
        return made

    def probe(self, flows: Sequence[Flow], rate_hz: float = RATE_HZ) -> Probe:
        """Return a probe that is not started yet: use it in a `with`."""
        return Probe(self, flows, rate_hz)

    def measure(self, flows: Sequence[Flow], action: Callable[[], object], rate_hz: float = RATE_HZ) -> list[Count]:
        """Run an action while flows go, and return what came of each.

        A void run is repeated, action and all, at most twice; LabError if none counted.
        """
        for _ in range(1 + _REPEATS):
            with self.probe(flows, rate_hz) as probe:
                action()
            if not probe.void:
                return probe.counts
        raise LabError(f"the control flow lost packets in {1 + _REPEATS} runs: this machine is too busy to measure")

    def _background(self) -> str:
        """What else a reader of a failed sentence wants to know."""
        told = []
        for router in self.routers.values():
            state = "" if router.running else " (it is off)"
            try:
                journal = router.journal(_JOURNAL_LINES).rstrip()
            except LabError as error:
                journal = str(error)
            told.append(f"\nlast {_JOURNAL_LINES} lines of {router.name}'s journal{state}:\n{journal}")
        return "".join(told)

    def close(self) -> None:
        """Remove the lab, unless it was made to stay."""
        if not self._stays:
            self.remove()

    def remove(self) -> None:
        """Remove the lab and everything that it made."""
        atexit.unregister(self.close)
        if self.ledger.directory.exists():
            self.ledger.remove()
        for host in self.hosts.values():
            host.reap()
        for router in self.routers.values():
            router.container.reap()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()


__all__ = ["Count", "Flow", "Lab", "LabError", "NotSo", "Probe"]
