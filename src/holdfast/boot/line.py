"""The hypervisor's boot line as keys and values.  Pure."""

import msgspec


def parse(text: str) -> dict[str, str]:
    """Keys and values of `key=value key=value …`; a value may hold `=` (base64), a word without one is its own value.

    KVM's older form has `pubkey:` and `cmdline:` lines and `%` for blanks (WIRE 7).  Of a repeated key the first
    counts: of a redundant pair's two contradicting states the first is the router's own.
    """
    lines = text.splitlines()
    old = [one.removeprefix("cmdline:").replace("%", " ") for one in lines if one.startswith("cmdline:")]
    line = " ".join(old or lines)
    found: dict[str, str] = {}
    for word in line.split():
        key, equals, value = word.partition("=")
        found.setdefault(key, value if equals else key)
    return found


def command(text: str) -> bytes:
    """The boot line as a message."""
    return msgspec.json.encode({"type": "cmdline", "cmd_line": parse(text)})
