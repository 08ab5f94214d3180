"""One call of a command: the lock, the waiting for late nics, the start sequence, the archive, the alerts."""

import os
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

import msgspec
from msgspec.structs import replace

from holdfast import agent, alerts, handover, pair_files, promotion_file, role_report, start
from holdfast import config as bags
from holdfast.agent import Answer
from holdfast.boot import Found
from holdfast.booting import event as boot_event
from holdfast.booting import left, restored
from holdfast.bundle import UPDATE, steps
from holdfast.config import Config
from holdfast.errors import Degraded, Failed, Partial, Rejected
from holdfast.generation import Damaged
from holdfast.inbox import BOOT_LINE, Inbox
from holdfast.intake import Event, take
from holdfast.lock import locked
from holdfast.machine import Machine
from holdfast.netlink import wait_until
from holdfast.sequence import StartSequence
from holdfast.store import Store

NIC_WAIT_S = 15.0
"""How long a command waits for a nic; HOLDFAST_NIC_WAIT_S in the environment says otherwise, in seconds."""
ALERTS = 20
"""How many refusals of one command are alerted one by one."""
ROLES = 5
"""How often one command follows a role that keeps moving; what moves later calls the agent again."""
_CARRIES = frozenset({"Link", "Address", "Route", "PolicyRule", "Ruleset", "Elements"})
NO_EFFECT = ("bumpup_priority.sh", "configure.py", "netusage.sh")
"""Scripts of a bundle that mean nothing here: what old servers send, what a convergence does anyway, what asks only."""


class Session:
    """Everything that one command needs; `root` is where the router's files are seen from here.

    `reading`: for looking only, without the lock.
    """

    def __init__(self, root: Path = Path("/"), *, nic_wait_s: float | None = None, reading: bool = False) -> None:
        self.root = root
        self.nic_wait_s = _bound_s() if nic_wait_s is None else nic_wait_s
        self.machine = Machine(root, reading=reading)
        self.store = Store(root / "etc/cloudstack")
        self.inbox = Inbox(root / "var/cache/cloud")
        self.lock = root / "run/holdfast/lock"
        self.sequence = StartSequence(self.machine.marks)

    def update(self, name: str, *, archive: bool = True) -> Answer:
        """Take one file of the inbox, and a boot line that waits there before it."""
        name = self.inbox.name(name)
        with self._locked(name):
            events = [Event(name, self.inbox.read(name))]
            if name != BOOT_LINE and self.inbox.waits(BOOT_LINE):
                events.insert(0, Event(BOOT_LINE, self.inbox.read(BOOT_LINE)))
            answer = self._handle(events, cause=name)
        answer = self._patient(events, answer, cause=name)
        for event in events:
            self.inbox.finish(event.name, event.document, keep=archive or event.name == BOOT_LINE)
        return answer

    def bundle(self, path: Path) -> Answer:
        """Take a bundle: each message merged by itself, one convergence for all."""
        with self._locked(path.name):
            text = path.read_bytes() if path.is_file() else self.inbox.read(str(path))
            found = steps(text)
            events = [Event(step.argument, step.document) for step in found if step.script == UPDATE]
            if self.inbox.waits(BOOT_LINE):
                events.insert(0, Event(BOOT_LINE, self.inbox.read(BOOT_LINE)))
            starting = start.step(self, "bundle")
            answer = self._handle(events, cause=path.name, starting=starting)
        if not starting:  # at a start a nic that comes later is nothing to stop the router for
            answer = self._patient(events, answer, cause=path.name)
        self.inbox.finish(BOOT_LINE, next((e.document for e in events if e.name == BOOT_LINE), b""))
        if path.parent == self.inbox.directory or not path.is_file():
            self.inbox.finish(path.name, text)
        others = [f"{s.script} {s.argument}".strip() for s in found if s.script not in (UPDATE, *NO_EFFECT)]
        if others and not answer.code and not starting:
            answer = replace(answer, code=Partial.exit_code, reason="applied, but for what was refused")
        return replace(
            answer, refused=(*answer.refused, *(f"{path.name}: {s}: not run by this version" for s in others))
        )

    def apply(self, events: Sequence[Event], cause: str) -> Answer:
        """Take messages from anywhere."""
        with self._locked(cause):
            answer = self._handle(events, cause=cause)
        return self._patient(events, answer, cause=cause)

    def merge(self, name: str) -> Answer:
        """Into the store only: nothing is applied."""
        name = self.inbox.name(name)
        with self._locked(f"merge {name}"):
            event = Event(name, self.inbox.read(name))
            config, number = agent.current(self.store)
            taken = take(config, [event], self.machine.facts())
            if not taken.accepted:
                return Answer(code=Rejected.exit_code, reason="refused", refused=taken.refused, generation=number)
            if taken.config != config:
                number = self.store.propose(
                    bags.dump(taken.config),
                    events=[(event.name, event.document)],
                    cause=f"merge {name}",
                    refused=taken.refused,
                )
                self.store.accept(number)
            self.sequence.hear([event], self.machine.facts)
            self.inbox.finish(name, event.document)
            return Answer(code=Partial.exit_code if taken.fresh else 0, refused=taken.refused, generation=number)

    def converge(self, cause: str, *, booting: bool = False) -> Answer:
        """Put right what differs from what is stored."""
        events = []
        with self._locked(cause):
            if self.inbox.waits(BOOT_LINE):
                events = [Event(BOOT_LINE, self.inbox.read(BOOT_LINE))]
            start.look_after(self)
            if booting:
                answer = restored(events, lambda events: self._handle(events, cause=cause, booting=True))
            else:
                answer = self._handle(events, cause=cause)
        for event in events if answer.code != Failed.exit_code or not booting else ():
            self.inbox.finish(event.name, event.document)
        return answer

    def follow(self) -> Answer:
        """Converge to keepalived's last word.  Who serves no more goes on forwarding until its peer serves."""
        said = role_report.word(self.root)
        if said != "MASTER":
            handover.until_served(self.root)
        return self.converge(f"role {said or 'unknown'}")

    def rollback(self, number: int) -> Answer:
        """Make an older generation's bags the configuration again, as a new generation."""
        cause = f"rollback {number}"
        with self._locked(cause):
            answer = self._followed(lambda: agent.restore(number, self.store, self.machine, cause=cause))
        return self._told(answer, cause)

    def started(self, found: Found) -> bool:
        """Leave a boot line that was found for the next run; False if this very giving has been taken in this boot."""
        with self._locked("boot line"):
            return left(self, found)

    def up(self, found: Found | None, *, late: bool = False) -> Answer | None:
        """Come up: with the boot line that was found, and with everything that is stored.

        Where nothing stored is whole, with what the line alone says, so that somebody can log in; Damaged where there
        is none.  `late`: None where this line has been taken in this boot already.
        """
        try:
            if found and not self.started(found) and late:
                return None
            return self.converge("boot", booting=True)
        except Damaged as damage:
            if found is None:
                raise
            reason = f"{damage}; the boot line alone is applied"
        with self._locked("boot"):
            return self._told(agent.bare([boot_event(found.text)], self.machine, reason=reason), "boot")

    def become(self, config: Config, cause: str) -> Answer:
        """Take these bags as if they were commanded now; for who holds the lock."""
        return self._told(self._followed(lambda: agent.become(config, self.store, self.machine, cause=cause)), cause)

    @contextmanager
    def _locked(self, cause: str) -> Iterator[None]:
        """Be the only one to run; what was done is also what a promotion is worked out from, while nobody else runs."""
        try:
            with locked(self.lock, on_wait=lambda: print("waiting for another command to end", file=sys.stderr)):  # noqa: T201
                yield
                self._prepare()
        except Exception as error:  # whatever it is: an operator hears of it, also where the output is lost
            alerts.alert(self.root, [f"{cause}: {type(error).__name__}: {error}"])
            raise

    def _prepare(self) -> None:
        try:
            config, number = agent.current(self.store)
            if config["cmdline"].redundant:
                promotion_file.prepare(self.root, config, self.machine.facts(), number)
        except (
            OSError,
            Damaged,
        ) as error:  # a promotion takes the long way then; the command has done what it was to do
            alerts.note(f"no promotion could be worked out ahead: {error}", urgent=True)

    def _handle(self, events: Sequence[Event], *, cause: str, starting: bool = False, booting: bool = False) -> Answer:
        if not starting and events:
            start.step(self, "boot" if any(event.name == BOOT_LINE for event in events) else "single")
        answer = self._followed(
            lambda: agent.handle(events, self.store, self.machine, cause=cause, starting=starting, booting=booting)
        )
        self.sequence.hear(events, self.machine.facts)
        self._remember_unknown(answer)
        return self._told(answer, cause)

    def _followed(self, act: Callable[[], Answer]) -> Answer:
        """Run, and while the role has moved meanwhile run again: what was done for another role is not done."""
        role = role_report.word(self.root)
        answer = act()
        for _ in range(ROLES):
            before, role = role, role_report.word(self.root)
            if role == before:
                break
            again = agent.handle([], self.store, self.machine, cause=f"role {role}")
            answer = replace(
                answer,
                changes=(*answer.changes, *again.changes),
                faults=again.faults,
                stuck=again.stuck,
                conflicts=again.conflicts,
                pending=again.pending,
                seconds=answer.seconds + again.seconds,
            )
        return answer

    def _patient(self, events: Sequence[Event], answer: Answer, *, cause: str) -> Answer:
        """Wait for the nics that a command's new things need, with the lock free meanwhile."""
        if not answer.awaits or answer.code not in (0, Partial.exit_code):
            return answer

        def there() -> bool:
            facts = self.machine.facts()
            return all(facts.device(nic) for nic in answer.awaits)

        came = wait_until(there, self.nic_wait_s)
        reason = ""
        with self._locked(cause):
            if came:
                again = self._followed(lambda: agent.handle(events, self.store, self.machine, cause=cause))
                unmet = agent.unmet(answer, self.store, self.machine)
                if there() and not unmet:
                    seconds, code = again.seconds + answer.seconds, again.code or answer.code
                    return self._told(replace(again, seconds=seconds, code=code, reason=answer.reason), cause)
                reason = f"the machine would not take it: {'; '.join(unmet)}" if unmet else ""
            why = f"{cause}: taken back"
            taken_back = self._followed(
                lambda: agent.take_back(answer, self.store, self.machine, cause=why, reason=reason)
            )
        return self._told(taken_back, cause)

    def _remember_unknown(self, answer: Answer) -> None:
        if answer.unknown:
            seen: dict[str, int] = msgspec.json.decode(self.machine.marks.read("unknown") or b"{}")
            for field in answer.unknown:
                seen[field] = seen.get(field, 0) + 1
            self.machine.marks.write("unknown", msgspec.json.encode(seen))

    def _told(self, answer: Answer, cause: str) -> Answer:
        """Refusals that are news and faults that were not there before reach the alerts; every run the journal."""
        texts = [f"{cause}: refused: {text}" for text in answer.fresh[:ALERTS]]
        if len(answer.fresh) > ALERTS:
            texts.append(f"{cause}: refused: {len(answer.fresh) - ALERTS} more")
        texts += [f"{cause}: {answer.reason}"] if answer.code in (Failed.exit_code, Degraded.exit_code) else []
        faults = sorted(f"not as wanted: {text}" for text in (*answer.faults, *answer.conflicts))
        faults += [f"damaged: {text}" for text in answer.damage]
        faults += [self.machine.complaint] if self.machine.complaint else []
        known = self.machine.marks.read("faults").decode().splitlines()
        texts += [text for text in faults if text not in known]
        if faults != known:
            self.machine.marks.write("faults", "\n".join(faults).encode())
        if texts:
            alerts.alert(self.root, texts)
        if self.sequence.note.why and answer.code in (Failed.exit_code, Degraded.exit_code):
            start.call_off(self, f"{cause} has failed, and with it the start")
        self._tell_peer(answer)
        outcome = f"exit {answer.code}, {len(answer.changes)} changes, generation {answer.generation}"
        alerts.note(f"{cause}: {outcome}, {answer.seconds:.3f} s")
        return answer

    def _tell_peer(self, answer: Answer) -> None:
        """Leave for the agent's ear whether this router could serve: what carries packets is as it is wanted.

        In any role: who serves yields for it, and nobody yields to a backup that is no better off.
        """
        if answer.code == Rejected.exit_code:
            return  # it has looked at nothing
        flag = self.root / pair_files.UNABLE
        if _CARRIES & {*answer.stuck}:
            flag.touch()
        else:
            flag.unlink(missing_ok=True)


def _bound_s() -> float:
    try:
        return float(os.environ["HOLDFAST_NIC_WAIT_S"])
    except (KeyError, ValueError):
        return NIC_WAIT_S
