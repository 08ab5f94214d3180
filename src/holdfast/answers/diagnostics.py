"""What diagnostics.py runs and prints: five tools with options from a list, and three parts around `&&`.  Pure."""

import re
from collections.abc import Sequence
from typing import NamedTuple

from holdfast.texts import is_host_name, is_ipv4

_WHOLE = r"\d{1,4}"
_SECONDS = r"\d{1,2}(\.\d{1,3})?"
_PLACE = r"[A-Za-z0-9][A-Za-z0-9_.:@-]{0,44}"
_IPV6 = re.compile(r"[0-9A-Fa-f:.]{2,45}(%[A-Za-z0-9.]{1,15})?")
_FLAG = ""


class _Tool(NamedTuple):
    """`options`: what each takes; `bound`: the option that ends it, and its value where nobody gave one."""

    options: dict[str, str]
    bound: tuple[str, str]
    most: int


_PING = _Tool(
    {
        **dict.fromkeys(("-c", "-s", "-t"), _WHOLE), **dict.fromkeys(("-W", "-w"), _SECONDS), "-I": _PLACE,
        "-M": "do|want|dont", **dict.fromkeys(("-n", "-q", "-v", "-4", "-6", "-D", "-O", "-R"), _FLAG),
    },
    ("-c", "4"), 50,
)  # fmt: skip
_TRACE = _Tool(
    {
        **dict.fromkeys(("-m", "-f", "-q", "-p", "-N"), _WHOLE), "-w": _SECONDS, "-i": _PLACE, "-s": _PLACE,
        **dict.fromkeys(("-n", "-I", "-T", "-U", "-F", "-4", "-6"), _FLAG),
    },
    ("-m", "20"), 64,
)  # fmt: skip
_ARPING = _Tool(
    {"-c": _WHOLE, "-w": _SECONDS, "-I": _PLACE, "-s": _PLACE, **dict.fromkeys(("-b", "-f", "-q", "-D"), _FLAG)},
    ("-c", "4"), 50,
)  # fmt: skip
TOOLS = {"ping": _PING, "ping6": _PING, "traceroute": _TRACE, "traceroute6": _TRACE, "arping": _ARPING}


def command(argv: Sequence[str]) -> list[str]:
    """The program to run; ValueError says what of the words is not allowed."""
    if not argv or argv[0] not in TOOLS:
        raise ValueError(f"one of {', '.join(TOOLS)} is wanted")
    tool, words = TOOLS[argv[0]], list(argv[1:])
    options: list[str] = []
    address = ""
    given: set[str] = set()
    while words:
        word = words.pop(0)
        if not word.startswith("-"):
            if address or not is_place(word):
                raise ValueError(f"{word[:80]!r} is no address to look for, or one too many")
            address = word
            continue
        shape = tool.options.get(word)
        if shape is None:
            raise ValueError(f"{word[:80]!r} is no option that is allowed here")
        value = [words.pop(0)] if shape and words else []
        if shape and not (value and re.fullmatch(shape, value[0], re.ASCII)):
            raise ValueError(f"{word} wants a value of another kind")
        if word == tool.bound[0] and not 1 <= int(value[0]) <= tool.most:
            raise ValueError(f"{word} may be 1 to {tool.most}")
        given.add(word)
        options += [word, *value]
    if not address:
        raise ValueError("no address is given")
    program, family = (argv[0][:-1], ["-6"]) if argv[0].endswith("6") else (argv[0], [])
    return [program, *family, *(tool.bound if tool.bound[0] not in given else ()), *options, address]


def is_place(word: str) -> bool:
    """An IPv4 or IPv6 address, or a host's name."""
    return is_ipv4(word) or is_host_name(word) or (":" in word and _IPV6.fullmatch(word) is not None)


def parts(out: str, errors: str, code: int) -> str:
    """Three lines: what was printed, what was complained of, the exit status."""
    said, complained = (text.replace("&&", "& &").strip() for text in (out, errors))
    return f"{said}&&\n{complained}&&\n{code}\n"
