"""The story of one run: events in, one convergence, one answer.  It keeps nothing that it could not read again."""

from collections.abc import Mapping, Sequence
from contextlib import AbstractContextManager
from functools import cache
from time import monotonic
from typing import NamedTuple, Protocol

from msgspec import Struct
from msgspec.structs import replace

from holdfast import config as bags
from holdfast import report
from holdfast.config import Config
from holdfast.converge import Driver, Run, converge, plan
from holdfast.desired import Desired, desired
from holdfast.errors import Degraded, Failed, Partial, Rejected
from holdfast.feature import RELEASE
from holdfast.intake import Event, Taken, take
from holdfast.router import Facts
from holdfast.state import Change, Key, State
from holdfast.store import Store


class Host(Protocol):
    """What a run needs of the machine."""

    @property
    def drivers(self) -> Sequence[Driver]:
        """One for each kind, in the order in which they are given."""

    @property
    def runs_services(self) -> bool:
        """Whether units can be managed here."""

    def facts(self) -> Facts:
        """What only the machine can tell, read anew."""

    def agreed(self, wanted: State) -> AbstractContextManager[None]:
        """Wait, before a run to what is wanted, for what has to be agreed with others first."""


class Answer(Struct, frozen=True):
    """What one run did.  `code` is the exit status; `fresh` refusals were not answered before; `awaits` are nics,
    `stuck` the kinds of what is not as wanted.
    """

    code: int = 0
    reason: str = ""
    changes: tuple[str, ...] = ()
    refused: tuple[str, ...] = ()
    fresh: tuple[str, ...] = ()
    warnings: tuple[str, ...] = ()
    faults: tuple[str, ...] = ()
    conflicts: tuple[str, ...] = ()
    stored: tuple[str, ...] = ()
    pending: tuple[str, ...] = ()
    unknown: tuple[str, ...] = ()
    damage: tuple[str, ...] = ()
    awaits: tuple[str, ...] = ()
    stuck: tuple[str, ...] = ()
    generation: int = 0
    parent: int = 0
    seconds: float = 0.0


class Start(NamedTuple):
    """What a run starts from."""

    config: Config
    number: int
    facts: Facts
    store: Store
    host: Host


class Pair(NamedTuple):
    """The machine as it should have been so far, and as it should be now."""

    was: Desired
    wanted: Desired


def current(store: Store) -> tuple[Config, int]:
    """The bags in force and their generation's number; empty bags and 0 on a fresh machine."""
    held = store.load()
    return (bags.load(held.documents), held.number) if held else (bags.EMPTY, 0)


def handle(  # noqa: PLR0913 what comes in, where it goes, and the occasion
    events: Sequence[Event], store: Store, host: Host, *, cause: str, starting: bool = False, booting: bool = False
) -> Answer:
    """Take the events, converge once, answer.

    `starting`: part of a management server's start sequence, where a refusal must not stop the router.
    `booting`: what can be applied is applied and nothing is rolled back.
    """
    began = monotonic()
    at = _start(store, host)
    taken = take(at.config, events, at.facts)
    if not taken.accepted:
        return Answer(
            code=Rejected.exit_code, reason="refused", refused=taken.refused, fresh=taken.fresh, generation=at.number
        )
    answer = _carry_out(at, taken, events, cause, lasting=booting)
    if starting and answer.code == Rejected.exit_code and answer.fresh:
        verified = _carry_out(at, Taken(at.config), [], cause, lasting=False)
        answer = replace(verified, refused=answer.refused, fresh=answer.fresh)
    fresh = (*taken.fresh, *answer.fresh)
    if answer.code == 0 and fresh and not starting:
        answer = replace(answer, code=Partial.exit_code, reason="applied, but for what was refused")
    return replace(
        answer,
        refused=(*taken.refused, *answer.refused),
        fresh=fresh,
        unknown=taken.unknown,
        warnings=taken.warnings,
        damage=tuple(store.damage),
        seconds=monotonic() - began,
    )


def _start(store: Store, host: Host) -> Start:
    config, number = current(store)
    return Start(config, number, host.facts(), store, host)


def _carry_out(at: Start, taken: Taken, events: Sequence[Event], cause: str, *, lasting: bool) -> Answer:
    wanted = desired(taken.config, at.facts, units=at.host.runs_services)
    if taken.config == at.config:
        with at.host.agreed(wanted.state):
            run = converge(at.host.drivers, wanted.state)
        return _answer(run, wanted, taken, at.number, at.number)
    # Only where something is wrong or waits: with ten thousand rules it is a quarter of the whole run.
    was = cache(lambda: desired(at.config, at.facts, units=at.host.runs_services))
    conflicts = tuple(text for text in wanted.conflicts if text not in was().conflicts)
    if conflicts and not lasting:
        reason = "two claims on one thing"
        return Answer(code=Rejected.exit_code, reason=reason, refused=conflicts, generation=at.number)
    messages = [(event.name, event.document) for event in events]
    proposed = at.store.propose(bags.dump(taken.config), events=messages, cause=cause, refused=taken.refused)
    with at.host.agreed(wanted.state):
        run = converge(
            at.host.drivers,
            wanted.state,
            stops=lambda key: not lasting and was().state.get(key) != wanted.state.get(key),
        )
    if run.wrong:
        at.store.discard(proposed)
        rest = _spared(at, taken, run.wrong, wanted)
        said = rest.refused[len(taken.refused) :]
        answer = Answer(code=Rejected.exit_code, reason="refused", generation=at.number)
        if rest.config != at.config:
            answer = _carry_out(at, rest, events, cause, lasting=False)
        return replace(answer, refused=(*said, *answer.refused), fresh=(*said, *answer.fresh))
    own = own_trouble(run, was(), wanted) if run.left else {}
    if own and not lasting:
        return _back(at, own, run, Pair(was(), wanted), proposed)
    at.store.accept(proposed)
    answer = _answer(run, wanted, taken, proposed, at.number)
    known = {claim.part for claim in was().pending} if wanted.pending else ()
    awaits = {claim.part.waits_for for claim in wanted.pending if claim.part not in known}  # type: ignore[union-attr]
    return replace(answer, awaits=tuple(sorted(w.removeprefix("nic ") for w in awaits if w.startswith("nic "))))


def _spared(at: Start, taken: Taken, wrong: Mapping[Key, str], wanted: Desired) -> Taken:
    """What is left without what brought a thing that its own program calls wrong: those features keep their bags."""
    said = tuple(report.trouble_lines(wrong, wanted))
    guilty = {wanted.origins[key].partition("/")[0] for key in wrong} & at.config.keys()
    config: Config = {**taken.config, **{name: at.config[name] for name in guilty}}
    config = at.config if config == taken.config else config  # nobody told apart: the command as a whole
    return taken._replace(config=config, refused=(*taken.refused, *said), fresh=(*taken.fresh, *said))


def own_trouble(run: Run, was: Desired, wanted: Desired) -> dict[Key, str]:
    """What is wrong at the end with things that the command changed, or that depend on such a thing."""

    def changed(key: Key) -> bool:
        return was.state.get(key) != wanted.state.get(key)

    return {
        change.key: run.trouble[change.key]
        for change in run.left
        if changed(change.key) or any(changed(need) for need in change.resource.needs)
    }


def _back(at: Start, own: Mapping[Key, str], run: Run, pair: Pair, proposed: int) -> Answer:
    """Converge back to the generation before; what does not go back is said."""
    was, wanted = pair
    at.store.discard(proposed)
    back = converge(at.host.drivers, was.state)
    stuck = own_trouble(back, wanted, was)
    kind = Degraded if stuck else Failed
    reason = "the machine would not take it; "
    reason += f"the way back failed too: {'; '.join(report.trouble_lines(stuck, was))}" if stuck else "rolled back"
    faults = {key: text for key, text in back.trouble.items() if key not in own and key not in stuck}
    return Answer(
        code=kind.exit_code,
        reason=f"{reason}: {'; '.join(report.trouble_lines(own, wanted))}",
        faults=tuple(report.trouble_lines(faults, was)),
        stuck=tuple(sorted({key[0] for key in back.trouble})),
        changes=tuple(report.changes_text([c for c in back.done if c not in run.done], was)) if stuck else (),
        generation=at.number,
        parent=at.number,
    )


def _answer(run: Run, wanted: Desired, taken: Taken, number: int, parent: int) -> Answer:
    stored: list[str] = []
    waiting: list[str] = []
    for origin, part in wanted.pending:
        text = f"{part.what} waits for {part.waits_for}"  # type: ignore[union-attr]
        mine = part.waits_for == RELEASE and origin.partition("/")[0] in taken.kinds  # type: ignore[union-attr]
        (stored if mine else waiting).append(text)
    return Answer(
        changes=tuple(report.changes_text(run.done, wanted)),
        faults=tuple(report.trouble_lines(run.trouble, wanted)),
        stuck=tuple(sorted({key[0] for key in run.trouble})),
        conflicts=wanted.conflicts,
        stored=tuple(stored),
        pending=tuple(waiting),
        generation=number,
        parent=parent,
    )


def unmet(answer: Answer, store: Store, host: Host) -> tuple[str, ...]:
    """What is not as wanted among the things of one answered command, now that its nics have come."""
    at = _start(store, host)
    was, wanted = (desired(config, at.facts, units=host.runs_services) for config in (_without(answer, at), at.config))
    run = Run([], {}, plan(host.drivers, wanted.state))
    return tuple(report.trouble_lines(own_trouble(run, was, wanted), wanted))


def take_back(answer: Answer, store: Store, host: Host, *, cause: str, reason: str = "") -> Answer:
    """Undo one answered command, keeping what others have commanded since; no `reason`: its nic never came."""
    at = _start(store, host)
    result = _carry_out(at, Taken(_without(answer, at)), [], cause, lasting=True)
    reason = f"{reason or 'no such nic: ' + ', '.join(answer.awaits)}; taken back"
    return replace(result, code=Failed.exit_code, reason=reason, awaits=())


def _without(answer: Answer, at: Start) -> Config:
    """The bags as they would be now without what one answered command changed."""
    before = bags.load(at.store.read(answer.parent).documents) if answer.parent else bags.EMPTY
    return bags.undo(before, bags.load(at.store.read(answer.generation).documents), at.config)


def restore(number: int, store: Store, host: Host, *, cause: str) -> Answer:
    """Take an older generation's bags as if they were commanded now."""
    return become(bags.load(store.read(number).documents), store, host, cause=cause)


def become(config: Config, store: Store, host: Host, *, cause: str) -> Answer:
    """Take these bags as if they were commanded now."""
    return _carry_out(_start(store, host), Taken(config), [], cause, lasting=False)


def bare(events: Sequence[Event], host: Host, *, reason: str) -> Answer:
    """Do what these events alone ask for, with nothing that is stored read or written."""
    facts = host.facts()
    taken = take(bags.EMPTY, events, facts)
    wanted = desired(taken.config, facts, units=host.runs_services)
    run = converge(host.drivers, wanted.state)
    return replace(_answer(run, wanted, taken, 0, 0), code=Degraded.exit_code, reason=reason, refused=taken.refused)


class Outlook(NamedTuple):
    """What would change, and what these bags mean."""

    changes: list[Change]
    wanted: Desired
    taken: Taken


def outlook(events: Sequence[Event], store: Store, host: Host) -> Outlook:
    """The plan: what `handle` would do, from the same functions, touching nothing."""
    config, _ = current(store)
    facts = host.facts()
    taken = take(config, events, facts)
    wanted = desired(taken.config, facts, units=host.runs_services)
    return Outlook(plan(host.drivers, wanted.state), wanted, taken)
