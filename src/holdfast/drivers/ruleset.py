"""The firewall: one table, changed element by element in one transaction."""

import re
import secrets
import socket
import struct
from collections.abc import Iterable, Iterator, Sequence

import msgspec
from msgspec import Struct

from holdfast import nft
from holdfast.converge import Failure
from holdfast.marks import Marks
from holdfast.run import CommandFailed, run
from holdfast.state import Change, Elements, Key, Resource, Ruleset, State

_NETLINK_NETFILTER = 12
_GETGEN = 10 << 8 | 16  # subsystem nftables, message NFT_MSG_GETGEN
_REQUEST = 1
_ERROR = 2
_GEN_ID = 1

_SET = re.compile(r"^\t(set|map) (\S+) \{\n(.*?)^\t\}\n", re.MULTILINE | re.DOTALL)
_CHAIN = re.compile(r"^\tchain (\S+) \{", re.MULTILINE)
_HELD = re.compile(r"^\t\telements = \{ (.*?) \}\n", re.MULTILINE | re.DOTALL)
_SHAPE = re.compile(r"^\t\ttype(?:of)? (.*?)(?: : .*)?$", re.MULTILINE)
_EXTRA = re.compile(r" (?:comment|timeout|expires|counter|limit|quota) .*?(?= : |$)")
_EPOCH = re.compile(r"chain judged \{\n\t\tct mark & 0x[0-9a-f]{8} == (0x[0-9a-f]{8}) accept\n")
_LINE = re.compile(r"/dev/stdin:(\d+):[\d-]+: Error: (.*?)(?:; |$)")
_PROTOCOLS = {"6": "tcp", "17": "udp"}


class _Note(Struct, frozen=True):
    """What was there when last seen; `generation` 0 means look again, an empty `listing` that there is no table."""

    generation: int = 0
    epoch: int = 0
    text: str = ""
    listing: str = ""
    elements: dict[str, dict[str, str]] = {}


_Lines = list[tuple[str, Key]]


def generation() -> int:
    """Return the id of this network namespace's ruleset: one more after each transaction of anybody.  OSError."""
    with socket.socket(socket.AF_NETLINK, socket.SOCK_RAW, _NETLINK_NETFILTER) as kernel:
        kernel.bind((0, 0))
        kernel.send(struct.pack("=IHHIIBBH", 20, _GETGEN, _REQUEST, 1, 0, 0, 0, 0))
        said = kernel.recv(8192)
    if struct.unpack_from("=H", said, 4)[0] == _ERROR:
        raise OSError(-struct.unpack_from("=i", said, 16)[0], "nftables generation")
    at = 20
    while at + 8 <= len(said):
        length, kind = struct.unpack_from("=HH", said, at)
        if kind & 0x3FFF == _GEN_ID:
            return int(struct.unpack_from("!I", said, at + 4)[0])
        at += (length + 3) & ~3
    raise OSError("nftables generation: no id in the answer")


class Rulesets:
    """Keeps one table of the network namespace that the process is in."""

    kinds: tuple[type[Resource], ...] = (Ruleset, Elements)

    def __init__(self, marks: Marks, table: str = nft.TABLE) -> None:
        self.marks = marks
        self.table = table
        self._name = f"ruleset.{table}"

    def observe(self, desired: State) -> Iterator[Resource]:  # noqa: ARG002 the whole table is ours
        """Yield structure and sets; starts no program while the ruleset's generation is the one remembered."""
        note = self._seen()
        if note.listing:
            yield Ruleset(note.text)
            for name, entries in note.elements.items():
                yield Elements(name, entries)

    def check(self, changes: Sequence[Change]) -> Iterable[Failure]:  # noqa: ARG002
        """Ask nothing: a transaction that is refused has changed nothing."""
        return ()

    def apply(self, changes: Sequence[Change]) -> Iterator[Failure]:
        """Carry out all changes in one transaction, or none; what nft names as the cause carries nft's words."""
        if not changes:
            return
        note = self._seen()
        before = generation()
        fresh = _after(note, changes)
        rebuilt = _rebuilt(note, changes)
        lines = _transaction(self.table, note, fresh, changes, rebuilt)
        try:
            try:
                self._commit(lines)
            except CommandFailed as error:
                if not note.listing or ("Ruleset",) not in _named(str(error), lines):
                    raise
                # A set or a hook of that name has another shape here, as after an upgrade: the table anew, whole.
                lines = _whole(self.table, fresh)
                self._commit(lines)
        except CommandFailed as error:
            yield from _failures(str(error), lines, changes)
            return
        after = generation()
        if fresh.text and (fresh.text != note.text or rebuilt):
            fresh = msgspec.structs.replace(fresh, listing=_blank(self._list(terse=True))[0])
        undisturbed = before == note.generation and after == before + 1 == generation()
        self._remember(msgspec.structs.replace(fresh, generation=after if undisturbed else 0))

    def _commit(self, lines: _Lines) -> None:
        run(["nft", "-f", "-"], "".join(f"{text}\n" for text, _ in lines))

    def _remember(self, note: _Note) -> None:
        self.marks.write(self._name, msgspec.msgpack.encode(note))

    def _list(self, *, terse: bool = False) -> str:
        try:
            return run(["nft", "-n", "-s", *(["-t"] if terse else []), "list", "table", "inet", self.table])
        except CommandFailed as error:
            if "No such file or directory" in str(error):
                return ""
            raise

    def _seen(self) -> _Note:
        """Return what is there: as remembered if nobody has written since, else by looking."""
        try:
            note = msgspec.msgpack.decode(self.marks.read(self._name), type=_Note)
        except msgspec.DecodeError:
            note = _Note()
        before = generation()
        if note.generation == before:
            return note
        listing, elements = _parse(self._list())
        structure, epoch = _blank(listing)
        known = structure == note.listing and note.text
        seen = _Note(
            generation=before if generation() == before else 0,
            epoch=epoch or note.epoch or secrets.randbelow(nft.EPOCHS) + 1,
            text=note.text if known else structure,
            listing=structure,
            elements=elements,
        )
        self._remember(seen)
        return seen


def _blank(listing: str) -> tuple[str, int]:
    """Take the epoch out of a listing: what differs by it alone is the same structure."""
    found = _EPOCH.search(listing)
    if not found:
        return listing, 0
    stamp = int(found[1], 16)
    kept = f"{nft.mark(nft.WAY | nft.VPN | stamp)} | {found[1]}"  # nft lists the mask with the new bits let through
    return listing.replace(f"== {found[1]}", "== EPOCH").replace(kept, "EPOCH"), stamp // (nft.EPOCH & -nft.EPOCH)


def _parse(listing: str) -> tuple[str, dict[str, dict[str, str]]]:
    """Split a listing into its structure, as `nft -t` shows it, and what each set holds, in canonical text."""
    elements: dict[str, dict[str, str]] = {}
    for _, name, body in _SET.findall(listing):
        held = _HELD.search(body)
        shape = _SHAPE.search(body)
        fields = shape[1].split(" . ") if shape else []
        at = next((at for at, field in enumerate(fields) if field in ("meta l4proto", "inet_proto")), -1)
        elements[name] = dict(_entries(held[1], at)) if held else {}
    return _HELD.sub("", listing), elements


def _entries(text: str, protocol: int) -> Iterator[tuple[str, str]]:
    extra = _EXTRA.search(text)
    for item in text.split(","):
        entry = item.strip()
        if extra:
            entry = _EXTRA.sub("", entry)
        key, _, value = entry.partition(" : ")
        if protocol >= 0:
            parts = key.split(" . ")
            parts[protocol] = _PROTOCOLS.get(parts[protocol], parts[protocol])
            key = " . ".join(parts)
        yield key, value


def _after(note: _Note, changes: Sequence[Change]) -> _Note:
    """Work out what will be there: the note as it is to be, its listing and generation not yet known."""
    text, elements, revoked = note.text, dict(note.elements), False
    for change in changes:
        if isinstance(change.resource, Ruleset):
            text, revoked = change.after.text if isinstance(change.after, Ruleset) else "", True
        elif isinstance(change.resource, Elements):
            name = change.resource.set
            gone, new = _difference(elements.get(name, {}), change.after)
            revoked |= bool(gone) and nft.revokes(name, removed=True)
            revoked |= bool(new) and nft.revokes(name, removed=False)
            if isinstance(change.after, Elements):
                elements[name] = change.after.entries
            else:
                elements.pop(name, None)
    epoch = note.epoch % nft.EPOCHS + 1 if revoked else note.epoch
    return _Note(0, epoch, text, note.listing if text else "", elements if text else {})


def _difference(held: dict[str, str], wanted: Resource | None) -> tuple[list[str], dict[str, str]]:
    """Return keys that go and entries that come; an entry with another value does both."""
    entries = wanted.entries if isinstance(wanted, Elements) else {}
    gone = [key for key, value in held.items() if entries.get(key) != value]
    return gone, {key: value for key, value in entries.items() if held.get(key) != value}


def _rebuilt(note: _Note, changes: Sequence[Change]) -> frozenset[str]:
    """Name the interval sets to be made anew, as deleting one by one would hold the kernel for more than a second.

    Not sooner: a packet that is in the middle of its look-ups at that moment may miss the old set and be dropped.
    """
    names = set()
    intervals = {name for _, name, body in _SET.findall(note.listing) if "flags interval" in body}
    for change in changes:
        if isinstance(change.after, Elements) and change.after.set in intervals:
            held = note.elements.get(change.after.set, {})
            gone, _ = _difference(held, change.after)
            if len(gone) * len(held) * 5 > len(change.after.entries) * 85 + 1_000_000:  # µs, as measured
                names.add(change.after.set)
    return frozenset(names)


def _transaction(table: str, note: _Note, fresh: _Note, changes: Sequence[Change], rebuilt: frozenset[str]) -> _Lines:
    if not fresh.text:
        return [(f"delete table inet {table}", ())]
    lines: _Lines = []
    last: _Lines = []
    kinds = {name: kind for kind, name, _ in _SET.findall(note.listing)}
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
            gone, new = _difference({} if name in rebuilt else note.elements.get(name, {}), change.after)
            lines += _elements("delete", table, name, gone, key)
            last = [*_elements("add", table, name, _written(new), key), *last]
    if fresh.epoch != note.epoch or fresh.text != note.text or rebuilt:
        lines += [(line, ("Ruleset",)) for line in nft.trust(fresh.epoch, table).splitlines()]
    return lines + last


def _whole(table: str, fresh: _Note) -> _Lines:
    lines: _Lines = [(f"delete table inet {table}", ())]
    lines += [(line, ("Ruleset",)) for line in fresh.text.splitlines()]
    for name, entries in fresh.elements.items():
        lines += _elements("add", table, name, _written(entries), ("Elements", name))
    return lines + [(line, ("Ruleset",)) for line in nft.trust(fresh.epoch, table).splitlines()]


def _written(entries: dict[str, str]) -> list[str]:
    return [f"{key} : {value}" if value else key for key, value in entries.items()]


def _elements(verb: str, table: str, name: str, items: Sequence[str], key: Key) -> _Lines:
    """One line an element, so that nft's complaint names it by its line."""
    if not items:
        return []
    return [(f"{verb} element inet {table} {name} {{", key), *[(f"{item},", key) for item in items], ("}", key)]


def _named(said: str, lines: _Lines) -> dict[Key, str]:
    """Find the resources that nft complains of, by the lines that it names."""
    named: dict[Key, str] = {}
    for number, reason in _LINE.findall(said):
        text, key = lines[int(number) - 1] if int(number) <= len(lines) else ("", ())
        named.setdefault(key, f"{text.strip().rstrip(',')}: {reason}")
    return named


def _failures(said: str, lines: _Lines, changes: Sequence[Change]) -> Iterator[Failure]:
    named = _named(said, lines)
    cause = "; ".join(named.values()) or said
    for change in changes:
        yield Failure(change.key, named.get(change.key) or f"not applied, same transaction: {cause}")
