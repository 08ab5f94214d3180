"""What a guest is told: from who asks, what is asked and what is known to the answer.  Pure."""

import re
from base64 import b64decode
from collections.abc import AsyncIterator, Iterable
from typing import NamedTuple, Protocol
from urllib.parse import quote, unquote_to_bytes

from msgspec import Struct

from holdfast.guest import index
from holdfast.receipts import Event, Receipts

TEXT = "text/plain; charset=utf-8"
BINARY = "application/octet-stream"

_ORIGIN = re.compile(rb"https?://[^/?#]*", re.IGNORECASE)
# All else is percent-encoded in a list: what would end a line, a path or a target, and what clients choke on.
_LISTED_AS_IS = "!\"$&'()*+,:;<=>@[\\]^`{|}"


class Guest(Struct, frozen=True):
    """One guest of the view.  `at`: the router's addresses at which it may ask; `userdata` is base64."""

    at: tuple[str, ...]
    metadata: dict[str, str] | None = None
    userdata: str | None = None
    password: str | None = None
    serial: int = 0


class Caller(NamedTuple):
    """Both ends of a connection: the guest's address, and the router's that it spoke to."""

    peer: str
    local: str


class Request(NamedTuple):
    """The head of a request, its bytes as they came."""

    method: bytes
    target: bytes
    headers: Iterable[tuple[bytes, bytes]] = ()


class Content(Protocol):
    """A body that is too large to be held: how many bytes, and those bytes in pieces."""

    @property
    def length(self) -> int: ...  # noqa: D102 the class says it

    def pieces(self) -> AsyncIterator[bytes]: ...  # noqa: D102 the class says it

    def check(self) -> None:
        """OSError if there will be no more pieces; asked while one is on its way."""

    def close(self) -> None:
        """No more pieces are wanted."""


class Answer(NamedTuple):
    """A response, and the event that has to be written down before it is sent.

    `headers`: lines beside those that every response has; `content`, closed by who receives it, stands for `body`.
    """

    status: int
    body: bytes
    kind: str = TEXT
    event: Event | None = None
    serial: int = 0
    headers: tuple[str, ...] = ()
    content: Content | None = None


NOT_FOUND = Answer(404, b"not found\n")
NOT_ALLOWED = Answer(405, b"method not allowed\n")
UNAVAILABLE = Answer(503, b"unavailable\n")
SAVED = Answer(200, b"saved_password")
BAD_REQUEST = Answer(200, b"bad_request")


def metadata(caller: Caller, guest: Guest | None, request: Request) -> Answer:
    """Answer on the metadata ports.  `guest` is what the view has under the caller's address."""
    if request.method not in (b"GET", b"HEAD"):
        return NOT_ALLOWED
    if guest is None or caller.local not in guest.at:
        return NOT_FOUND
    path = path_of(request.target)
    own = b"/" + caller.peer.encode() + b"/"
    if path.startswith(b"/latest/"):
        return _latest(guest, path.removeprefix(b"/latest/"))
    if path.startswith(b"/metadata" + own):
        rest = path.removeprefix(b"/metadata" + own)
        return _names(guest) if _is(rest, b"meta-data") else _item(guest, rest)
    if path.startswith(b"/userdata" + own) and _is(path.removeprefix(b"/userdata" + own), b"user-data"):
        return _user_data(guest)
    return NOT_FOUND


def about_disc(caller: Caller, guest: Guest | None, request: Request) -> bool:
    """Whether this is for `files` to answer: a guest of ours wants to read the served disc."""
    ours = guest is not None and caller.local in guest.at
    return ours and request.method in (b"GET", b"HEAD") and index.place(path_of(request.target)) is not None


def password(caller: Caller, guest: Guest | None, receipts: Receipts, request: Request) -> Answer:
    """Answer on the password port, in the words that guests' scripts know; the status is always 200.

    An acknowledgement is for the password that this address was given last: a newer one may have come in between.
    """
    asked = [value for name, value in request.headers if name.lower() == b"domu_request"]
    if request.method != b"GET" or asked not in ([b"send_my_password"], [b"saved_password"]):
        return BAD_REQUEST
    if guest is None or caller.local not in guest.at:
        return SAVED
    latest = guest.serial if guest.password is not None else 0
    taken = receipts.acknowledged.get(caller.peer, 0)
    if asked == [b"saved_password"]:
        given = receipts.delivered.get(caller.peer, latest)
        return SAVED._replace(event="acknowledged", serial=given) if given > taken else SAVED
    if guest.password is not None and latest > taken:
        return Answer(200, guest.password.encode(), event="delivered", serial=latest)
    return SAVED


def path_of(target: bytes) -> bytes:
    """The path of a target, also of one in absolute form; queries mean nothing."""
    origin = _ORIGIN.match(target)
    return re.split(rb"[?#]", target[origin.end() :] if origin else target, maxsplit=1)[0]


def _is(rest: bytes, name: bytes) -> bool:
    return rest.removesuffix(b"/") == name


def _latest(guest: Guest, rest: bytes) -> Answer:
    if _is(rest, b"user-data"):
        return _user_data(guest)
    if _is(rest, b"meta-data"):
        return _names(guest)
    return _item(guest, rest.removeprefix(b"meta-data/"))


def _user_data(guest: Guest) -> Answer:
    return NOT_FOUND if guest.userdata is None else Answer(200, b64decode(guest.userdata), BINARY)


def _names(guest: Guest) -> Answer:
    """Every name on a line, spelled so that it is one line and that it can be asked for as it stands."""
    if guest.metadata is None:
        return NOT_FOUND
    return Answer(200, "".join(f"{quote(name, _LISTED_AS_IS)}\n" for name in guest.metadata if name).encode())


def _item(guest: Guest, spelling: bytes) -> Answer:
    """The value of one name.  A name is a key, never a path, so a slash or dots in it are as good as letters."""
    for text in (spelling, spelling.removesuffix(b"/")):
        try:
            name = unquote_to_bytes(text).decode()
        except UnicodeDecodeError:
            continue
        if name and guest.metadata and (value := guest.metadata.get(name)) is not None:
            return Answer(200, value.encode())
    return NOT_FOUND
