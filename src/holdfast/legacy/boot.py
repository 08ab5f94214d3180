"""The boot line, from its bag, or from its own file where that is lost.  Pure."""

from collections.abc import Mapping

from holdfast.boot.line import parse
from holdfast.legacy.reading import Bag, Json, Notes, text

_OF_THE_OLD_AGENT = ("redundant_master", "redundant_primary")
"""What the old agent noted in the boot line's bag: its own role, which is keepalived's to say."""


def line(bags: Mapping[str, Bag], written: str, notes: Notes) -> dict[str, str]:
    """Keys and values of the boot line; empty if there is none."""
    config = bags.get("cmdline", {}).get("config")
    if isinstance(config, dict) and text(config.get("type")):
        found = {key: said for key, value in config.items() if (said := text(value)) is not None}
    elif (found := parse(written)) and "type" in found:
        notes.unread[:] = [lost for lost in notes.unread if not lost.startswith("cmdline:")]
        notes.repair("cmdline", "the bag holds no boot line: taken from /var/cache/cloud/cmdline")
    else:
        notes.lost("cmdline", "no boot line: nobody knows what kind of router this is")
        return {}
    for key in _OF_THE_OLD_AGENT:
        if found.pop(key, None) is not None:
            notes.repair("cmdline", f"{key} was the old agent's note of its role: left out")
    if "controlip" in found and "eth0ip" not in found:
        # cosmic's newer routers know their control nic by name alone.
        found |= {"eth0ip": found["controlip"], "eth0mask": found.get("controlmask", "255.255.0.0")}
        notes.repair("cmdline", "controlip is eth0's address: cosmic says it so")
    return found


def message(boot_line: dict[str, str]) -> list[Json]:
    """The message."""
    return [{"type": "cmdline", "cmd_line": boot_line}] if boot_line else []
