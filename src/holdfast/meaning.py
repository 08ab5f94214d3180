"""What a version of Holdfast makes of what is stored, told so that another version can be compared with it.  Pure."""

import hashlib
from collections.abc import Iterable, Iterator, Mapping
from typing import Any

from msgspec import Struct

from holdfast.desired import Desired
from holdfast.state import Change, File, Resource

SHOWN = 20
"""How many differences are told one by one."""
_LONGEST = 60


class Meaning(Struct, frozen=True, kw_only=True):
    """One version's answer.  Fields that a version does not know are passed over, those that it lacks are empty.

    `things`: the desired state, fields by key, secret texts as digests; `left`: keys of what differs on the machine.
    """

    version: str
    generation: int = 0
    things: dict[str, dict[str, Any]] = {}
    pending: tuple[str, ...] = ()
    conflicts: tuple[str, ...] = ()
    left: tuple[str, ...] = ()


def meaning(version: str, generation: int, wanted: Desired, left: Iterable[Change]) -> Meaning:
    """Put an answer together: `wanted` from the generation, `left` what a plan without a command would change."""
    return Meaning(
        version=version,
        generation=generation,
        things={" ".join(key): _fields(resource) for key, resource in sorted(wanted.state.items())},
        pending=tuple(f"{part.what} waits for {part.waits_for}" for _, part in wanted.pending),  # type: ignore[union-attr]
        conflicts=wanted.conflicts,
        left=tuple(" ".join(change.key) for change in left),
    )


def _fields(resource: Resource) -> dict[str, Any]:
    fields = {name: getattr(resource, name) for name in resource.__struct_fields__}
    if isinstance(resource, File) and resource.secret:
        fields["text"] = f"secret {hashlib.sha256(resource.text.encode('utf-8', 'surrogatepass')).hexdigest()}"
    return fields


def differences(old: Meaning, new: Meaning) -> list[str]:
    """A line for each thing that the new version wants otherwise; no line repeats a secret text."""
    lines = [f"- {key}" for key in old.things if key not in new.things]
    lines += [f"+ {key}" for key in new.things if key not in old.things]
    for key, after in new.things.items():
        before = old.things.get(key, after)
        lines += [f"~ {key}: {what}" for what in _changed(before, after)]
    lines += [f"conflict: {text}" for text in new.conflicts if text not in old.conflicts]
    lines += [f"pending: {text}" for text in new.pending if text not in old.pending]
    return lines


def _changed(before: Mapping[str, Any], after: Mapping[str, Any]) -> Iterator[str]:
    for field in sorted(before.keys() | after.keys()):
        one, other = before.get(field), after.get(field)
        if one == other:
            continue
        if isinstance(one, dict) and isinstance(other, dict):
            gone = sum(1 for name in one if other.get(name) != one[name])
            come = sum(1 for name in other if one.get(name) != other[name])
            yield f"{field}: {gone} entries go, {come} come"
        elif len(f"{one}{other}") > _LONGEST:
            yield f"{field} is another"
        else:
            yield f"{field} {one!r} -> {other!r}"


def shown(lines: list[str]) -> list[str]:
    """The same for human eyes: what is long is cut."""
    return [*lines[:SHOWN], *([f"… and {len(lines) - SHOWN} more"] if len(lines) > SHOWN else [])]
