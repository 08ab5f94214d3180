"""The hypervisor's boot line as keys and values.  Pure."""

import re
from base64 import b64encode

import msgspec

_WORD = re.compile(r"[^ \t\r\n\v\f\0]+")
_LINE = re.compile(r"[^\r\n]+")


def parse(text: str) -> dict[str, str]:
    """Keys and values of `key=value key=value …`; a value may hold `=` (base64), a word without one is its own value.

    Nothing is quoted or escaped: words are parted by ASCII blanks, line ends of any kind and NUL (Hyper-V fills up with
    it), and every other character means itself.  KVM's older form has `pubkey:` and `cmdline:` lines and `%` for blanks
    (WIRE 7); its key becomes `authorized_key`, as newer lines have it.  Of a repeated key the first counts: of a
    redundant pair's two contradicting states the first is the router's own.
    """
    lines = _LINE.findall(text.removeprefix("\ufeff"))
    old = [one.removeprefix("cmdline:").replace("%", " ") for one in lines if one.startswith("cmdline:")]
    found: dict[str, str] = {}
    for word in _WORD.findall(" ".join(old or lines)):
        key, equals, value = word.partition("=")
        found.setdefault(key, value if equals else key)
    if old:
        for key in (one.removeprefix("pubkey:").strip() for one in lines if one.startswith("pubkey:")):
            found.setdefault("authorized_key", b64encode(key.encode("utf-8", "replace")).decode())
    return found


def is_boot_line(text: str) -> bool:
    """Whether this is one at all: each says what type of router this is to be."""
    return "type" in parse(text)


def command(text: str) -> bytes:
    """The boot line as a message."""
    return msgspec.json.encode({"type": "cmdline", "cmd_line": parse(text)})
