"""What the two routers of a pair tell each other: messages, their proof, and which of them are fresh.  Pure.

A hello is 16 bytes of HMAC-SHA256 and JSON.  It counts as fresh if it echoes what this router has said a moment ago:
who repeats later what was once heard has no echo to show.  Whatever a stranger sends costs one length and one digest.
"""

import hmac
from collections import OrderedDict
from enum import Enum
from typing import Annotated, NamedTuple

import msgspec
from msgspec import Meta, Struct
from msgspec.structs import replace

GROUP = "225.0.0.51"
PORT = 3781
INTERVAL_S = 0.25
FRESH_S = 1.5
"""How old an echo may be to count, and how long what was heard of the peer holds."""
LONGEST = 16384
"""Bytes of the longest hello that is read; one whose digests would make it longer goes without them."""
VERSION = 1
HIGHEST_TERM = 14
_PROOF = 16
_ECHOES = 4
_SENT = 64  # hellos: an echo that is fresh is among them, even where much is said at once
_MOST = 10**18
_NOW_AND_THEN = ("digests", "keys", "nics", "neighbours")
HIGHEST_TAKEN = 10**9 << 16
"""What is told of passwords (`receipts.taken`): a number above it is of nobody's."""

_Count = Annotated[int, Meta(ge=0, le=_MOST)]
_Taken = Annotated[int, Meta(ge=0, le=HIGHEST_TAKEN)]
# Who knows the key may still be a tenant, see `features.pair`: what is told here reaches logs and terminals.
_Name = Annotated[str, Meta(max_length=255, pattern=r"\A[!-~]*\Z")]
_Role = Annotated[str, Meta(pattern=r"\A(MASTER|BACKUP|FAULT|)\Z")]
_Words = Annotated[str, Meta(max_length=64, pattern=r"\A[0-9A-Za-z./:_ -]*\Z")]
_Address = Annotated[str, Meta(max_length=64, pattern=r"\A[0-9A-Fa-f.:/]*\Z")]
_Mac = Annotated[str, Meta(pattern=r"\A[0-9a-f]{2}(:[0-9a-f]{2}){5}\Z")]


class Face(Struct, frozen=True):
    """A guest interface of this router: its network, its present name, its own address there."""

    network: str
    device: str
    address: str
    prefix: int


class Pair(Struct, frozen=True, kw_only=True):
    """/run/holdfast/pair.json: what this router is in its pair.  `key`: in hex, for the hello's proof.

    `ground`: the segment's shared interface, VRRP's version and interval, as `10.71.1.1/24 v2 1`; both routers need
    the same, empty where there is no segment.  `segment`: its device.  `outer`: public nics and private gateways',
    `missing`: those that are wanted and absent.
    `announce`: devices and what the serving router has on them.  `gateways`: outer nics and the routers behind them,
    `probed`: those of them that are asked whether they still speak.
    `digests`: of what both routers should know alike, `keys`: of each key within it.  `nics`: device of each guest
    network.  `passwords`: by guest address, as hellos tell of them.
    """

    key: str
    name: str = ""
    ground: str = ""
    segment: str = ""
    advert_s: float = 1
    faces: tuple[Face, ...] = ()
    outer: tuple[str, ...] = ()
    missing: tuple[str, ...] = ()
    announce: tuple[tuple[str, tuple[str, ...]], ...] = ()
    gateways: tuple[tuple[str, str], ...] = ()
    digests: dict[str, str] = {}
    keys: dict[str, dict[str, str]] = {}
    nics: dict[str, str] = {}
    passwords: dict[str, tuple[int, ...]] = {}
    probed: tuple[tuple[str, str], ...] = ()


class Here(NamedTuple):
    """A router's guest interface as its peer is told: device, address, MAC in lower case."""

    device: Annotated[str, Meta(max_length=64, pattern=r"\A[!-~]*\Z")]
    address: _Address
    mac: _Address


class Hello(Struct, frozen=True, kw_only=True, omit_defaults=True):
    """What a router says of itself, every quarter of a second and at once when any of it changes.

    `boot`: drawn anew by each agent that starts; `n`: counts its hellos.  `echo`: (boot, n) of what was heard, the peer
    first.  `said`: role.by.  `moving`, `release`: the ground it waits to move to, and that the peer may begin there.
    `able`: it could serve.  `outer`: how many outer links carry.  `digests`, `keys` (see `holdfast.apart`), `nics` (by
    network), `neighbours` (MAC by address, of the gateways that it has found): None in a hello that does not repeat
    them.  `synced_s`: how long ago it has told, or asked for, all connections; None if it has not.  `taken`: newest
    acknowledged password by guest address.
    """

    v: int = VERSION
    name: _Name = ""
    boot: _Name = ""
    n: _Count = 0
    echo: tuple[tuple[_Name, _Count], ...] = ()
    role: _Role = ""
    said: _Words = ""
    term: Annotated[int, Meta(ge=0, le=HIGHEST_TERM)] = 0
    ground: _Words = ""
    moving: _Words = ""
    release: bool = False
    hold: bool = False
    leaving: bool = False
    boost: bool = False
    able: bool = False
    outer: _Count = 0
    digests: dict[_Words, _Words] | None = None
    keys: dict[_Words, dict[_Words, _Words]] | None = None
    nics: dict[_Address, Here] | None = None
    neighbours: dict[_Address, _Mac] | None = None
    flows: _Count = 0
    synced_s: _Count | None = None
    taken: dict[_Address, _Taken] = {}


class Sent(NamedTuple):
    """A hello of ours, as far as it matters what its echo was said in the knowledge of."""

    at: float
    role: str
    term: int


class Kind(Enum):
    """What a hello is worth: our own; said before; new, but no answer to us; fresh, but not of our peer; fresh."""

    OWN = "own"
    STALE = "stale"
    GREETING = "greeting"
    THIRD = "third"
    FRESH = "fresh"


class Peer(NamedTuple):
    """The other router: its newest fresh hello, when it came, and what of ours it answered.

    What it repeats only now and then (`digests`, `keys`, `nics`, `neighbours`) is what it said last.
    """

    hello: Hello
    heard: float
    answered: Sent

    def fresh(self, now: float) -> bool:
        """Whether what it said still holds."""
        return now - self.heard <= FRESH_S


def encode(key: bytes, hello: Hello) -> bytes:
    """Return the datagram."""
    text = msgspec.json.encode(hello)
    if len(text) > LONGEST - _PROOF:
        text = msgspec.json.encode(replace(hello, digests=None, keys=None, nics=None, neighbours=None, taken={}))
    return _proof(key, text) + text


def _proof(key: bytes, text: bytes) -> bytes:
    return hmac.digest(key, text, "sha256")[:_PROOF]


def digest(key: bytes, name: str, text: bytes) -> str:
    """Eight hex digits of something that both routers should know alike."""
    return hmac.digest(key, name.encode() + b"\0" + text, "sha256")[:4].hex()


def decode(key: bytes, data: bytes) -> Hello | None:
    """Return what a datagram says; None for what has no proof, is of another version, or spells a word with what no
    such word has.  Never raises.
    """
    if not _PROOF < len(data) <= LONGEST:
        return None
    text = data[_PROOF:]
    if not hmac.compare_digest(data[:_PROOF], _proof(key, text)):
        return None
    try:
        hello = _DECODER.decode(text)
    except (ValueError, RecursionError):  # msgspec's own errors are ValueErrors
        return None
    return hello if hello.v == VERSION else None


_DECODER = msgspec.json.Decoder(Hello)


class Talk:
    """One router's side of the conversation: what it has said of late, what it has heard, and who its peer is."""

    def __init__(self, boot: str) -> None:
        self.boot = boot
        self.n = 0
        self.peer: Peer | None = None
        self._sent: OrderedDict[int, Sent] = OrderedDict()
        self._heard: OrderedDict[str, int] = OrderedDict()

    def say(self, hello: Hello, now: float) -> Hello:
        """Return the hello with the number, the name and the echoes that make it the next one of this router."""
        self.n += 1
        self._sent[self.n] = Sent(now, hello.role, hello.term)
        while len(self._sent) > _SENT:
            self._sent.popitem(last=False)
        return replace(hello, boot=self.boot, n=self.n, echo=self._echo())

    def _echo(self) -> tuple[tuple[str, int], ...]:
        newest = [*reversed(self._heard.items())]
        if self.peer:
            # Whatever else somebody repeats, the peer's own is among them.
            first = (self.peer.hello.boot, max(self.peer.hello.n, self._heard.get(self.peer.hello.boot, 0)))
            newest = [first, *(one for one in newest if one[0] != first[0])]
        return tuple(newest[:_ECHOES])

    def hear(self, hello: Hello, now: float) -> Kind:
        """Take a hello in whose proof is right, and say what it is worth."""
        if hello.boot == self.boot:
            return Kind.OWN
        held = self.peer.hello if self.peer else None
        before = max(self._heard.get(hello.boot, 0), held.n if held and held.boot == hello.boot else 0)
        if hello.n <= before:
            return Kind.STALE
        self._heard[hello.boot] = hello.n
        self._heard.move_to_end(hello.boot)
        while len(self._heard) > _ECHOES:
            self._heard.popitem(last=False)
        answered = self._answered(hello, now)
        if answered is None:
            return Kind.GREETING
        if self.peer and self.peer.fresh(now) and hello.name != self.peer.hello.name:
            return Kind.THIRD
        if held and held.boot == hello.boot:
            said = {name: getattr(hello, name) for name in _NOW_AND_THEN}
            hello = replace(hello, **{name: getattr(held, name) for name in said if said[name] is None})
        self.peer = Peer(hello, now, answered)
        return Kind.FRESH

    def _answered(self, hello: Hello, now: float) -> Sent | None:
        echoed = max((n for boot, n in hello.echo if boot == self.boot), default=0)
        sent = self._sent.get(echoed)
        return sent if sent and now - sent.at <= FRESH_S else None

    def heard(self, now: float) -> Peer | None:
        """The peer, if what it said still holds."""
        return self.peer if self.peer and self.peer.fresh(now) else None
