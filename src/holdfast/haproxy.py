"""The management server's haproxy text as today's haproxy (2.6) takes it, and what we need in it ourselves.  Pure."""

import re
from collections.abc import Callable, Iterable, Iterator, Mapping
from hashlib import sha256
from typing import NamedTuple

SOCKET = "/run/haproxy/holdfast.sock"
THEIR_SOCKET = "/run/haproxy/admin.sock"
MASTER = "/run/haproxy-master.sock"
DIGEST = "HOLDFAST_TEXT"
"""Variable of the running process that tells which text it has read."""

PEER = "127.0.0.1:8519"
OLD_WORKERS = 20
TABLE_SIZE = "200k"
_ACL_VALUES = 50  # haproxy takes 64 words a line

_GLOBAL = re.compile(r"\s*global\s*")
_LISTEN = re.compile(r"(\s*listen\s+\S+)\s+((?:[0-9.*]+:[0-9]+)(?:,[0-9.*]+:[0-9]+)*)\s*")
_FORCECLOSE = re.compile(r"(\s*(?:no\s+)?option\s+)forceclose(\s*)")
_TABLE = re.compile(r"\s*stick-table\s(?!.*\s(?:peers|srvkey)\s).*\S\s*")
_ACL = re.compile(r"(\s*acl\s+\S+\s+src\s+)(\S.*)")
_APPSESSION = re.compile(r"(\s*)appsession\s+([A-Za-z0-9_.-]+)\s+(\S.*)")
_WORD = re.compile(r"[A-Za-z0-9._:/-]+")
_POWER = re.compile(r"program|lua-.*|insecure-.*|external-check|(pre|re|un)?setenv|[ug]id|command|master-worker")
_FIXED = {"user": "haproxy", "group": "haproxy", "chroot": "/var/lib/haproxy"}
_MODES = ("path-parameters", "query-string")
_SET_COOKIES = 4  # how many of an answer are looked at for a name that is only a prefix


class Translation(NamedTuple):
    """A whole configuration file, and what in it is said otherwise than the management server said it."""

    text: str
    said: tuple[str, ...]


def excess(configuration: Iterable[str]) -> Iterator[tuple[int, str]]:
    """Elements, by their index, that ask for more than balancing, and what: programs to run, other rights, sockets.

    No management server sends them.  Values that tenants choose stand in the text, and a line break in one of them
    must not make it a command to root.
    """
    for index, element in enumerate(configuration):
        for line in element.split("\n"):
            words = line.split()
            if not words or words[0].startswith("#"):
                continue
            head = words[:2] if words[0] in ("option", "stats", "no") else words[:1]
            # Quotes and backslashes could spell any keyword so that it is not seen here.
            if not all(_WORD.fullmatch(word) for word in head):
                yield index, f"{head[-1][:40]!r} is no keyword"
            elif any(_POWER.fullmatch(word) for word in head):
                yield index, f"`{head[-1]}` is not for a load balancer"
            elif words[0] in _FIXED and words[1:] != [_FIXED[words[0]]]:
                yield index, f"`{words[0]}` is {_FIXED[words[0]]} here"
            elif head == ["stats", "socket"] and words[2:3] != [THEIR_SOCKET]:
                yield index, f"`stats socket` is {THEIR_SOCKET} here"


class Session(NamedTuple):
    """What `appsession` asks for: stickiness by an application's own session id."""

    cookie: str
    length: str
    timeout: str
    learn: bool
    prefix: bool
    mode: str


def translate(configuration: Iterable[str], certificates: Mapping[str, str] | None = None) -> Translation:
    """Put elements together, each a line or several, and say anew what haproxy 2.6 refuses; all else stays as it is.

    `certificates`: content by name; it goes into the digest, so that a changed one is a changed text.
    """
    lines = "".join(f"{element}\n" for element in configuration).split("\n")[:-1]
    found: dict[str, list[int]] = {}
    written: list[str] = []
    for number, line in enumerate(lines, 1):
        what, instead = _translated(line)
        written += instead
        if what:
            found.setdefault(what, []).append(number)
    written = [f"{line.rstrip()} {_KEPT}" if _TABLE.fullmatch(line) else line for line in written]
    written += _PEERS
    said = tuple(f"{_lines(numbers)}: {what}" for what, numbers in found.items())
    return Translation(_with_own(written, certificates or {}), said)


# A worker hands its tables to the next one by this peer, itself.  It is there with a table of its own before anybody
# needs it: a worker that nobody has taught waits 10 s for a teacher, and teaches none meanwhile.
_PEERS = ["peers holdfast", f"\tpeer holdfast {PEER}", "\ttable always type integer size 1"]
# By address, not by name: names are numbered through, so a server that goes would pass its clients to the next one.
_KEPT = "srvkey addr peers holdfast"


def _lines(numbers: list[int]) -> str:
    return f"line{'' if len(numbers) == 1 else 's'} {', '.join(map(str, numbers))}"


def _with_own(lines: list[str], certificates: Mapping[str, str]) -> str:
    """Our own lines at the head of `global`, where whatever the server says later has the last word."""
    at = next((index for index, line in enumerate(lines) if _GLOBAL.fullmatch(line)), -1)
    if at < 0:
        lines, at = ["global", *lines], 0
    told = "\0".join([*lines, *(part for item in sorted(certificates.items()) for part in item)])
    own = [
        "\t# The next lines are holdfast's; the digest is of the text and its certificates.",
        f"\tsetenv {DIGEST} {sha256(told.encode()).hexdigest()[:32]}",
        f"\tstats socket {SOCKET} mode 600 level admin expose-fd listeners",
        f"\tmworker-max-reloads {OLD_WORKERS}",
        "\tlocalpeer holdfast",
    ]
    return "".join(f"{line}\n" for line in [*lines[: at + 1], *own, *lines[at + 1 :]])


def _translated(line: str) -> tuple[str, list[str]]:
    """What was translated (empty: nothing), and the lines that stand there now."""
    for pattern, translator in _TRANSLATORS:
        if match := pattern.fullmatch(line):
            what, lines = translator(match)
            if what:
                return what, lines
    return "", [line]


def _listen(match: re.Match[str]) -> tuple[str, list[str]]:
    return "an address on a `listen` line got a `bind` line of its own", [match[1], f"\tbind {match[2]}"]


def _forceclose(match: re.Match[str]) -> tuple[str, list[str]]:
    return "`option forceclose` is `option httpclose` now", [f"{match[1]}httpclose{match[2]}"]


def _acl(match: re.Match[str]) -> tuple[str, list[str]]:
    values = match[2].split()
    if len(values) <= _ACL_VALUES:
        return "", []
    parts = [values[at : at + _ACL_VALUES] for at in range(0, len(values), _ACL_VALUES)]
    return "an acl of many networks became several of its name", [match[1] + " ".join(part) for part in parts]


def _appsession(match: re.Match[str]) -> tuple[str, list[str]]:
    session = _session(match[2], match[3].split())
    if session is None:
        return "", []
    limits = f"; a name in the {session.mode} must be whole" if session.prefix else ""
    what = f"`appsession {session.cookie}` became a stick-table{limits}"
    return what, [f"{match[1]}{text}" for text in _sticking(session)]


def _session(cookie: str, words: list[str]) -> Session | None:
    """Understand the options; None if any is unknown or one that must be there is missing."""
    values = {"mode": _MODES[0], "len": "", "timeout": ""}
    flags: set[str] = set()
    rest = iter(words)
    for word in rest:
        if word in values:
            values[word] = next(rest, "")
        elif word in ("request-learn", "prefix"):
            flags.add(word)
        else:
            return None
    if not values["len"].isdigit() or not values["timeout"] or values["mode"] not in _MODES:
        return None
    learn, prefix = "request-learn" in flags, "prefix" in flags
    return Session(cookie, values["len"], values["timeout"], learn, prefix, values["mode"])


def _sticking(session: Session) -> Iterator[str]:
    """The cookie first, then the address of the page.  `stick on` matches and learns from the request."""
    cookie, verb = session.cookie, "stick on" if session.learn else "stick match"
    yield f"stick-table type string len {session.length} size {TABLE_SIZE} expire {session.timeout}"
    if session.prefix:
        name = cookie.replace(".", "[.]")
        for number in range(1, _SET_COOKIES + 1):
            header = f"res.fhdr(set-cookie,{number})"
            yield f"stick store-response \"{header},regsub('^{name}',''),field(1,;)\" if {{ {header} -m beg {cookie} }}"
        value = f"\"req.fhdr(cookie),regsub('^(.*;)? *{name}',''),field(1,;)\""
        yield f"{verb} {value} if {{ req.fhdr(cookie) -m reg '(^|;) *{name}' }}"
    else:
        yield f"stick store-response res.cook({cookie})"
        yield f"{verb} req.cook({cookie})"
    # The fetch ends a path parameter at the next one alone, and would keep the query string with the last.
    page = f"urlp({cookie},;),field(1,?)" if session.mode == _MODES[0] else f"urlp({cookie})"
    yield f"{verb} {page}"


_TRANSLATORS: tuple[tuple[re.Pattern[str], Callable[[re.Match[str]], tuple[str, list[str]]]], ...] = (
    (_LISTEN, _listen),
    (_FORCECLOSE, _forceclose),
    (_ACL, _acl),
    (_APPSESSION, _appsession),
)
