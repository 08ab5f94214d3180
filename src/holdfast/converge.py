"""The spine: observe, compare, check, apply, verify.  Knows no feature and no daemon."""

from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import NamedTuple, Protocol

from holdfast.state import Change, Key, Resource, State, diff, order


class Failure(NamedTuple):
    """A change that the machine would not take, and what it said.

    `content`: what is wanted is wrong in itself, as its own program says; no machine would take it.
    """

    key: Key
    reason: str
    content: bool = False


class Driver(Protocol):
    """Keeps one kind of resource, or several that go in one transaction.

    It knows its own on a machine that it has never seen before.
    """

    @property
    def kinds(self) -> tuple[type[Resource], ...]:
        """The kinds it keeps."""

    def observe(self, desired: State) -> Iterable[Resource]:
        """Read what is there and ours. May look at `desired` to know where to look, never to guess an answer."""

    def check(self, changes: Sequence[Change]) -> Iterable[Failure]:
        """Say what would be refused, before anything is touched."""

    def apply(self, changes: Sequence[Change]) -> Iterable[Failure]:
        """Carry out the changes of one phase.  Idempotent; a bad one stops the others only within one transaction."""


class Run(NamedTuple):
    """What one convergence did: changes carried out, changes refused with the reason, changes left over at the end.

    `wrong`: wanted things that are wrong in themselves; because of them nothing was touched.
    """

    done: list[Change]
    failed: dict[Key, str]
    left: list[Change]
    wrong: dict[Key, str] = {}

    @property
    def trouble(self) -> dict[Key, str]:
        """Everything that is not as wanted at the end, and why."""
        return {change.key: self.failed.get(change.key, "did not stick") for change in self.left}


PASSES = 3
"""One change may undo another (the kernel drops a route with its address): the next pass sees that."""


def observe(drivers: Sequence[Driver], desired: State) -> State:
    """Everything that is ours on the machine."""
    return {resource.key: resource for driver in drivers for resource in driver.observe(desired)}


def plan(drivers: Sequence[Driver], desired: State) -> list[Change]:
    """What would change now."""
    return diff(observe(drivers, desired), desired)


def _nothing(_key: Key) -> bool:
    return False


def converge(
    drivers: Sequence[Driver],
    desired: State,
    passes: int = PASSES,
    *,
    stops: Callable[[Key], bool] = _nothing,
) -> Run:
    """Plan and apply until nothing is left, or until nothing moves any more.  The last look is the verification.

    `stops` names the things for which nothing at all is touched if they are wrong in themselves.
    """
    done: list[Change] = []
    failed: dict[Key, str] = {}
    changes = plan(drivers, desired)
    for _ in range(passes):
        if not changes:
            break
        objections = [*_check(drivers, changes)]
        wrong = {f.key: f.reason for f in objections if f.content and not done and stops(f.key)}
        if wrong:
            return Run([], {}, changes, wrong)
        before, failed = changes, _apply(drivers, changes, {f.key: f.reason for f in objections})
        done += [change for change in changes if change.key not in failed]
        changes = plan(drivers, desired)
        if changes == before:
            break
    return Run(done, failed, changes)


def _check(drivers: Sequence[Driver], changes: Sequence[Change]) -> Iterator[Failure]:
    for driver in drivers:
        mine = [change for change in changes if type(change.resource) in driver.kinds]
        yield from driver.check(mine) if mine else ()


def _apply(drivers: Sequence[Driver], changes: Sequence[Change], failed: dict[Key, str]) -> dict[Key, str]:
    """Carry out all phases but for what has `failed` already.  What fails blocks only what needs it."""
    by_kind = {kind: driver for driver in drivers for kind in driver.kinds}
    for phase in order(changes, [driver.kinds for driver in drivers]):
        possible = []
        for change in phase:
            blocked = [key for key in change.resource.needs if key in failed] if change.after else []
            if blocked:
                failed[change.key] = f"waits for {' '.join(blocked[0])}"
            elif change.key not in failed:
                possible.append(change)
        if possible:
            failed.update((f.key, f.reason) for f in by_kind[type(possible[0].resource)].apply(possible))
    return failed
