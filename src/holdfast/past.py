"""What this router was told and asked, as `holdfast history` shows it: generations, and calls with their answers."""

from collections.abc import Iterable, Iterator
from pathlib import Path
from time import localtime, strftime
from typing import NamedTuple

from holdfast.calls import LARGEST, LOG
from holdfast.generation import Meta


class Call(NamedTuple):
    """One call: when (seconds since 1970), its words, its exit status, how long it took, how its answer begins."""

    at: float
    words: str
    code: int
    seconds: float
    answer: str


def calls(root: Path) -> Iterator[Call]:
    """The calls that are still known, oldest first, without lines that are none; OSError if a log cannot be read."""
    for path in (root / f"{LOG}.1", root / LOG):
        try:
            with path.open("rb") as log:
                lines = log.read(2 * LARGEST).decode("utf-8", "replace").split("\n")
        except FileNotFoundError:
            continue
        for line in lines:
            try:
                at, code, seconds, words, answer = line.split("\t")
                yield Call(float(at), words, int(code), float(seconds), answer)
            except ValueError:
                continue  # cut by the end of power or of room


def lines(metas: Iterable[Meta], asked: Iterable[Call]) -> list[str]:
    """Generations by their number, and between them calls by `exit` and their status, newest first."""
    found = [
        (meta.created, f"{meta.number:6}", meta.cause + (f"  ({len(meta.refused)} refused)" if meta.refused else ""))
        for meta in metas
    ]
    found += [(call.at, f"exit {call.code}", f"{call.words}: {call.answer or 'no text'}") for call in asked]
    found.sort(key=lambda one: one[0], reverse=True)
    return [f"{what:6} {strftime('%Y-%m-%d %H:%M:%S', localtime(at))} {text}" for at, what, text in found]
