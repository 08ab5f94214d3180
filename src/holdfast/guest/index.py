"""What of the served disc is asked for, and how its directories are shown.  Pure."""

import re
from collections.abc import Iterable
from html import escape
from typing import NamedTuple
from urllib.parse import quote_from_bytes, unquote_to_bytes

PREFIX = b"/cks-iso"
HTML = "text/html; charset=utf-8"

_RANGE = re.compile(rb"bytes=(\d{0,19})-(\d{0,19})", re.ASCII)


class Place(NamedTuple):
    """A place on the disc: the names that lead there from its top, and whether a slash says that it is a directory."""

    names: tuple[bytes, ...]
    slash: bool

    @property
    def url(self) -> str:
        """The path by which guests ask for it, percent-encoded."""
        return quote_from_bytes(b"/".join((PREFIX, *self.names)) + (b"/" if self.slash else b""))


class Span(NamedTuple):
    """Bytes of a file: where they begin, and how many they are."""

    first: int
    length: int


def place(path: bytes) -> Place | None:
    """The place that the path of a target means; None if it is not about the disc or leads upwards."""
    if path != PREFIX and not path.startswith(PREFIX + b"/"):
        return None
    rest = unquote_to_bytes(path.removeprefix(PREFIX))
    names = tuple(name for name in rest.split(b"/") if name not in (b"", b"."))
    return None if b".." in names or b"\0" in rest else Place(names, slash=rest.endswith((b"/", b"/.")))


def span(headers: Iterable[tuple[bytes, bytes]], size: int) -> Span | None:
    """What is asked for of a file of `size` bytes (RFC 9110, 14); None if that lies outside of it.

    All of it, as is allowed, where several ranges are asked for, or one of the file as it was at another time.
    """
    asked = [(name.lower(), value) for name, value in headers if name.lower() in (b"range", b"if-range")]
    found = _RANGE.fullmatch(asked[0][1].strip()) if [name for name, _ in asked] == [b"range"] else None
    if not found or found[0] == b"bytes=-":
        return Span(0, size)
    if not found[1]:
        length = min(int(found[2]), size)
        return Span(size - length, length) if length else None
    first = int(found[1])
    last = min(int(found[2]), size - 1) if found[2] else size - 1
    if found[2] and int(found[2]) < first:
        return Span(0, size)  # no range, by its own rule
    return Span(first, last - first + 1) if first < size else None


def listing(here: Place, entries: Iterable[tuple[bytes, bool]]) -> bytes:
    """A page of links, one a line: names of a directory, and whether each is a directory itself.

    There is none to the directory above: programs that follow links would leave what they were sent for.
    """
    title = escape(here.url)
    lines = ["<!DOCTYPE html>", f"<title>{title}</title>", f"<h1>{title}</h1>", "<pre>"]
    for name, directory in sorted(entries):
        slash = "/" if directory else ""
        # From `./` on, since a name may begin like a scheme.
        lines.append(f'<a href="./{quote_from_bytes(name)}{slash}">{escape(name.decode(errors="replace"))}{slash}</a>')
    return "\n".join((*lines, "</pre>", "")).encode()
