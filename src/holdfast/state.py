"""What a machine is made of, and the difference between two machines.  Pure."""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import ClassVar, NamedTuple, TypeAlias

from msgspec import Struct

Key: TypeAlias = tuple[str, ...]
"""A resource's kind and what tells it from others of its kind: `("Address", "eth2", "203.0.113.7/24")`."""


MTU = 1500
"""Bytes, where nobody says otherwise: Ethernet's own."""


class Resource(Struct, frozen=True):
    """The smallest thing that Holdfast owns.  `identity` names the fields that tell two apart."""

    identity: ClassVar[tuple[str, ...]]

    @property
    def key(self) -> Key:
        """Kind and identity as text."""
        return (type(self).__name__, *[str(getattr(self, name)) for name in self.identity])

    @property
    def needs(self) -> tuple[Key, ...]:
        """Keys of what must be right before this can be: a route its device, a service its files."""
        return ()


class Sysctl(Resource, frozen=True):
    """A kernel parameter: `name` as in sysctl(8) with dots, or slashes where a device's name has a dot."""

    identity = ("name",)
    name: str
    value: str


class Link(Resource, frozen=True):
    """A network device's administrative state.  `mtu` in bytes; 0 leaves it alone."""

    identity = ("device",)
    device: str
    up: bool = True
    mtu: int = 0


class Address(Resource, frozen=True):
    """An address on a device; `interface` is `address/prefix length`.

    `announce`: tell the neighbours when it is new.  `first`: given before the others of its device, since the kernel
    speaks to a connected network by the address that it was given first.  `keeper`: who else puts it there and takes
    it away, as keepalived does: it is neither missed nor removed.
    """

    identity = ("device", "interface")
    device: str
    interface: str
    announce: bool = False
    first: bool = False
    keeper: str = ""

    @property
    def needs(self) -> tuple[Key, ...]:
        """Its device."""
        return (("Link", self.device),)


class Route(Resource, frozen=True):
    """A route that carries our protocol number.  `kind`: `unicast`, or `throw` (go on with the next rule).

    `destination` is `default` or a canonical network; `gateway` empty for a directly connected one;
    `device` empty for `throw`.  `source`: the address by which the router itself speaks that way, if it matters.
    """

    identity = ("table", "destination")
    destination: str
    table: int = 254
    kind: str = "unicast"
    gateway: str = ""
    device: str = ""
    source: str = ""

    @property
    def needs(self) -> tuple[Key, ...]:
        """Its device."""
        return (("Link", self.device),) if self.device else ()


class PolicyRule(Resource, frozen=True):
    """A routing policy rule in our priority range: from `source` and/or `mark`/`mask` look up `table`."""

    identity = ("priority", "source", "mark", "mask", "table")
    priority: int
    table: int
    source: str = ""
    mark: int = 0
    mask: int = 0


class Ruleset(Resource, frozen=True):
    """The firewall's structure, chains and empty sets, as nft text.  Elements are resources of their own."""

    identity = ()
    text: str


class Elements(Resource, frozen=True):
    """What one named set or map of the firewall holds: key -> value, value empty for sets, as nft writes them."""

    identity = ("set",)
    set: str
    entries: dict[str, str]


class Flows(Resource, frozen=True):
    """The kernel's memory of connections of a network: they go when the network goes."""

    identity = ("network",)
    network: str


class Handover(Resource, frozen=True):
    """What a router of a pair has done with the peer's connections: it carries on with them as MASTER, and asks for
    them in any other role.  `role` is a word of keepalived's.
    """

    identity = ()
    role: str


class Announcement(Resource, frozen=True):
    """What the neighbours on a device have to be told when this router begins to serve, and when one of these is new:
    that these IPv4 addresses are here.
    """

    identity = ("device",)
    device: str
    addresses: tuple[str, ...]

    @property
    def needs(self) -> tuple[Key, ...]:
        """Its device."""
        return (("Link", self.device),)


class Leases(Resource, frozen=True):
    """What a DHCP server may remember: pairs `MAC address`.

    `networks`: those that it serves, each with its device and the server's address there.
    """

    identity = ("path",)
    path: str
    allowed: tuple[str, ...]
    networks: tuple[tuple[str, str, str], ...] = ()


class File(Resource, frozen=True):
    """A file, whole.  `restart` or `reload` names the service that must hear of a change.

    `check` is a command that is run with the path of the new text appended, before it may replace the old.
    `secret` keeps the text out of every output.  `group` may read it as `mode` says; where the machine has no such
    group it stays root's.
    """

    identity = ("path",)
    path: str
    text: str
    mode: int = 0o644
    check: tuple[str, ...] = ()
    restart: str = ""
    reload: str = ""
    secret: bool = False
    group: str = ""


class Unit(Resource, frozen=True):
    """A service.  `restart` and `reload` are digests of what it should have read when it last did either."""

    identity = ("name",)
    name: str
    running: bool
    restart: str = ""
    reload: str = ""
    files: tuple[str, ...] = ()

    @property
    def needs(self) -> tuple[Key, ...]:
        """The files that it reads."""
        return tuple(("File", path) for path in self.files)


State: TypeAlias = Mapping[Key, Resource]


class Change(NamedTuple):
    """A resource as it is and as it should be; None stands for absent."""

    before: Resource | None
    after: Resource | None

    @property
    def resource(self) -> Resource:
        """The wanted form if there is one, else the one that goes."""
        resource = self.after or self.before
        assert resource is not None  # noqa: S101 a change has at least one side by construction
        return resource

    @property
    def key(self) -> Key:
        """Key of the resource that changes."""
        return self.resource.key


def diff(actual: State, desired: State) -> list[Change]:
    """Everything that differs, sorted by key."""
    return [
        Change(actual.get(key), desired.get(key))
        for key in sorted(actual.keys() | desired.keys())
        if actual.get(key) != desired.get(key)
    ]


def order(changes: Sequence[Change], kinds: Sequence[Sequence[type[Resource]]]) -> Iterator[list[Change]]:
    """Phases: take away in reverse order of kinds, then give in order of kinds.

    A group of several kinds goes in one phase, in whole: both what it takes and what it gives.
    """
    for group in reversed(kinds):
        if len(group) == 1:
            yield from _phase([c for c in changes if type(c.resource) in group and c.after is None])
    for group in kinds:
        whole = len(group) > 1
        yield from _phase([c for c in changes if type(c.resource) in group and (whole or c.after is not None)])


def _phase(changes: list[Change]) -> Iterable[list[Change]]:
    return [changes] if changes else []
