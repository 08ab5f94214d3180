"""The firewall: one table, changed element by element in one transaction."""

import re
import socket
import struct
from collections.abc import Iterable, Iterator, Sequence

import msgspec
from msgspec.structs import replace

from holdfast import nft, program
from holdfast.converge import Failure
from holdfast.drivers.transaction import (
    SETS,
    Lines,
    Note,
    come,
    difference,
    failures,
    named,
    prelude,
    rebuilt_sets,
    settle,
    transaction,
    whole,
)
from holdfast.marks import Marks
from holdfast.run import CommandFailed, run
from holdfast.state import Change, Elements, Resource, Ruleset, State

_NETLINK_NETFILTER = 12
_GETGEN = 10 << 8 | 16  # subsystem nftables, message NFT_MSG_GETGEN
_REQUEST = 1
_ERROR = 2
_GEN_ID = 1

_HELD = re.compile(r"^\t\telements = \{ (.*?) \}\n", re.MULTILINE | re.DOTALL)
_SHAPE = re.compile(r"^\t\ttype(?:of)? (.*?)(?: : .*)?$", re.MULTILINE)
_EXTRA = re.compile(r" (?:comment|timeout|expires|counter|limit|quota) .*?(?= : |$)")
_EPOCH = re.compile(r"chain judged \{\n\t\tct mark & 0x[0-9a-f]{8} == (0x[0-9a-f]{8}) accept\n")
_UNSETTLED = "# flows may have been judged by what the sets held before\n"
_PROTOCOLS = {"6": "tcp", "17": "udp"}


def listed(table: str, *options: str) -> str:
    """Return what nft lists of one of our tables, with numbers and without counts; empty if it is not there."""
    try:
        return run(["nft", "-n", "-s", *options, "list", "table", "inet", table])
    except CommandFailed as error:
        if "No such file or directory" in str(error):
            return ""
        raise


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

    def observe(self, desired: State) -> Iterator[Resource]:
        """Yield structure and sets; starts no program while the ruleset's generation is the one remembered.

        Nothing where no firewall is wanted: one is exchanged for another and never taken away, so a router that does
        not know yet what it is stays as closed as it started.
        """
        if ("Ruleset",) not in desired:
            return
        note = self._seen()
        if note.listing:
            # Whoever was to settle the epoch has died: who asks is shown something to do.
            yield Ruleset(note.text if nft.is_settled(note.epoch) else f"{note.text}{_UNSETTLED}")
            for name, entries in note.elements.items():
                yield Elements(name, entries)

    def check(self, changes: Sequence[Change]) -> Iterable[Failure]:  # noqa: ARG002
        """Ask nothing: a transaction that is refused has changed nothing."""
        return ()

    def apply(self, changes: Sequence[Change]) -> Iterator[Failure]:
        """Carry out all changes in one transaction, or none; what nft names as the cause carries nft's words.

        Interval entries that only come are put in before it, see `prelude`.  After it the epoch moves once more, see
        `settle`.
        """
        if not changes:
            return
        note = self._seen()
        before = generation()
        fresh = _after(note, changes)
        early, commits = self._prepare(note, fresh, changes), 1
        if early is not note:
            note, commits = early, 2
        rebuilt = rebuilt_sets(note, changes)
        if rebuilt and fresh.epoch == note.epoch:
            fresh = replace(fresh, epoch=nft.unsettled(fresh.epoch))
        lines = transaction(self.table, note, fresh, changes, rebuilt)
        try:
            try:
                self._commit(lines)
            except CommandFailed as error:
                if not note.listing or ("Ruleset",) not in named(str(error), lines):
                    raise
                # A set or a hook of that name has another shape here, as after an upgrade: the table anew, whole.
                lines = whole(self.table, fresh)
                self._commit(lines)
            if fresh.epoch != note.epoch and fresh.text:
                fresh, commits = replace(fresh, epoch=nft.settled(fresh.epoch)), commits + 1
                lines = settle(self.table, fresh)
                self._commit(lines)
        except CommandFailed as error:
            yield from failures(str(error), lines, changes)
            return
        after = generation()
        if fresh.text and (fresh.text != note.text or rebuilt):
            fresh = replace(fresh, listing=_blank(listed(self.table, "-t"))[0])
        undisturbed = before == note.generation and after == before + commits == generation()
        self._remember(replace(fresh, generation=after if undisturbed else 0))

    def _prepare(self, note: Note, fresh: Note, changes: Sequence[Change]) -> Note:
        """Put in what may come early, as much of it as nft takes; return what is there then."""
        for daring in (True, False):
            lines = prelude(self.table, note, fresh, changes, daring=daring)
            if not lines:
                return note
            try:
                self._commit(lines)
            except CommandFailed:
                continue  # nothing of it was taken: entries overlap those that they replace
            return come(note, fresh, changes, daring=daring)
        return note

    def _commit(self, lines: Lines) -> None:
        run(["nft", "-f", "-"], "".join(f"{text}\n" for text, _ in lines))

    def _remember(self, note: Note) -> None:
        self.marks.write(self._name, msgspec.msgpack.encode(note))

    def _seen(self) -> Note:
        """Return what is there: as remembered if nobody has written since, else by looking."""
        try:
            note = msgspec.msgpack.decode(self.marks.read(self._name), type=Note)
        except msgspec.DecodeError:
            note = Note()
        before = generation()
        if note.generation == before:
            return note
        listing, elements = _parse(listed(self.table))
        structure, epoch = _blank(listing)
        known = structure == note.listing and note.text
        seen = Note(
            generation=before if generation() == before else 0,
            epoch=epoch or note.epoch or _any_epoch(),
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
    for _, name, body in SETS.findall(listing):
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


def _after(note: Note, changes: Sequence[Change]) -> Note:
    """Work out what will be there: the note as it is to be, its listing and generation not yet known."""
    text, elements, revoked = note.text, dict(note.elements), False
    for change in changes:
        if isinstance(change.resource, Ruleset):
            text, revoked = change.after.text if isinstance(change.after, Ruleset) else "", True
        elif isinstance(change.resource, Elements):
            name = change.resource.set
            gone, new = difference(elements.get(name, {}), change.after)
            revoked |= bool(gone) and program.revokes(name, removed=True)
            revoked |= bool(new) and program.revokes(name, removed=False)
            if isinstance(change.after, Elements):
                elements[name] = change.after.entries
            else:
                elements.pop(name, None)
    epoch = nft.unsettled(note.epoch) if revoked else note.epoch
    return Note(0, epoch, text, note.listing if text else "", elements if text else {})


def _any_epoch() -> int:
    import secrets  # noqa: PLC0415 needed once in a router's life, and start-up counts

    return nft.settled(secrets.randbelow(nft.EPOCHS))
