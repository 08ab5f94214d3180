"""What the demo prints: whole lines one after the other, colours on a terminal alone."""

import os
import shutil
import sys
import textwrap
from typing import TextIO

from holdfast.lab.process import Result
from holdfast.lab.story import Step

SHOWN = 10
"""How many lines of an answer are printed; the rest is counted."""
_WIDTH = 120
_CODES = {"bold": "1", "dim": "2", "green": "32", "red": "31", "cyan": "36"}
TICK, CROSS, NONE = "✓", "✗", "·"


class Screen:
    """Where the demo tells its story."""

    def __init__(self, out: TextIO = sys.stdout) -> None:
        self.out = out
        self.colours = out.isatty() and "NO_COLOR" not in os.environ
        self.width = min(_WIDTH, shutil.get_terminal_size().columns) if out.isatty() else _WIDTH

    def paint(self, text: str, *styles: str) -> str:
        """Return the text in these styles, where there are colours."""
        if not self.colours or not styles:
            return text
        return f"\x1b[{';'.join(_CODES[style] for style in styles)}m{text}\x1b[0m"

    def line(self, text: str = "", *styles: str, indent: int = 0) -> None:
        """Print one line, shortened to the width."""
        room = self.width - indent
        text = text if len(text) <= room else f"{text[: room - 1]}…"
        print(" " * indent + self.paint(text, *styles), file=self.out, flush=True)

    def title(self, text: str) -> None:
        """Begin a chapter."""
        self.line()
        self.line(f"== {text}", "bold")

    def words(self, text: str, *styles: str, first: str = "", indent: int = 4) -> None:
        """Print a text, wrapped; `first` stands before its first line."""
        for number, line in enumerate(textwrap.wrap(text, self.width - indent)):
            print(f"{first if not number else '':<{indent}}{self.paint(line, *styles)}", file=self.out, flush=True)

    def begin(self, step: Step) -> None:
        """Print what is done next."""
        self.line()
        self.words(step.says, "bold", first=f"{step.step:>2}")
        if step.unplug:
            self.line(f"(the nic {step.unplug} is unplugged)", "dim", indent=4)
        if step.plug is not None:
            self.line(f"(a nic {step.plug.mac} is plugged into {step.plug.segment})", "dim", indent=4)
        self.line(f"{step.router}$ {step.command}", "cyan", indent=4)

    def end(self, step: Step, result: Result) -> None:
        """Print what the router answered."""
        lines = answer_lines(step, result)
        for line in lines[:SHOWN]:
            style = {"+": "green", "-": "red", "~": "cyan"}.get(line[:1], "dim")
            self.line(line, style, indent=6)
        if len(lines) > SHOWN:
            self.line(f"… and {len(lines) - SHOWN} more lines", "dim", indent=6)
        ended = f"exit {result.code}, {result.seconds:.2f} s"
        self.mark(result.code == 0, ended, indent=4)

    def mark(self, holds: bool, text: str, *, indent: int = 2) -> None:  # noqa: FBT001 a tick or a cross
        """Print a line with a tick or a cross before it."""
        sign = self.paint(TICK, "green") if holds else self.paint(CROSS, "red", "bold")
        print(f"{' ' * indent}{sign} {text}", file=self.out, flush=True)

    def table(self, title: str, rows: list[tuple[str, bool | None, bool | None]], heads: tuple[str, str]) -> None:
        """Print sentences with two verdicts each; None: it was not asked then."""
        self.line()
        self.line(f"{heads[0]:^8} {heads[1]:^8} {title}", "bold")
        for text, *verdicts in rows:
            signs = " ".join(self._sign(verdict) for verdict in verdicts)
            print(f"{signs} {text}", file=self.out, flush=True)

    def _sign(self, verdict: bool | None) -> str:  # noqa: FBT001 a tick or a cross
        text = f"{NONE if verdict is None else TICK if verdict else CROSS:^8}"
        return self.paint(text, "dim" if verdict is None else "green" if verdict else "red")


def answer_lines(step: Step, result: Result) -> list[str]:
    """Return an answer's lines without the name of the message, which stands in the command already."""
    text = result.text.rstrip() or result.errors.rstrip()
    lines = text.splitlines() if result.code in (0, 5) else (result.text + result.errors).splitlines()
    if lines:
        for name in (step.command.split()[-1], step.file):
            lines[0] = lines[0].removeprefix(f"{name}: ")
    return lines
