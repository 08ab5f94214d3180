"""What keystore-setup and keystore-cert-import are called with, and how PEM travels in their arguments.  Pure."""

import re
from collections.abc import Sequence
from typing import NamedTuple

HOME = "/usr/local/cloud/systemvm/conf"
_NAME = r"[A-Za-z0-9_]{1,32}"
_PLACE = re.compile(rf"{HOME}/({_NAME})(\.ca)?\.(properties|jks|csr|crt|key)", re.ASCII)
_PEM = re.compile(r"(-----BEGIN [A-Z0-9 ]{1,40}-----\n([A-Za-z0-9+/=\n]{1,32768})-----END [A-Z0-9 ]{1,40}-----\n*)+")
LONGEST_DAYS = 36500


class Setup(NamedTuple):
    """Where the request goes, and the key beside it."""

    request: str
    key: str


class Import(NamedTuple):
    """Certificate, certificates of the authority, and key (empty: the one that keystore-setup made), each with its
    path.
    """

    certificate: tuple[str, str]
    authority: tuple[str, str]
    key: tuple[str, str]


def setup(argv: Sequence[str]) -> Setup:
    """Properties, keystore, password, days, request; ValueError if one of them is none."""
    if len(argv) != 5:  # noqa: PLR2004 the script's five
        raise ValueError("five arguments are wanted")
    _places((argv[0], "properties"), (argv[1], "jks"), (argv[4], "csr"))
    if not (argv[3].isascii() and argv[3].isdigit() and len(argv[3]) < 7 and 0 < int(argv[3]) <= LONGEST_DAYS):  # noqa: PLR2004 digits
        raise ValueError("the days are no number of days")
    return Setup(argv[4], f"{argv[4].removesuffix('.csr')}.key")


def imported(argv: Sequence[str]) -> Import:
    """Properties, password, keystore, mode, then path and text three times; ValueError if one of them is none."""
    words = [word for word in argv if word != "null"]
    if len(words) not in (9, 10) or words[3] not in ("ssh", "agent"):
        raise ValueError("ten arguments are wanted")
    _places((words[0], "properties"), (words[2], "jks"), (words[4], "crt"), (words[6], "crt"), (words[8], "key"))
    texts = [pem(words[5]), pem(words[7]), pem(words[9] if len(words) > 9 else "")]  # noqa: PLR2004 the key may be missing
    if not texts[0] or not texts[1]:
        raise ValueError("no certificate")
    return Import((words[4], texts[0]), (words[6], texts[1]), (words[8], texts[2]))


def pem(word: str) -> str:
    """PEM from an argument, where `^` stands for a line's end and `~` for a blank; empty for none.  ValueError."""
    text = word.strip('"').replace("^", "\n").replace("~", " ").strip()
    if not text:
        return ""
    text += "\n"
    if not _PEM.fullmatch(re.sub(r"\n\n+", "\n", text)):
        raise ValueError("a text is not PEM")
    return re.sub(r"\n\n+", "\n", text)


def _places(*wanted: tuple[str, str]) -> None:
    for path, kind in wanted:
        match = _PLACE.fullmatch(path)
        if not match or match[3] != kind:
            raise ValueError(f"{path[:120]!r} is no {kind} file in {HOME}")
