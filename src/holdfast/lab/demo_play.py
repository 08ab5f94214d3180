"""One act of the demo: its story told to a router, its claims proven, the power cut, and all of it proven again."""

import threading
import time
from collections.abc import Callable
from functools import partial
from typing import Any, NamedTuple

from holdfast.lab.demo_act import OFFICE, Act, generation
from holdfast.lab.demo_screen import Screen, answer_lines
from holdfast.lab.host import Connection
from holdfast.lab.lab import Lab
from holdfast.lab.process import Result
from holdfast.lab.sentence import LabError, NotSo
from holdfast.lab.story import Stage, Step, Story, build, load, play

DARK_S = 60.0
_ASK_S = 0.05
_SHOWN = 25  # lines of a failed sentence: itself and the end of the journal
TOLD, AGAIN = "as told", "after"


class Verdict(NamedTuple):
    """A sentence, when it was asked, and what came of it; `why` is empty if it holds."""

    text: str
    when: str
    holds: bool
    why: str
    seconds: float


class Played(NamedTuple):
    """A step and how its command ended."""

    step: Step
    result: Result


class Performance:
    """One performance of one act."""

    def __init__(self, act: Act, screen: Screen) -> None:
        self.act, self.screen = act, screen
        self.story: Story = load(act.directory)
        self.played: list[Played] = []
        self.verdicts: list[Verdict] = []
        self.first_packet_s: float | None = None

    def perform(self, lab: Lab) -> None:
        """Play everything; sentences that fail are kept and the rest goes on."""
        self.screen.title(f"{self.act.title}.  A lab: {self.act.cast}")
        stage = build(lab, self.story.topology)
        took = stage.router.boot()
        self.act.prepare(stage)
        self.screen.words(f"The router's systemd was up after {took:.1f} s. Nothing is forwarded yet.", indent=2)
        self.screen.title("The story, as the management server tells it")
        self._tell(stage)
        self.screen.title("What works now, and what is refused")
        self._prove(stage, TOLD)
        self._cut(stage)
        self.screen.title("The same questions again")
        self._prove(stage, AGAIN)

    def _tell(self, stage: Stage) -> None:
        kept: dict[str, Connection] | None = None
        for step in self.story.steps:
            if step.cuts and kept is None:
                kept = self._connections(stage)
            self.screen.begin(step)
            result = play(self.story, step, stage)
            self.played.append(Played(step, result))
            self.screen.end(step, result)
            if step.cuts:
                text = f"step {step.step} cuts the connection that it forbids ({step.cuts}), others live on"
                self.ask(text, TOLD, partial(_judge, kept or {}, step.cuts))
        failed = [str(p.step.step) for p in self.played if p.result.code]
        self.ask("every command is answered with exit status 0", TOLD, lambda: _none(failed, "steps that failed: "))
        changed = self.played[-1].result.text
        self.ask(self.act.again, TOLD, lambda: _idle(changed))

    def _connections(self, stage: Stage) -> dict[str, Connection]:
        """Connections that are open while something is revoked; one that does not come up is missed by `_judge`."""
        kept: dict[str, Connection] = {}
        self.ask(self.act.opened, TOLD, lambda: kept.update(self.act.connects(stage)))
        return kept

    def _prove(self, stage: Stage, when: str) -> None:
        for text, proves in self.act.sentences:
            self.ask(text, when, partial(proves, stage))

    def _cut(self, stage: Stage) -> None:
        """Power off and on; time until the first packet is forwarded."""
        before = generation(stage)
        self.screen.title("Power cut")
        stage.router.power_cut()
        text = "The router's processes and its whole kernel state are gone, only its disk is left."
        self.screen.words(text, indent=2)
        self.ask("without power nothing is forwarded", AGAIN, lambda: stage.world.cannot_reach(*self.act.refused))
        self.screen.title("Power on; nothing is sent")
        seen: list[float] = []
        watcher = threading.Thread(target=_watch, args=(stage, self.act.first, time.monotonic(), seen), daemon=True)
        watcher.start()
        took = stage.router.boot()
        watcher.join(DARK_S)
        self.first_packet_s = seen[0] if seen else None
        self.screen.words(f"systemd says that the router is up after {took:.2f} s", indent=2)

        def forwarded() -> None:
            if not seen:
                raise NotSo(f"no packet was forwarded within {DARK_S:g} s")

        self.ask("after power-on packets are forwarded again, and nobody has sent anything", AGAIN, forwarded)
        if seen:
            self.screen.words(f"first forwarded packet {seen[0]:.2f} s after power-on", "bold", indent=4)
        self.ask(f"the documents are those of before, generation {before}", AGAIN, lambda: _same(before, stage))

    def ask(self, text: str, when: str, proves: Callable[[], object]) -> None:
        """Prove a sentence and print what came of it."""
        began = time.monotonic()
        why = ""
        try:
            proves()
        except (NotSo, LabError, KeyError) as error:
            why = str(error) or repr(error)
        self._note(Verdict(text, when, not why, why, time.monotonic() - began))

    def broke(self, error: LabError) -> None:
        """Keep that the lab itself failed, so that nothing was asked any more."""
        self._note(Verdict("the lab holds until the end", AGAIN, holds=False, why=str(error), seconds=0.0))

    def _note(self, verdict: Verdict) -> None:
        # The journal tells something once; each further failure prints its own line alone.
        shown = _SHOWN if self.holds or not self.verdicts else 1
        self.verdicts.append(verdict)
        self.screen.mark(verdict.holds, f"{verdict.text}  ({verdict.seconds:.2f} s)")
        for line in verdict.why.splitlines()[:shown]:
            self.screen.line(line, "dim", indent=6)

    @property
    def holds(self) -> bool:
        """Whether every sentence is true."""
        return bool(self.verdicts) and all(verdict.holds for verdict in self.verdicts)

    def rows(self) -> list[tuple[str, bool | None, bool | None]]:
        """Return each sentence once, in order, with what came of it at both times."""
        found = {(verdict.text, verdict.when): verdict.holds for verdict in self.verdicts}
        texts = dict.fromkeys(verdict.text for verdict in self.verdicts)
        return [(text, found.get((text, TOLD)), found.get((text, AGAIN))) for text in texts]

    def told(self) -> dict[str, Any]:
        """Return everything for programs."""
        steps = [
            {
                "step": step.step,
                "says": step.says,
                "command": step.command,
                "exit": result.code,
                "seconds": round(result.seconds, 3),
                "answer": answer_lines(step, result),
            }
            for step, result in self.played
        ]
        sentences = [verdict._asdict() for verdict in self.verdicts]
        found = {"act": self.act.name, "holds": self.holds, "first_packet_s": self.first_packet_s}
        return {**found, "steps": steps, "sentences": sentences}


def _judge(kept: dict[str, Connection], cut: str) -> None:
    if cut not in kept:
        raise NotSo("the connection did not come up before")
    kept.pop(cut).is_cut()
    for connection in kept.values():
        connection.works()


def _none(failed: list[str], text: str) -> None:
    if failed:
        raise NotSo(text + ", ".join(failed))


def _idle(answer: str) -> None:
    if "nothing to do" not in answer.partition("\n")[0]:
        raise NotSo(answer)


def _same(before: int, stage: Stage) -> None:
    now = generation(stage)
    if now != before:
        raise NotSo(f"generation {now} is in force, not {before}")


def _watch(stage: Stage, first: tuple[str, int], began: float, seen: list[float]) -> None:
    """Ask all the time until the first answer comes through the router; note the seconds since `began`."""
    asked = {"address": first[0], "port": first[1], "proto": "udp", "source": OFFICE, "source_port": 0}
    while time.monotonic() < began + DARK_S:
        try:
            stage.world.ask("reach", timeout_s=_ASK_S, once=True, **asked)
        except OSError:
            time.sleep(_ASK_S / 5)
            continue
        seen.append(time.monotonic() - began)
        return
