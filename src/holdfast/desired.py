"""From bags to the desired machine: claims put together, conflicts named.  Pure."""

from collections.abc import Iterable, Mapping, Sequence
from hashlib import sha256

from msgspec import Struct
from msgspec.structs import replace

from holdfast import program
from holdfast.config import Config
from holdfast.feature import Claim, Pending, Service
from holdfast.features import FEATURES
from holdfast.nft import Element, Rule
from holdfast.router import Facts, Router
from holdfast.state import Elements, File, Key, Resource, Unit

STOPPED = "its start: it was stopped by command"
"""What a service waits for that somebody has stopped."""


class Desired(Struct, frozen=True):
    """The machine as it should be.  `origins`: who brought a resource; `elements`: who brought an entry of a set."""

    state: dict[Key, Resource]
    origins: dict[Key, str]
    elements: dict[tuple[str, str], str]
    pending: tuple[Claim, ...] = ()
    conflicts: tuple[str, ...] = ()


def desired(config: Config, facts: Facts, *, units: bool = True) -> Desired:
    """What these bags mean on this machine.  `units=False`: nothing here can run services, they stay pending."""
    router = Router(config, facts)
    if not router.boot.type:
        # Nobody has said yet what this machine is.  Its firewall is left alone: closed if it has just started, and not
        # closed by us where that could lock everybody out for good.
        return Desired({}, {}, {}, (Claim("cmdline", Pending("everything", "the boot line")),))
    claims = (claim for feature in FEATURES for claim in feature.contribute(config.get(feature.name), router))
    return gather(claims, units=units, stopped=facts.stopped)


def gather(claims: Iterable[Claim], *, units: bool = True, stopped: frozenset[str] = frozenset()) -> Desired:
    """Put the claims together.  Of two that contradict, the first stays and the conflict is named.

    `stopped`: units that somebody wants stopped for a while, whoever claims them.
    """
    found = _Gathering()
    for claim in claims:
        found.take(claim)
    for resource in program.assemble(found.rules, found.sets):
        found.resource("firewall", resource)
    for unit in _units(found.services, [r for r in found.state.values() if isinstance(r, File)]):
        if unit.running and unit.name in stopped:
            found.pending.append(Claim(found.services[unit.name][0], Pending(f"service {unit.name}", STOPPED)))
            unit = replace(unit, running=False)  # noqa: PLW2901 from here on it is the one that is wanted
        if units:
            found.resource(found.services[unit.name][0], unit)
        elif unit.running:
            found.pending.append(Claim(found.services[unit.name][0], Pending(f"service {unit.name}", "systemd")))
    return Desired(found.state, found.origins, found.elements, tuple(found.pending), tuple(found.conflicts))


class _Gathering:
    """What has been claimed so far."""

    def __init__(self) -> None:
        self.state: dict[Key, Resource] = {}
        self.origins: dict[Key, str] = {}
        self.elements: dict[tuple[str, str], str] = {}
        self.sets: dict[str, dict[str, str]] = {}
        self.rules: list[Rule] = []
        self.services: dict[str, tuple[str, bool]] = {}
        self.pending: list[Claim] = []
        self.conflicts: list[str] = []

    def take(self, claim: Claim) -> None:
        origin, part = claim
        if isinstance(part, Element):
            self.element(origin, part)
        elif isinstance(part, Resource):
            self.resource(origin, part)
        elif isinstance(part, Rule):
            self.rules.append(part)
        elif isinstance(part, Service):
            before = self.services.get(part.name, (origin, False))
            self.services[part.name] = (before[0], before[1] or part.wanted)
        else:
            self.pending.append(claim)

    def element(self, origin: str, part: Element) -> None:
        entries = self.sets.setdefault(part.set, {})
        known = entries.setdefault(part.key, part.value)
        if known != part.value:
            first = self.elements[part.set, part.key]
            self.conflicts.append(f"{part.set} {part.key}: {first} says {known}, {origin} says {part.value}")
        else:
            self.elements.setdefault((part.set, part.key), origin)

    def resource(self, origin: str, part: Resource) -> None:
        key = part.key
        known = self.state.setdefault(key, part)
        if known != part:
            self.conflicts.append(f"{' '.join(key)}: {self.origins[key]} and {origin} want different things")
        else:
            self.origins.setdefault(key, origin)


def _units(services: Mapping[str, tuple[str, bool]], files: Sequence[File]) -> Iterable[Unit]:
    """One unit for each service that anybody spoke of, aware of every file that it must hear of."""
    for name in sorted(services):
        restart = sorted((f for f in files if f.restart == name), key=lambda f: f.path)
        reload = sorted((f for f in files if f.reload == name), key=lambda f: f.path)
        yield Unit(
            name,
            running=services[name][1],
            restart=_digest(f.text for f in restart),
            reload=_digest(f.text for f in reload),
            files=tuple(f.path for f in (*restart, *reload)),
        )


def entries(resource: Resource | None) -> dict[str, str]:
    """The entries of a set, none if it is absent."""
    return resource.entries if isinstance(resource, Elements) else {}


def _digest(texts: Iterable[str]) -> str:
    return sha256("\0".join(texts).encode("utf-8", "surrogatepass")).hexdigest()[:16]
