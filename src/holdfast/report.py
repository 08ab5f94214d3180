"""Changes, refusals and troubles as lines that people and machines read.  Pure."""

import re
from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import Any

from holdfast.desired import Desired, entries
from holdfast.login import Login
from holdfast.state import (
    Address,
    Change,
    Elements,
    File,
    Flows,
    Handover,
    Key,
    Leases,
    PolicyRule,
    Resource,
    Route,
    Ruleset,
    Unit,
)
from holdfast.swanctl import Connection
from holdfast.usage import Usage

MASK = "(secret)"
SHOWN = 20
"""How many lines of one file or entries of one set an answer spells out; the rest is counted."""


def change_lines(change: Change, wanted: Desired) -> Iterator[str]:
    """One line per change, per entry for sets, with who brought it."""
    resource = change.resource
    if isinstance(resource, Elements):
        yield from _element_lines(resource.set, entries(change.before), entries(change.after), wanted)
        return
    sign = "+" if change.before is None else "-" if change.after is None else "~"
    origin = wanted.origins.get(change.key, "nothing asks for it")
    yield f"{sign} {describe(resource)}{_difference(change)}  [{origin}]"


def describe(resource: Resource) -> str:
    """A resource in a few words."""
    words = _WORDS.get(type(resource))
    return words(resource) if words else f"{type(resource).__name__.lower()} {' '.join(resource.key[1:])}"


def _address(address: Address) -> str:
    kept = f" kept by {address.keeper}" if address.keeper else ""
    return f"address {address.device} {address.interface}{kept}"


def _route(route: Route) -> str:
    way = f"via {route.gateway} " if route.gateway else ""
    out = f"dev {route.device}" if route.device else route.kind
    out += f" src {route.source}" if route.source else ""
    return f"route {route.destination} {way}{out} table {route.table}"


def _policy_rule(rule: PolicyRule) -> str:
    mark = f" fwmark {rule.mark:#x}/{rule.mask:#x}" if rule.mask else ""
    source = f" from {rule.source}" if rule.source else ""
    return f"rule {rule.priority}{source}{mark} table {rule.table}"


_WORDS: dict[type[Resource], Callable[[Any], str]] = {
    Address: _address,
    Flows: lambda flows: f"connections of {flows.network}",
    Handover: lambda handover: f"connections handed over for {handover.role}",
    Leases: lambda leases: f"leases of {leases.path}",
    Login: lambda login: f"password of {login.account}",
    PolicyRule: _policy_rule,
    Route: _route,
    Ruleset: lambda _: "firewall structure",
    Usage: lambda usage: f"usage counters of {', '.join(one.device or one.nic for one in usage.nics) or 'no nic'}",
}


def _element_lines(name: str, before: dict[str, str], after: dict[str, str], wanted: Desired) -> Iterator[str]:
    gone = [f"- {_entry(name, key, before[key])}  [nothing asks for it]" for key in before if key not in after]
    new = []
    for key, value in after.items():
        if before.get(key) != value:
            sign = "~" if key in before else "+"
            new.append(f"{sign} {_entry(name, key, value)}  [{wanted.elements.get((name, key), 'firewall')}]")
    lines = gone + new
    yield from lines[:SHOWN]
    if len(lines) > SHOWN:
        yield f"  … and {len(lines) - SHOWN} more entries of {name}"


def _entry(name: str, key: str, value: str) -> str:
    return f"firewall {name} {{ {key}{f' : {value}' if value else ''} }}"


def _difference(change: Change) -> str:
    before, after = change
    if before is None or after is None:
        return ""
    if isinstance(before, File) and isinstance(after, File):
        if before.text == after.text:
            return f" mode {before.mode:o} -> {after.mode:o}"
        return f" ({MASK})" if after.secret else _text_difference(before.text, after.text)
    if isinstance(before, Leases) and isinstance(after, Leases):
        return f" release {', '.join(sorted({*before.allowed} - {*after.allowed}))}"
    if isinstance(before, Unit) and isinstance(after, Unit):
        return " start" if not before.running else " stop" if not after.running else _hears(before, after)
    fields = [
        f"{name} {getattr(before, name)} -> {getattr(after, name)}"
        for name in before.__struct_fields__
        if getattr(before, name) != getattr(after, name)
        and not isinstance(before, Connection | Login | Ruleset | Usage)
    ]
    return f" {', '.join(fields)}" if fields else ""


def _hears(before: Unit, after: Unit) -> str:
    return " restart" if before.restart != after.restart else " reload"


def _text_difference(before: str, after: str) -> str:
    import difflib  # noqa: PLC0415 most runs change no file, and start-up counts

    lines = [
        line
        for line in difflib.unified_diff(before.splitlines(), after.splitlines(), lineterm="", n=0)
        if not line.startswith(("---", "+++", "@@"))
    ]
    more = f" … {len(lines) - 3} more lines" if len(lines) > 3 else ""  # noqa: PLR2004 a glance, not the file
    return f" ({'; '.join(lines[:3])}{more})"


def changes_text(changes: Iterable[Change], wanted: Desired) -> list[str]:
    """All lines of all changes."""
    return [line for change in changes for line in change_lines(change, wanted)]


def changes_json(changes: Iterable[Change], wanted: Desired) -> list[dict[str, Any]]:
    """The same for programs: kind, key, origin, before, after; secret texts masked, sets as entries that differ."""
    return [
        {
            "kind": change.key[0],
            "key": list(change.key[1:]),
            "origin": wanted.origins.get(change.key, ""),
            **_sides(change, wanted),
        }
        for change in changes
    ]


def _sides(change: Change, wanted: Desired) -> dict[str, Any]:
    if not isinstance(change.resource, Elements):
        return {"before": _plain(change.before), "after": _plain(change.after)}
    before, after = entries(change.before), entries(change.after)
    name = change.resource.set
    return {
        "removed": {key: value for key, value in before.items() if after.get(key) != value},
        "added": {
            key: {"value": value, "origin": wanted.elements.get((name, key), "")}
            for key, value in after.items()
            if before.get(key) != value
        },
    }


def _plain(resource: Resource | None) -> dict[str, Any] | None:
    if resource is None:
        return None
    fields = {name: getattr(resource, name) for name in resource.__struct_fields__}
    if isinstance(resource, File) and resource.secret:
        fields["text"] = MASK
    # By a digest of a text that holds a key, a weak key can be guessed.
    hidden = {Login: ("hash",), Connection: ("digest",), Unit: ("restart", "reload")}.get(type(resource), ())
    fields |= dict.fromkeys((name for name in hidden if fields[name]), MASK)
    return fields


def trouble_lines(trouble: Mapping[Key, str], wanted: Desired) -> list[str]:
    """What is not as wanted, and why."""
    return [f"{' '.join(key)}: {reason}  [{wanted.origins.get(key, 'firewall')}]" for key, reason in trouble.items()]


_SECRET = re.compile(
    r"passw|psk|preshared_key|secret|private|cert|(\A|_)key\Z|vm_metadata|userdata|configuration|authorized_key"
)


def masked(document: Any) -> Any:
    """A bag's JSON for human eyes: values under names that tell of a secret are hidden."""
    if isinstance(document, dict):
        return {
            name: MASK if value and _SECRET.search(name) and not isinstance(value, bool) else masked(value)
            for name, value in document.items()
        }
    if isinstance(document, list):
        return [masked(value) for value in document]
    return document
