"""`make demo`: routers' deployments, played live and proven with packets, before and after a power cut."""

import argparse
import json
import os
import signal
import sys
import time
from collections.abc import Sequence
from types import FrameType

from holdfast.lab.demo_failover import FAILOVER, Failover
from holdfast.lab.demo_isolated import ISOLATED
from holdfast.lab.demo_play import AGAIN, TOLD, Performance
from holdfast.lab.demo_screen import Screen
from holdfast.lab.demo_vpc import VPC
from holdfast.lab.lab import Lab
from holdfast.lab.sentence import LabError

ACTS = {"isolated": ISOLATED, "vpc": VPC, "failover": FAILOVER}
_HOLDFAST = ".venv/bin/holdfast"
_ENDS = (signal.SIGTERM, signal.SIGHUP)  # beside Ctrl-C: a closed terminal is no reason to leave a lab behind


def close(screen: Screen, performances: Sequence[Performance], seconds: float) -> None:
    """Print the table: each act's sentences under its name."""
    screen.title("In one table: as told, and after the power cut or the failover")
    for performance in performances:
        screen.table(performance.act.title, performance.rows(), (TOLD, AGAIN))
    screen.line()
    verdicts = [verdict for performance in performances for verdict in performance.verdicts]
    wrong = sum(not verdict.holds for verdict in verdicts)
    first = [f"{one.first_packet_s:.2f} s" for one in performances if one.first_packet_s is not None]
    dark = f", {' and '.join(first)} from power-on to first packet" if first else ""
    text = f"{len(verdicts)} answers, {wrong or 'none'} wrong{dark}, {seconds:.0f} s in all"
    screen.mark(all(performance.holds for performance in performances), text, indent=0)


def _stop(_signal: int, _frame: FrameType | None) -> None:
    raise KeyboardInterrupt


def _remove(labs: Sequence[Lab]) -> None:
    """Remove labs; who is impatient now would leave half of one behind."""
    before = {number: signal.signal(number, signal.SIG_IGN) for number in (signal.SIGINT, *_ENDS)}
    for lab in labs:
        lab.remove()
    for number, handler in before.items():
        signal.signal(number, handler)


def perform(acts: Sequence[str], screen: Screen, *, keep: bool) -> tuple[list[Performance], list[str]]:
    """Perform acts one after the other; return them and the names of the labs that are left up."""
    performances: list[Performance] = []
    labs: list[Lab] = []
    try:
        for name in acts:
            performances.append((Failover if name == "failover" else Performance)(ACTS[name], screen))
            labs.append(Lab(f"demo{name}", stay=keep))
            try:
                performances[-1].perform(labs[-1])
            except LabError as error:
                performances[-1].broke(error)
            if not keep:
                _remove([labs.pop()])
    except BaseException:
        _remove(labs)
        raise
    return performances, [lab.name for lab in labs]


def run(acts: Sequence[str], *, keep: bool, as_json: bool) -> int:
    """Perform the demo; return its exit status: 0 if every sentence holds, else 1."""
    began = time.monotonic()
    screen = Screen(sys.stderr if as_json else sys.stdout)
    performances, labs = perform(acts, screen, keep=keep)
    seconds = time.monotonic() - began
    close(screen, performances, seconds)
    holds = all(performance.holds for performance in performances)
    if as_json:
        told = {"holds": holds, "seconds": round(seconds, 1), "acts": [one.told() for one in performances]}
        print(json.dumps(told, indent=2, ensure_ascii=False))  # noqa: T201 what was asked for
    for lab in labs:
        screen.line()
        screen.line(f"The lab {lab} is still up.  Look around, or remove it:")
        for words in (f"shell {lab} r1", f"shell {lab} web1", f"run {lab} r1 -- holdfast status", f"down {lab}"):
            screen.line(f"  {_HOLDFAST} lab {words}")
    return 0 if holds else 1


def main(argv: Sequence[str] | None = None) -> int:
    """Run as `python -m holdfast.lab.demo [--only ACT] [--keep] [--json]`."""
    parser = argparse.ArgumentParser(prog="make demo", description="Routers' deployments, played and proven.")
    parser.add_argument("--only", choices=ACTS, help="play one act alone")
    parser.add_argument("--keep", action="store_true", help="leave the labs up")
    parser.add_argument("--json", action="store_true", help="print results as JSON; the story goes to stderr")
    options = parser.parse_args(argv)
    for number in (signal.SIGINT, *_ENDS):  # set also where a shell in the background had it ignored
        signal.signal(number, _stop)
    try:
        return run([options.only] if options.only else [*ACTS], keep=options.keep, as_json=options.json)
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
