"""Changes of the firewall as text for nft(8): what goes first, what goes in one transaction, what nft complains of."""

import re
from collections.abc import Iterator, Sequence

from msgspec import Struct
from msgspec.structs import replace

from holdfast import program
from holdfast.converge import Failure
from holdfast.state import Change, Elements, Key, Resource

SETS = re.compile(r"^\t(set|map) (\S+) \{\n(.*?)^\t\}\n", re.MULTILINE | re.DOTALL)
_CHAIN = re.compile(r"^\tchain (\S+) \{", re.MULTILINE)
_LINE = re.compile(r"/dev/stdin:(\d+):[\d-]+: Error: (.*?)(?:; |$)")

_DECLARED = re.compile(r"^\t(?:set|map) (\S+) \{")

Lines = list[tuple[str, Key]]


class Note(Struct, frozen=True):
    """What was there when last seen; `generation` 0 means look again, an empty `listing` that there is no table."""

    generation: int = 0
    epoch: int = 0
    text: str = ""
    listing: str = ""
    elements: dict[str, dict[str, str]] = {}


def difference(held: dict[str, str], wanted: Resource | None) -> tuple[list[str], dict[str, str]]:
    """Return keys that go and entries that come; an entry with another value does both."""
    entries = wanted.entries if isinstance(wanted, Elements) else {}
    gone = [key for key, value in held.items() if entries.get(key) != value]
    return gone, {key: value for key, value in entries.items() if held.get(key) != value}


def rebuilt_sets(note: Note, changes: Sequence[Change]) -> frozenset[str]:
    """Name the interval sets to be made anew, as deleting one by one would hold the kernel for more than a second.

    Not sooner: a packet that is in the middle of its look-ups at that moment may miss the old set and be dropped.
    """
    names = set()
    intervals = {name for _, name, body in SETS.findall(note.listing) if "flags interval" in body}
    for change in changes:
        if isinstance(change.after, Elements) and change.after.set in intervals:
            held = note.elements.get(change.after.set, {})
            gone, _ = difference(held, change.after)
            if len(gone) * len(held) * 5 > len(change.after.entries) * 85 + 1_000_000:  # µs, as measured
                names.add(change.after.set)
    return frozenset(names)


def prelude(table: str, note: Note, fresh: Note, changes: Sequence[Change], *, daring: bool) -> Lines:
    """What may come before the rest, in a transaction of its own: new sets, and interval entries that only come.

    The kernel puts new chains in force before it publishes what a transaction put into interval sets: a packet that is
    judged in between would miss it.  With the new entries published first, each packet has the old verdict or the new
    one.  `daring`: also into sets that lose entries, which nft refuses where the two overlap.
    """
    if not note.listing or not fresh.text or (fresh.text == note.text and fresh.epoch == note.epoch):
        return []
    there = {name for _, name, _ in SETS.findall(note.listing)}
    new_sets = [line for line in fresh.text.splitlines() if (m := _DECLARED.match(line)) and m[1] not in there]
    lines: Lines = []
    if new_sets:
        lines += [(line, ("Ruleset",)) for line in (f"table inet {table} {{", *new_sets, "}")]
    for change, coming in _coming(note, fresh, changes, daring=daring):
        lines += _elements("add", table, change.key[1], _written(coming), change.key)
    return lines


def come(note: Note, fresh: Note, changes: Sequence[Change], *, daring: bool) -> Note:
    """What is there once the prelude was taken."""
    elements = dict(note.elements)
    for change, coming in _coming(note, fresh, changes, daring=daring):
        name = change.key[1]
        elements[name] = {**elements.get(name, {}), **coming}
    return replace(note, elements=elements)


def _coming(
    note: Note, fresh: Note, changes: Sequence[Change], *, daring: bool
) -> Iterator[tuple[Change, dict[str, str]]]:
    intervals = {m[1] for line in fresh.text.splitlines() if (m := _DECLARED.match(line)) and "flags interval" in line}
    for change in changes:
        if isinstance(change.after, Elements) and change.after.set in intervals:
            gone, new = difference(note.elements.get(change.after.set, {}), change.after)
            coming = {key: value for key, value in new.items() if key not in gone}
            if coming and (daring or not gone):
                yield change, coming


def transaction(table: str, note: Note, fresh: Note, changes: Sequence[Change], rebuilt: frozenset[str]) -> Lines:
    """All that makes `note` into `fresh`, in one transaction."""
    if not fresh.text:
        return [(f"delete table inet {table}", ())]
    lines: Lines = []
    last: Lines = []
    kinds = {name: kind for kind, name, _ in SETS.findall(note.listing)}
    if fresh.text != note.text or rebuilt:
        lines += [(f"add table inet {table}", ()), (f"flush table inet {table}", ())]
        lines += [(f"delete {kinds[name]} inet {table} {name}", ("Elements", name)) for name in sorted(rebuilt)]
        lines += [(line, ("Ruleset",)) for line in fresh.text.splitlines()]
        chains = set(_CHAIN.findall(note.listing)) - set(_CHAIN.findall(fresh.text))
        last += [(f"delete chain inet {table} {name}", ("Ruleset",)) for name in sorted(chains)]
    for change in changes:
        if isinstance(change.resource, Elements):
            name, key = change.resource.set, change.key
            if change.after is None:
                last += [(f"delete {kinds[name]} inet {table} {name}", key)] if name in kinds else []
                continue
            gone, new = difference({} if name in rebuilt else note.elements.get(name, {}), change.after)
            lines += _elements("delete", table, name, gone, key)
            last = [*_elements("add", table, name, _written(new), key), *last]
    if fresh.epoch != note.epoch or fresh.text != note.text or rebuilt:
        lines += settle(table, fresh)
    return lines + last


def settle(table: str, fresh: Note) -> Lines:
    """What follows a transaction that moved the epoch, in one of its own: the epoch once more, and nothing else.

    The kernel puts new chains in force before it publishes what interval sets lose: a packet that is judged in between
    finds the old entry and is stamped with the new epoch.  A busy flow would hardly ever be cut.
    """
    return [(line, ("Ruleset",)) for line in program.trust(fresh.epoch, table).splitlines()]


def whole(table: str, fresh: Note) -> Lines:
    """A table of our own in place of whatever bears its name."""
    lines: Lines = [(f"delete table inet {table}", ())]
    lines += [(line, ("Ruleset",)) for line in fresh.text.splitlines()]
    for name, entries in fresh.elements.items():
        lines += _elements("add", table, name, _written(entries), ("Elements", name))
    return lines + settle(table, fresh)


def _written(entries: dict[str, str]) -> list[str]:
    return [f"{key} : {value}" if value else key for key, value in entries.items()]


def _elements(verb: str, table: str, name: str, items: Sequence[str], key: Key) -> Lines:
    """One line an element, so that nft's complaint names it by its line."""
    if not items:
        return []
    return [(f"{verb} element inet {table} {name} {{", key), *[(f"{item},", key) for item in items], ("}", key)]


def named(said: str, lines: Lines) -> dict[Key, str]:
    """Find the resources that nft complains of, by the lines that it names."""
    named: dict[Key, str] = {}
    for number, reason in _LINE.findall(said):
        text, key = lines[int(number) - 1] if int(number) <= len(lines) else ("", ())
        named.setdefault(key, f"{text.strip().rstrip(',')}: {reason}")
    return named


def failures(said: str, lines: Lines, changes: Sequence[Change]) -> Iterator[Failure]:
    """All changes of a transaction that nft refused; what it names carries its words."""
    causes = named(said, lines)
    cause = "; ".join(causes.values()) or said
    for change in changes:
        yield Failure(change.key, causes.get(change.key) or f"not applied, same transaction: {cause}")
