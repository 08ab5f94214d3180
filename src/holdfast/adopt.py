"""Taking over a router that has CloudStack's own agent: its bags become ours, its rules give way to ours.

Power may go at any moment.  Until the new generation is in force the old bags lie where they lay; from then on the
store is whole.  Either way the old ones lie in `legacy/` beside it, and `adopt` again finishes what was begun.
"""

import stat
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import msgspec
from msgspec import Struct
from msgspec.structs import replace

from holdfast import agent, legacy, report
from holdfast.agent import Answer
from holdfast.clearing import Clearing, Leftover
from holdfast.config import EMPTY, REFUSED, Config
from holdfast.disk import Disk
from holdfast.errors import Degraded, Failed, Rejected
from holdfast.intake import Event, take
from holdfast.legacy import Found, Legacy
from holdfast.lock import locked
from holdfast.router import Router
from holdfast.session import Session
from holdfast.state import Elements, PolicyRule, Route, Ruleset

CAUSE = "adopt"
KEPT = "legacy"
UNFINISHED = "unfinished"
PLACES = ("etc/cloudstack", "etc/cosmic/router")
"""Where CloudStack's and cosmic's agents keep their bags."""
SHOWN = 40
HELD = (
    "keepalived is held back for half an hour: adopt the other router with --force, then run here: "
    "/opt/cloud/bin/manage_service.sh start keepalived"
)
"""What is left to do where one of a pair that does not serve was adopted."""
_CARRIES_TRAFFIC = (Ruleset, Elements, PolicyRule, Route)


class Adoption(Struct, frozen=True):
    """What was found, what was put right, what of the old agent goes, and what the convergence answered.

    `unread`: what could not be read; without `force` nothing is done then.
    """

    code: int = 0
    reason: str = ""
    read: tuple[str, ...] = ()
    repaired: tuple[str, ...] = ()
    unread: tuple[str, ...] = ()
    cleared: tuple[str, ...] = ()
    faults: tuple[str, ...] = ()
    answer: Answer = Answer()


def adopt(session: Session, *, dry: bool = False, force: bool = False, disk: Disk | None = None) -> Adoption:
    """Take the router over, or with `dry` say what would be done.

    `force`: also where bags cannot be read, and where the router is the one of a pair that serves.  Rejected if there
    is nothing to adopt, or if adopting would take something away that nobody could read; nothing was touched then.
    """
    with locked(session.lock):
        config, number = agent.current(session.store)
        begun = (session.store.root / KEPT / UNFINISHED).exists()
        if number and not _bare(config) and not begun:
            raise Rejected(f"this router has a configuration of its own already, generation {number}")
        if number and not _bare(config):
            # Its bags were taken when something went wrong: what is left is to converge, and to clear away.
            done = Adoption() if dry else Adoption(answer=_converge(session, []))
        else:
            done = _take(session, config, dry=dry, force=force, disk=disk or Disk())
        if dry:
            return replace(done, cleared=tuple(left.what for left in _clearing(session).found({})))
        done = _clear(session, done)
        if not done.faults:
            _tidy(session.store.root, disk or Disk())
    after = session.converge(f"{CAUSE}: verified")
    return _verdict(done, after)


def _take(session: Session, config: Config, *, dry: bool, force: bool, disk: Disk) -> Adoption:
    there = found(session)
    if not there.files:
        raise Rejected(f"no bags of CloudStack's in {', '.join(f'/{place}' for place in PLACES)}")
    read = legacy.read(there)
    events = [Event(name, msgspec.json.encode(message)) for name, message in read.messages]
    done = Adoption(read=tuple(legacy.counts(read)), repaired=read.repaired, unread=read.unread)
    taken = take(config, events, session.machine.facts())
    redundant = taken.config["cmdline"].redundant
    serves = redundant and _serves(session, taken.config)
    why = _objection(read, taken.config, serves=serves)
    if dry:
        seen = agent.outlook(events, session.store, session.machine)
        changes = tuple(report.changes_text(seen.changes, seen.wanted))
        answer = Answer(
            changes=changes, refused=taken.refused, warnings=taken.warnings, conflicts=seen.wanted.conflicts
        )
        return replace(done, answer=answer, reason=why)
    if not taken.config["cmdline"].type or (why and not force):
        raise Rejected("; ".join([why or "no boot line", *read.unread, *taken.refused]))
    _keep(session, disk)
    if not redundant:
        return replace(done, answer=_converge(session, events))
    answer = _converge(session, events, lambda: _clearing(session).end_election(hold=not serves))
    return replace(done, answer=answer if serves else replace(answer, warnings=(*answer.warnings, HELD)))


def _serves(session: Session, config: Config) -> bool:
    """Whether a router of a pair, still as the old agent has configured it, is the one that serves."""
    router = Router(config, session.machine.facts())
    return _clearing(session).serves(face.device for face in router.of("public"))


def _converge(session: Session, events: Sequence[Event], first: Callable[[], None] = lambda: None) -> Answer:
    """As at boot: what can be applied is applied, and nothing is rolled back; there is nothing to go back to.

    `first` comes at the last moment before anything changes.
    """
    try:
        _clearing(session).prepare()
        first()
    except OSError as error:
        raise Failed(f"nothing was changed: {error}") from error
    return agent.handle(events, session.store, session.machine, cause=CAUSE, booting=True)


def _objection(read: Legacy, config: Config, *, serves: bool) -> str:
    """Why nothing should be done unless somebody insists; empty if there is no reason."""
    if not config["cmdline"].type:
        return "without a boot line nobody knows what kind of router this is"
    if read.unread:
        return f"{len(read.unread)} things cannot be read, and adopting without them would take them away (--force)"
    if serves:
        return (
            "this router of a pair serves, and the old keepalived does not hear ours: "
            "adopt the other one first, which holds itself back then, and this one after it (--force)"
        )
    return ""


def _bare(config: Config) -> bool:
    return all(config[name] == EMPTY[name] for name in EMPTY if name not in ("cmdline", REFUSED))


def found(session: Session) -> Found:
    """What lies there: bags, the boot line's text, the password servers' files."""
    files = {path.name.partition(".")[0]: path.read_bytes() for path in reversed([*_old_bags(session.root)])}
    line = session.inbox.directory / "cmdline"
    held = sorted(session.inbox.directory.glob("passwords-*"))
    words = [one for path in held for one in path.read_text("utf-8", "surrogateescape").splitlines()]
    return Found(
        files,
        line.read_text("utf-8", "replace") if line.is_file() else "",
        words if held else None,
        session.machine.facts().nics,
    )


def _old_bags(root: Path) -> Iterator[Path]:
    """Files that are the old agent's, the likeliest place first: where it keeps them, where an earlier attempt or the
    store put them aside.
    """
    own = root / PLACES[0]
    known = {*legacy.BAGS, *legacy.UNDERSTOOD_IN_PART}
    places = [(root / place, "*.json") for place in PLACES]
    for directory, pattern in (*places, (own / KEPT, "*.json"), (own, "*.json.before-*")):
        for path in sorted(directory.glob(pattern)):
            if path.name.partition(".")[0] in known and stat.S_ISREG(path.lstat().st_mode):
                yield path


def _keep(session: Session, disk: Disk) -> None:
    """Give the old bags a second name in `legacy/`, and leave word there that adoption has begun; durable."""
    own = session.store.root
    kept = own / KEPT
    if not own.exists():
        disk.make_directory(own)
        disk.sync(own.parent)
    if not kept.exists():
        disk.make_directory(kept)
    for path in _old_bags(session.root):
        path.chmod(0o600)  # it holds secrets, and everybody could read it
        target = kept / f"{path.name.partition('.')[0]}.json"
        if not target.exists():
            _second_name(disk, path, target)
    if not (kept / UNFINISHED).exists():
        disk.write(kept / UNFINISHED, b"holdfast adopt finishes it\n")
        disk.sync(kept / UNFINISHED)
    disk.sync(kept)
    disk.sync(own)


def _second_name(disk: Disk, path: Path, target: Path) -> None:
    try:
        disk.link(path, target)
    except OSError:  # another file system, or one without hard links
        disk.write(target, path.read_bytes())
        disk.sync(target)


def _tidy(own: Path, disk: Disk) -> None:
    """The names that the store put aside go where they have another in `legacy/`; then nothing is unfinished."""
    kept = own / KEPT
    for path in (*own.glob("*.json.before-*"), *own.glob("*.json")):
        twin = kept / f"{path.name.partition('.')[0]}.json"
        if stat.S_ISREG(path.lstat().st_mode) and twin.exists() and twin.read_bytes() == path.read_bytes():
            disk.unlink(path)
    disk.sync(own)
    if (kept / UNFINISHED).exists():
        disk.unlink(kept / UNFINISHED)
        disk.sync(kept)


def _clearing(session: Session) -> Clearing:
    kept = session.store.root / KEPT
    whole = session.root == Path("/")
    return Clearing(session.root, kept, services=session.machine.runs_services, whole=whole)


def _clear(session: Session, done: Adoption) -> Adoption:
    """What is theirs goes, if ours is in force: until then theirs is all that there is."""
    config, number = agent.current(session.store)
    if not number or not config["cmdline"].type:
        return replace(done, faults=("nothing of ours is in force, so theirs stays",))
    missing = _missing(session)
    if missing:  # a peer that was heard just now is let in by other rules
        _converge(session, [])
        missing = _missing(session)
    if missing:
        return replace(done, faults=("our rules are not in force, so theirs stay", *missing))
    router = Router(config, session.machine.facts())
    ways = {face.device: router.ways[face.nic] for face in router.interfaces if face.device and face.nic in router.ways}
    cleared: list[str] = []
    faults: list[str] = []
    for left in _clearing(session).found(ways):
        trouble = _gone(left)
        (faults if trouble else cleared).append(f"{left.what}{trouble and f': {trouble}'}")
    return replace(done, cleared=tuple(cleared), faults=tuple(faults))


def _missing(session: Session) -> list[str]:
    """What of ours that carries traffic is not in force, as lines to read."""
    seen = agent.outlook([], session.store, session.machine)
    missing = [change for change in seen.changes if isinstance(change.resource, _CARRIES_TRAFFIC) and change.after]
    return report.changes_text(missing, seen.wanted)


def _gone(left: Leftover) -> str:
    try:
        left.clear()
    except OSError as error:
        return str(error)
    return ""


def _verdict(done: Adoption, after: Answer) -> Adoption:
    """Status and reason of the whole: what the bags' own convergence said, unless something is not as wanted now."""
    answer = replace(
        done.answer,
        changes=(*done.answer.changes, *after.changes),
        faults=after.faults,
        conflicts=after.conflicts,
        pending=after.pending,
        stored=done.answer.stored,
        generation=after.generation,
        seconds=done.answer.seconds + after.seconds,
    )
    if done.faults:
        reason = "the old agent's things could not all be cleared away; `holdfast adopt` tries again"
        return replace(done, answer=answer, code=Failed.exit_code, reason=reason)
    if after.faults:
        return replace(done, answer=answer, code=Degraded.exit_code, reason="adopted, but not all is as wanted")
    return replace(done, answer=answer, code=done.answer.code, reason=done.answer.reason)


def lines(done: Adoption, *, dry: bool = False) -> list[str]:
    """The answer as people read it; what is long is cut, as in every answer."""
    title = "adopt --dry-run" if dry else CAUSE
    said = [f"{title}: {done.reason or ('nothing was touched' if dry else 'adopted')}"]
    groups: tuple[tuple[str, Any], ...] = (
        ("read", done.read),
        ("cannot be read", done.unread),
        ("repaired", done.repaired),
        ("refused", done.answer.refused),
        ("warning", done.answer.warnings),
        ("would change" if dry else "changed", done.answer.changes),
        ("would go" if dry else "gone", done.cleared),
        ("still there", done.faults),
        ("not as wanted", done.answer.faults),
        ("conflict", done.answer.conflicts),
        ("stored, not applied yet", done.answer.stored),
    )
    for name, texts in groups:
        said += [f"{name}: {text}" for text in texts[:SHOWN]]
        said += [f"{name}: … and {len(texts) - SHOWN} more"] if len(texts) > SHOWN else []
    return said
