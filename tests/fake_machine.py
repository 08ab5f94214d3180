"""A machine in memory that behaves like the real one where it matters: what it forgets, refuses and drops by itself.

Same groups of kinds, in the same order, as `holdfast.machine`.  The store beside it is the real one.
"""

from collections.abc import Iterable, Iterator, Sequence
from contextlib import AbstractContextManager, nullcontext
from pathlib import Path

from holdfast.addresses import inside, network
from holdfast.converge import Driver, Failure
from holdfast.intake import Event
from holdfast.l2tp import Sessions
from holdfast.login import Login
from holdfast.marks import Marks
from holdfast.router import Facts, Nic, Role
from holdfast.state import (
    Address,
    Announcement,
    Change,
    Elements,
    File,
    Flows,
    Handover,
    Key,
    Leases,
    Link,
    PolicyRule,
    Resource,
    Route,
    Ruleset,
    State,
    Sysctl,
    Unit,
)
from holdfast.swanctl import Connection
from holdfast.usage import Usage

GROUPS: tuple[tuple[type[Resource], ...], ...] = (
    (Ruleset, Elements), (Handover,), (Usage,), (Sysctl,), (Link,), (Address,), (Route,), (Announcement,), (Flows,),
    (PolicyRule,), (File,), (Leases,), (Login,), (Unit,), (Connection,), (Sessions,),
)  # fmt: skip
MAIN = 254
CLAIMED_ONLY = (Sysctl, Link, Login, Unit)
"""Kinds of which the machine has more than is ours: without a claim they are not looked at."""


class FakeDriver:
    """One dict of resources.  A group of several kinds is one transaction: all of it or nothing."""

    def __init__(self, machine: "FakeMachine", kinds: tuple[type[Resource], ...]) -> None:
        self.machine = machine
        self.kinds = kinds

    def observe(self, desired: State) -> Iterator[Resource]:
        if self.kinds[0] in (Leases, Sessions):  # nobody asks for one here: none is stale
            yield from (wanted for wanted in desired.values() if isinstance(wanted, self.kinds))
            return
        for key, held in list(self.machine.held.items()):
            if isinstance(held, self.kinds) and (key in desired or not isinstance(held, CLAIMED_ONLY)):
                yield held

    def check(self, changes: Sequence[Change]) -> Iterator[Failure]:
        for change in changes:
            if change.key in self.machine.refuses:
                yield Failure(change.key, self.machine.refuses[change.key])
            if change.after and any(word in str(change.after) for word in self.machine.wrong):
                yield Failure(change.key, "line 1: wrong", content=True)

    def apply(self, changes: Sequence[Change]) -> Iterable[Failure]:
        self.machine.applied += changes
        failures = [Failure(c.key, why) for c in changes if (why := self.machine.objection(c))]
        if failures and len(self.kinds) > 1:
            said = {f.key: f.reason for f in failures}
            return [Failure(c.key, said.get(c.key, failures[0].reason)) for c in changes]
        failed = {failure.key for failure in failures}
        for change in changes:
            if change.key not in failed and change.key not in self.machine.ignores:
                self.machine.take(change)
        return failures


class FakeMachine:
    """A Host.  `fails` and `refuses` give reasons by key (at apply, at check); what `ignores` names does not stick.

    A thing that holds one of the words in `wrong` is wrong in itself.
    """

    def __init__(self, nics: Iterable[Nic], role: Role = Role.ALONE, *, runs_services: bool = True) -> None:
        self.nics = tuple(nics)
        self.role = role
        self.runs_services = runs_services
        self.acknowledged: dict[str, int] = {}
        self.ppp = True
        self.names: dict[str, tuple[str, ...]] = {}
        self.held: dict[Key, Resource] = {}
        self.fails: dict[Key, str] = {}
        self.refuses: dict[Key, str] = {}
        self.ignores: set[Key] = set()
        self.wrong: set[str] = set()
        self.applied: list[Change] = []
        self.complaint = ""
        self.marks = Marks(Path("/nonexistent"))  # a Session that borrows this machine brings its own
        self.drivers: Sequence[Driver] = [FakeDriver(self, kinds) for kinds in GROUPS]

    def facts(self) -> Facts:
        return Facts(self.nics, self.role, self.acknowledged, ppp=self.ppp, names=self.names)

    def agreed(self, wanted: State) -> AbstractContextManager[None]:
        del wanted
        return nullcontext()

    def plug(self, mac: str, name: str) -> None:
        self.nics = (*self.nics, Nic(mac, name))

    def unplug(self, name: str) -> None:
        """The kernel takes everything on a device along with it."""
        self.nics = tuple(nic for nic in self.nics if nic.name != name)
        self.held = {key: held for key, held in self.held.items() if getattr(held, "device", "") != name}

    def reboot(self) -> None:
        """Only files outlive it."""
        self.held = {key: held for key, held in self.held.items() if isinstance(held, File | Login)}

    def objection(self, change: Change) -> str:
        """What the kernel would say to a change; empty if nothing."""
        resource = change.after
        if change.key in self.fails:
            return self.fails[change.key]
        if isinstance(resource, Link | Address | Route) and resource.device and not self._has(resource.device):
            return f'Cannot find device "{resource.device}"'
        if isinstance(resource, Sysctl) and resource.name.startswith("net/ipv4/conf/"):
            device = resource.name.split("/")[3]
            return "" if device in ("all", "default") or self._has(device) else "this kernel has no such parameter"
        if isinstance(resource, Route) and resource.gateway and not self._near(resource):
            return "Nexthop has invalid gateway."
        mine = isinstance(resource, Route) and not resource.gateway and bool(resource.source)  # the connected one
        displaces = isinstance(resource, Route) and not mine and self._connected(resource)
        if isinstance(resource, Route) and (resource.destination == "0.0.0.0/0" or displaces):
            return "it would stand in the place of another route"
        return ""

    def take(self, change: Change) -> None:
        """Carry out one change, and what the kernel does of itself: a route goes with the address that it needs."""
        if change.after is not None:
            self.held[change.key] = change.after
            return
        self.held.pop(change.key, None)
        if isinstance(change.before, Address):
            routes = [held for held in self.held.values() if isinstance(held, Route) and held.gateway]
            for route in routes:
                if not self._near(route):
                    del self.held[route.key]

    def _has(self, device: str) -> bool:
        return any(nic.name == device for nic in self.nics)

    def _near(self, route: Route) -> bool:
        addresses = [held for held in self.held.values() if isinstance(held, Address)]
        here = [network(*_split(held.interface)) for held in addresses if held.device == route.device]
        own = {held.interface.partition("/")[0] for held in addresses}
        return inside(route.gateway, here) and route.gateway not in own

    def _connected(self, route: Route) -> bool:
        """Whether the kernel's own route to a connected network would be replaced: it would, without a word."""
        addresses = [held for held in self.held.values() if isinstance(held, Address)]
        return route.table == MAIN and route.destination in {network(*_split(held.interface)) for held in addresses}


def _split(interface: str) -> tuple[str, int]:
    address, _, length = interface.partition("/")
    return address, int(length)


GUEST = Nic("02:00:1f:00:00:01", "eth0")
CONTROL = Nic("0e:00:a9:1f:00:02", "eth1")
PUBLIC = Nic("1e:00:c6:33:64:14", "eth2")
PUBLIC_2 = Nic("1e:00:cb:00:71:84", "eth3")
NICS = (GUEST, CONTROL, PUBLIC)

BOOT_LINE = Event(
    "cmd_line.json",
    b'{"type":"cmdline","cmd_line":{"template":"domP","name":"r-31-VM","type":"router",'
    b'"eth0ip":"10.31.0.1","eth0mask":"255.255.255.0","eth1ip":"169.254.31.2","eth1mask":"255.255.0.0",'
    b'"eth2ip":"198.51.100.20","eth2mask":"255.255.255.0","gateway":"198.51.100.1","domain":"guests.example",'
    b'"disable_rp_filter":"true","dns1":"192.0.2.53","dns2":"192.0.2.54"}}',
)
"""A plain isolated router: guest 10.31.0.0/24 on eth0, control on eth1, public 198.51.100.20/24 on eth2."""
