"""A router's state with MACs in place of device names, for routers whose nics came in another order."""

import json
import re
from collections.abc import Mapping
from typing import Any

_TABLES = 100
_BLOCK = re.compile(r"(?<=\n)(?=\t(?:set|map|chain) )")
_ELEMENTS = re.compile(r"elements = \{ (.*?) \}\n", re.DOTALL)


def by_mac(state: Mapping[str, Any], macs: Mapping[str, str]) -> dict[str, Any]:
    """Name everything in a site's state after the nics' MACs, whatever follows from a number too."""
    called = {nic: f"nic{mac.replace(':', '')}" for nic, mac in macs.items()}

    def named(text: str) -> str:
        return re.sub(r"eth\d+", lambda found: called.get(found[0], found[0]), text)

    def numbered(text: str) -> dict[str, Any]:
        found: dict[str, Any] = json.loads(named(text))
        hundreds, number = divmod(int(found.get("priority", 0)), _TABLES)
        if hundreds in (10, 11):
            found["priority"] = f"{hundreds} {called[f'eth{number}']}"
        nic = f"eth{int(found.get('table', 0)) - _TABLES}"
        found["table"] = called.get(nic, found.get("table"))
        return found

    texts = {}
    for path, (mode, text) in state["files"].items():
        lines = named(text).splitlines()
        # Line 1 of a table's is its number, which is the device's.
        texts[path] = (mode, sorted(re.sub(r"^\d+\t(?=Table_)", "", line) for line in lines))
    return {
        "links": {named(device): link for device, link in state["links"].items()},
        "addresses": sorted((named(device), interface) for device, interface in state["addresses"]),
        "routes": sorted(json.dumps(numbered(route), sort_keys=True) for route in state["routes"]),
        "rules": sorted(json.dumps(numbered(rule), sort_keys=True) for rule in state["rules"]),
        "ruleset": sorted(block for table in state["ruleset"] for block in _blocks(named(table))),
        "forward": state["forward"],
        "files": texts,
    }


def _blocks(table: str) -> list[str]:
    def in_order(found: re.Match[str]) -> str:
        return f"elements = {{ {', '.join(sorted(item.strip() for item in found[1].split(',')))} }}\n"

    return [_ELEMENTS.sub(in_order, block).rstrip("}\n\t ") for block in _BLOCK.split(table)]


def difference(one: Mapping[str, Any], other: Mapping[str, Any]) -> dict[str, Any]:
    """What two such states do not share, part by part."""
    found: dict[str, Any] = {}
    for part in one:
        if one[part] != other[part]:
            both = [
                set(map(str, state[part].items() if isinstance(state[part], dict) else state[part]))
                for state in (one, other)
            ]
            found[part] = [sorted(both[0] - both[1]), sorted(both[1] - both[0])]
    return found
