"""What a generation is on paper: its documents, what is known about it, and which ones are worth keeping.  Pure."""

import re
from collections.abc import Iterable, Mapping, Sequence
from hashlib import sha256
from typing import Any, NamedTuple

import msgspec

from holdfast.errors import Degraded

RECORD = "command.json"
META = "meta.json"
_DAY_S = 86_400
_DOCUMENT = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_.-]{0,63}")


class Damaged(Degraded):
    """What is on disk is not what was written; the message names the file and what is wrong with it."""


class Meta(msgspec.Struct, frozen=True, kw_only=True):
    """What is known about a generation.

    `created` in seconds since 1970; `events` the names of the messages that made it; `refused` as the proposer gave
    it; `parent` the generation that it was made from, 0 for none; `digests` SHA-256 in hex by file name.
    """

    number: int
    created: float
    cause: str
    parent: int
    digests: dict[str, str]
    events: tuple[str, ...] = ()
    refused: tuple[Any, ...] = ()


class Generation(NamedTuple):
    """A whole configuration, verified: documents by name (without `.json`)."""

    number: int
    documents: dict[str, bytes]
    meta: Meta


class Retention(NamedTuple):
    """How much history is kept: the last so many, the last of so many days, and at most so many bytes of both."""

    last: int = 20
    days: int = 30
    size: int = 64 * 1024 * 1024


class Held(NamedTuple):
    """What one generation holds on disk: when it was made (None: unknown) and the bytes of each of its inodes."""

    number: int
    created: float | None
    inodes: Mapping[int, int]


class _Sealed(msgspec.Struct):
    """How a Meta is written: its bytes, and the checksum of exactly these bytes."""

    sha256: str
    meta: msgspec.Raw


class _Message(msgspec.Struct, omit_defaults=True):
    """A message as it came: as text where it is UTF-8, so that people can read it, else in base 64."""

    name: str
    text: str | None = None
    base64: bytes | None = None


def digest(data: bytes) -> str:
    """SHA-256 in hex."""
    return sha256(data).hexdigest()


def check_names(names: Iterable[str]) -> None:
    """Raise ValueError for a name that can't be a document's: it would be another file's, or leave the directory."""
    for name in names:
        if not _DOCUMENT.fullmatch(name) or name in {"command", "meta"}:
            raise ValueError(f"no name for a document: {name!r}")


def seal(meta: Meta) -> bytes:
    """Write a Meta with its own checksum; the checksum is of bytes, so that a later field does not break old ones."""
    text = msgspec.json.format(msgspec.json.encode(meta), indent=1)
    return b'{"sha256": "%s",\n "meta": %s}\n' % (digest(text).encode(), text)


def unseal(data: bytes, where: str) -> Meta:
    """Read what `seal` wrote; Damaged, naming `where`, if it is not that to the last bit."""
    try:
        sealed = msgspec.json.decode(data, type=_Sealed)
        if digest(bytes(sealed.meta)) != sealed.sha256:
            raise Damaged(f"{where}: checksum does not match")
        return msgspec.json.decode(sealed.meta, type=Meta)
    except (msgspec.DecodeError, UnicodeDecodeError) as error:
        raise Damaged(f"{where}: {error if data else 'empty'}") from error


def write_messages(messages: Sequence[tuple[str, bytes]]) -> bytes:
    """Write messages, names and any bytes, as JSON."""
    record = [_message(name, data) for name, data in messages]
    return msgspec.json.format(msgspec.json.encode(record), indent=1) + b"\n"


def read_messages(data: bytes) -> list[tuple[str, bytes]]:
    """Read what `write_messages` wrote: the bytes exactly as they came."""
    record = msgspec.json.decode(data, type=list[_Message])
    return [(each.name, each.base64 or (each.text or "").encode()) for each in record]


def printable(name: str) -> str:
    """Return a file name as text: one need not be, and JSON must be."""
    return name.encode(errors="backslashreplace").decode()


def surplus(newest_first: Sequence[Held], needed: frozenset[int], retention: Retention) -> list[int]:
    """Choose the generations that go: neither of the last ones nor the last of a day, or over the budget.

    An inode that several hold is counted once, for the newest.  Those in `needed` stay whatever they cost.
    """
    gone: list[int] = []
    days: set[float] = set()
    inodes: dict[int, int] = {}
    for place, held in enumerate(newest_first):
        day = None if held.created is None else held.created // _DAY_S
        wanted = place < retention.last or (day is not None and day not in days and len(days) < retention.days)
        if day is not None:
            days.add(day)
        if wanted or held.number in needed:
            inodes.update(held.inodes)
        if held.number not in needed and (not wanted or sum(inodes.values()) > retention.size):
            gone.append(held.number)
    return gone


def _message(name: str, data: bytes) -> _Message:
    try:
        return _Message(printable(name), text=data.decode())
    except UnicodeDecodeError:
        return _Message(printable(name), base64=data)
