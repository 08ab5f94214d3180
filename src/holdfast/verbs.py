"""The verbs of the `holdfast` command."""

import argparse
import sys
from collections.abc import Callable
from contextlib import suppress
from math import inf
from pathlib import Path
from time import monotonic
from typing import Any

import msgspec

from holdfast import __version__, agent, answer, boot, booting, handover, pair_files, pairing, past, report, role_report
from holdfast.answers import peer
from holdfast.answers.checkrouter import doubts
from holdfast.errors import Rejected
from holdfast.inbox import BOOT_LINE
from holdfast.intake import Event
from holdfast.machine import enter_network
from holdfast.session import Session

ASKED = 100
"""How many answers `history` shows."""


def parser() -> argparse.ArgumentParser:
    """All verbs and options."""
    top = argparse.ArgumentParser(
        prog="holdfast", description="Keeps a virtual router in the state it was told to be in."
    )
    top.add_argument("--version", action="version", version=__version__)
    verbs = top.add_subparsers(required=True, metavar="VERB")
    for name, action, text in (
        ("apply", apply, "merge messages and converge"),
        ("plan", plan, "show what would change, with these messages or with none"),
        ("status", status, "show what is in force, what waits and what is not as wanted"),
        ("history", history, "list generations, and what was asked and answered, newest first"),
        ("show", show, "print the documents of a generation, secrets masked"),
        ("diff", diff, "compare two generations"),
        ("rollback", rollback, "make an older generation the configuration again"),
        ("converge", converge, "compare everything with the machine and put right what differs"),
        ("adopt", adopt, "take over a router of CloudStack's own agent, in place"),
        ("boot", boot_up, "take the boot line that the hypervisor left, and restore everything"),
        ("handover", hand_over, "let the other router of the pair serve from now on"),
    ):
        verb = verbs.add_parser(name, help=text, description=text)
        verb.set_defaults(verb=action)
        verb.add_argument("--root", type=Path, default=Path("/"), help="directory in which the router's files are kept")
        verb.add_argument("--netns", default="", help="network namespace in which the router lives")
        verb.add_argument("--json", action="store_true", help="answer in JSON")
        _arguments(name, verb)
    resident = verbs.add_parser("agent", help="stay, listen and run commands: what holdfast-agent.service starts")
    resident.set_defaults(verb=stay)
    lab = verbs.add_parser("lab", help="routers, guests and an outside world on this machine")
    lab.add_argument("rest", nargs=argparse.REMAINDER, metavar="up|run|shell|down …")
    lab.set_defaults(verb=laboratory)
    return top


def _arguments(name: str, verb: argparse.ArgumentParser) -> None:
    if name in ("apply", "plan"):
        verb.add_argument("files", nargs="+" if name == "apply" else "*", type=Path, metavar="FILE")
    if name in ("show", "rollback"):
        verb.add_argument("number", type=int, metavar="N")
    if name == "history":
        verb.add_argument("--all", action="store_true", help=f"all answers that are known, not only the last {ASKED}")
    if name == "diff":
        verb.add_argument("numbers", type=int, nargs=2, metavar=("N", "M"))
    if name == "adopt":
        verb.add_argument("--dry-run", action="store_true", help="say what would be done, touch nothing")
        verb.add_argument("--force", action="store_true", help="also where something cannot be read, or one of a pair")
    if name == "boot":
        verb.add_argument("--line", type=Path, help="file that holds the boot line")
        verb.add_argument("--late", action="store_true", help="take a line that is given after the start")


def _session(options: argparse.Namespace) -> Session:
    if options.root != Path("/") and not options.netns and options.verb not in (history, show, diff):
        raise Rejected("--root needs --netns: without it the addresses and the firewall would be this machine's own")
    if options.netns:
        enter_network(options.netns)
    return Session(options.root, reading=options.verb in (plan, status))


def _print(options: argparse.Namespace, data: Any, text: Callable[[], list[str]]) -> None:
    said = [msgspec.json.encode(data).decode()] if options.json else text()
    sys.stdout.write("".join(f"{line}\n" for line in said))


def _answered(options: argparse.Namespace, title: str, given: agent.Answer) -> int:
    _print(options, given, lambda: answer.lines(title, given))
    return given.code


def _events(options: argparse.Namespace) -> list[Event]:
    missing = [str(path) for path in options.files if not path.is_file()]
    if missing:
        raise Rejected(f"no such file: {', '.join(missing)}")
    return [Event(path.name, path.read_bytes()) for path in options.files]


def apply(options: argparse.Namespace) -> int:
    """Merge and converge."""
    events = _events(options)
    title = " ".join(event.name for event in events)
    return _answered(options, title, _session(options).apply(events, cause=title))


def plan(options: argparse.Namespace) -> int:
    """Show what would change; the exit status is 0 whether or not anything would, 2 if all was refused."""
    session = _session(options)
    seen = agent.outlook(_events(options), session.store, session.machine)
    changes = report.changes_text(seen.changes, seen.wanted)
    pending = [f"{part.what} waits for {part.waits_for}" for _, part in seen.wanted.pending]  # type: ignore[union-attr]
    data = {
        "changes": report.changes_json(seen.changes, seen.wanted),
        "pending": pending,
        "refused": seen.taken.refused,
        "conflicts": seen.wanted.conflicts,
    }
    _print(options, data, lambda: [
        *(changes or ["nothing to do"]),
        *(f"refused: {text}" for text in seen.taken.refused),
        *(f"conflict: {text}" for text in seen.wanted.conflicts),
        *(f"pending: {text}" for text in pending),
    ])  # fmt: skip
    return 0 if seen.taken.accepted else Rejected.exit_code


def status(options: argparse.Namespace) -> int:
    """What is in force, what waits, what is not as wanted; exit status 0 if all is as wanted, else 3."""
    session = _session(options)
    seen = agent.outlook([], session.store, session.machine)
    config, number = agent.current(session.store)
    redundant = config["cmdline"].redundant
    pair = role_report.look(session.root) if redundant else None
    data = {
        "router": config["cmdline"].name,
        "type": config["cmdline"].type,
        "role": role_report.word(session.root) or "BACKUP" if redundant else "ALONE",
        "role_not_as_seen": doubts(pair) if pair else [],
        "peer": peer.data(*_peer(session)) if redundant else None,
        "settings": session.machine.complaint,
        "generation": number,
        "not_as_wanted": report.changes_text(seen.changes, seen.wanted),
        "pending": [f"{part.what} waits for {part.waits_for}" for _, part in seen.wanted.pending],  # type: ignore[union-attr]
        "conflicts": list(seen.wanted.conflicts),
        "refused": list(config["refused"].units.values()),
        "damaged": list(session.store.damage),
        "unknown_fields": msgspec.json.decode(session.machine.marks.read("unknown") or b"{}"),
    }
    _print(options, data, lambda: _status_lines(data, peer.lines(*_peer(session)) if redundant else []))
    return 3 if data["not_as_wanted"] or data["damaged"] or data["role_not_as_seen"] else 0


def _peer(session: Session) -> tuple[dict[str, Any], float, int | None]:
    """What was heard of the peer last, the time, and how long ago this router has synced its connections."""
    return pairing.peer(session.root, inf), monotonic(), pair_files.synced_s(session.root)


def _status_lines(data: dict[str, Any], pair: list[str]) -> list[str]:
    name = f"{data['router'] or 'a router without a boot line'} ({data['type'] or 'no type'})"
    role = "" if data["role"] == "ALONE" else f", {data['role']}"
    lines = [f"{name}{role}, generation {data['generation']}"]
    for kind in ("role_not_as_seen", "not_as_wanted", "conflicts", "refused", "damaged", "pending"):
        lines += [f"{kind.replace('_', ' ')}: {text}" for text in data[kind]]
    lines += [f"unknown field: {field} ({count} times)" for field, count in data["unknown_fields"].items()]
    lines += [f"settings: {data['settings']}"] if data["settings"] else []
    head, *rest = lines
    return [head, *pair, *(rest or ["everything is as wanted"])]


def history(options: argparse.Namespace) -> int:
    """List generations, and what was asked and answered; OSError if the log of answers cannot be read."""
    metas = _session(options).store.history()
    asked = list(past.calls(options.root))[::-1][: None if options.all else ASKED]
    data = {"generations": metas, "answers": [call._asdict() for call in asked]}
    _print(options, data, lambda: past.lines(metas, asked))
    return 0


def _known(session: Session, number: int) -> int:
    if number not in {meta.number for meta in session.store.history()}:
        raise Rejected(f"there is no generation {number}: `holdfast history` lists them")
    return number


def _documents(session: Session, number: int) -> dict[str, Any]:
    _known(session, number)
    documents = session.store.read(number).documents
    return {name: report.masked(msgspec.json.decode(text)) for name, text in sorted(documents.items())}


def show(options: argparse.Namespace) -> int:
    """Print the documents of a generation."""
    documents = _documents(_session(options), options.number)
    _print(options, documents, lambda: _pretty(documents))
    return 0


def _pretty(documents: dict[str, Any]) -> list[str]:
    return [
        line
        for name, document in documents.items()
        if document
        for line in (f"{name}:", *msgspec.json.format(msgspec.json.encode(document)).decode().splitlines())
    ]


def diff(options: argparse.Namespace) -> int:
    """Compare two generations."""
    import difflib  # noqa: PLC0415 next to its only use

    session = _session(options)
    old, new = (_pretty(_documents(session, number)) for number in options.numbers)
    changed = list(difflib.unified_diff(old, new, str(options.numbers[0]), str(options.numbers[1]), lineterm=""))
    _print(options, changed, lambda: changed or ["no difference"])
    return 0


def rollback(options: argparse.Namespace) -> int:
    """Make an older generation the configuration again."""
    session = _session(options)
    number = _known(session, options.number)
    return _answered(options, f"rollback {number}", session.rollback(number))


def converge(options: argparse.Namespace) -> int:
    """Put right what differs from what is stored."""
    return _answered(options, "converge", _session(options).converge("holdfast converge"))


def adopt(options: argparse.Namespace) -> int:
    """Take over a router of CloudStack's own agent."""
    from holdfast import adopt as adoption  # noqa: PLC0415 once in a router's life

    done = adoption.adopt(_session(options), dry=options.dry_run, force=options.force)
    _print(options, done, lambda: adoption.lines(done, dry=options.dry_run))
    return done.code


def boot_up(options: argparse.Namespace) -> int:
    """Write cmd_line.json from the boot line, if there is one, and restore everything that is stored.

    `--late`: what is stored serves already; a line that comes some time after the start is taken when it comes.
    """
    session = _session(options)
    if options.line and not (options.line.is_file() and options.line.stat().st_size):
        raise Rejected(f"{options.line}: no boot line in it")
    if options.line:
        text = options.line.read_text("utf-8", "replace")
        found: boot.Found | None = boot.Found(text, str(options.line))
    elif options.late:
        found = boot.find(session.root, late=lambda text: booting.another(session, text))
    else:
        # What is stored is restored at once; only a router that knows nothing yet waits for its line.
        waits = session.root == Path("/") and not session.store.history() and not session.inbox.waits(BOOT_LINE)
        found = boot.find(session.root, wait_s=None if waits else 0)
    if options.late and not found:
        return 0
    given = session.up(found, late=options.late)
    if given is None:
        return 0
    with suppress(OSError):  # it is for people and scripts to see: no room for it stops no router
        (session.inbox.directory / "boot_up_done").touch()
    return _answered(options, "boot", given)


def hand_over(options: argparse.Namespace) -> int:
    """Let the other router of the pair serve; exit status 3 with the reason where it cannot."""
    handover.ordered(_session(options).root)
    _print(options, {}, lambda: ["the other router serves"])
    return 0


def stay(_options: argparse.Namespace) -> int:
    """Be the resident agent until told to stop."""
    from holdfast import resident  # noqa: PLC0415 only the one process that stays needs it

    return resident.main(Path("/"))


def laboratory(options: argparse.Namespace) -> int:
    """Hand over to the lab, which a router does not carry."""
    from holdfast.lab import commands  # noqa: PLC0415 only developers' machines have it

    return int(commands.main(options.rest))
