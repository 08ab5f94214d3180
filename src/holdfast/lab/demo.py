"""`make demo`: an isolated router's deployment, played live and proven with packets, before and after a power cut."""

import argparse
import json
import os
import signal
import sys
import threading
import time
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from types import FrameType
from typing import NamedTuple

from holdfast.lab.demo_proof import FORWARDS, OFFICE, SENTENCES, generation, prepare
from holdfast.lab.demo_screen import Screen, answer_lines
from holdfast.lab.host import Connection
from holdfast.lab.lab import Lab
from holdfast.lab.process import Result
from holdfast.lab.sentence import LabError, NotSo
from holdfast.lab.story import Stage, Step, Story, build, load, play

EXAMPLE = Path(__file__).parents[3] / "examples" / "isolated-router"
NAME = "demo"
DARK_S = 60.0
_HOLDFAST = ".venv/bin/holdfast"
_ASK_S = 0.05
_SHOWN = 25  # lines of a failed sentence: itself and the end of the journal
_ENDS = (signal.SIGTERM, signal.SIGHUP)  # beside Ctrl-C: a closed terminal is no reason to leave a lab behind
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


class Demo:
    """One performance."""

    def __init__(self, story: Story, screen: Screen) -> None:
        self.story, self.screen = story, screen
        self.played: list[Played] = []
        self.verdicts: list[Verdict] = []
        self.first_packet_s: float | None = None

    def perform(self, lab: Lab) -> None:
        """Play everything; sentences that fail are kept and the rest goes on."""
        self.screen.title("A lab: a router that knows nothing, three guests, an Internet, a management side")
        stage = build(lab, self.story.topology)
        took = stage.router.boot()
        prepare(stage)
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
        self.ask("the whole network sent again changes nothing", TOLD, lambda: _idle(changed))

    def _connections(self, stage: Stage) -> dict[str, Connection]:
        """Connections that are open while rules are revoked; one that does not come up is missed by `_judge`."""
        world, web1 = stage.world, stage.guests["web1"]
        kept: dict[str, Connection] = {}

        def connect() -> None:
            for guest in stage.guests.values():
                guest.gets_lease()
            kept["ingress"] = world.connects(FORWARDS, 9000, source=OFFICE)
            kept["egress"] = web1.connects(OFFICE, 5000)
            kept["inwards"] = world.connects(FORWARDS, 8080, source=OFFICE)
            kept["outwards"] = web1.connects(OFFICE, 443)

        self.ask("four connections are open while rules are revoked, two in and two out", TOLD, connect)
        return kept

    def _prove(self, stage: Stage, when: str) -> None:
        for text, proves in SENTENCES:
            self.ask(text, when, partial(proves, stage))

    def _cut(self, stage: Stage) -> None:
        """Power off and on; time until the first packet is forwarded."""
        before = generation(stage)
        self.screen.title("Power cut")
        stage.router.power_cut()
        text = "The router's processes and its whole kernel state are gone, only its disk is left."
        self.screen.words(text, indent=2)
        self.ask("without power nothing is forwarded", AGAIN, lambda: stage.world.cannot_reach(FORWARDS, 8080))
        self.screen.title("Power on; nothing is sent")
        seen: list[float] = []
        watcher = threading.Thread(target=_watch, args=(stage, time.monotonic(), seen), daemon=True)
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

    def close(self, seconds: float) -> None:
        """Print the table."""
        self.screen.title("In one table: as told, and after the power cut")
        self.screen.table(self.rows(), (TOLD, AGAIN))
        self.screen.line()
        wrong = sum(not verdict.holds for verdict in self.verdicts)
        dark = "" if self.first_packet_s is None else f", {self.first_packet_s:.2f} s from power-on to first packet"
        text = f"{len(self.verdicts)} answers, {wrong or 'none'} wrong{dark}, {seconds:.0f} s in all"
        self.screen.mark(self.holds, text, indent=0)

    def json(self, seconds: float) -> str:
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
        told = {"holds": self.holds, "seconds": round(seconds, 1), "first_packet_s": self.first_packet_s}
        return json.dumps({**told, "steps": steps, "sentences": sentences}, indent=2, ensure_ascii=False)


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


def _watch(stage: Stage, began: float, seen: list[float]) -> None:
    """Ask all the time until the first answer comes through the router; note the seconds since `began`."""
    asked = {"address": FORWARDS, "port": 6000, "proto": "udp", "source": OFFICE, "source_port": 0}
    while time.monotonic() < began + DARK_S:
        try:
            stage.world.ask("reach", timeout_s=_ASK_S, once=True, **asked)
        except OSError:
            time.sleep(_ASK_S / 5)
            continue
        seen.append(time.monotonic() - began)
        return


def _stop(_signal: int, _frame: FrameType | None) -> None:
    raise KeyboardInterrupt


def _remove(lab: Lab) -> None:
    """Remove the lab; who is impatient now would leave half of it behind."""
    for number in (signal.SIGINT, *_ENDS):
        signal.signal(number, signal.SIG_IGN)
    lab.remove()


def run(*, keep: bool, as_json: bool) -> int:
    """Perform the demo; return its exit status: 0 if every sentence holds, else 1."""
    began = time.monotonic()
    screen = Screen(sys.stderr if as_json else sys.stdout)
    demo = Demo(load(EXAMPLE), screen)
    lab = Lab(NAME, stay=keep)
    try:
        demo.perform(lab)
    except LabError as error:
        demo.broke(error)
    except BaseException:
        _remove(lab)
        raise
    if not keep:
        _remove(lab)
    seconds = time.monotonic() - began
    demo.close(seconds)
    if as_json:
        print(demo.json(seconds))  # noqa: T201 what was asked for
    if keep:
        screen.line()
        screen.line("The lab is still up.  Look around, or remove it:")
        for words in (f"shell {NAME} r1", f"shell {NAME} web1", f"run {NAME} r1 -- holdfast status", f"down {NAME}"):
            screen.line(f"  {_HOLDFAST} lab {words}")
    return 0 if demo.holds else 1


def main(argv: Sequence[str] | None = None) -> int:
    """Run as `python -m holdfast.lab.demo [--keep] [--json]`."""
    parser = argparse.ArgumentParser(prog="make demo", description="A router's deployment, played and proven.")
    parser.add_argument("--keep", action="store_true", help="leave the lab up")
    parser.add_argument("--json", action="store_true", help="print results as JSON; the story goes to stderr")
    options = parser.parse_args(argv)
    for number in (signal.SIGINT, *_ENDS):  # set also where a shell in the background had it ignored
        signal.signal(number, _stop)
    try:
        return run(keep=options.keep, as_json=options.json)
    except KeyboardInterrupt:
        print("\ndemo: stopped, everything is removed", file=sys.stderr)  # noqa: T201 its reader is at a terminal
        return 130
    except BrokenPipeError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())  # nobody reads on: say no more
        return 1
    except LabError as error:
        print(f"demo: {error}", file=sys.stderr)  # noqa: T201 same
        return 2


if __name__ == "__main__":
    sys.exit(main())
