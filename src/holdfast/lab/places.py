"""Where each file of `system/` goes on a router: the one list that the package and the lab's image are made by."""

from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

LIST = "places"
UNITS = Path("usr/lib/systemd/system")
LIBEXEC = Path("opt/holdfast/libexec")


class Placed(NamedTuple):
    """A file for a router: its path there, relative to the root, what it is a copy of, and its mode."""

    to: Path
    source: Path
    mode: int = 0o644


class Rule(NamedTuple):
    """A line of the list: `pattern` and `to` are relative to the directory and to the root."""

    pattern: str
    mode: int
    to: str

    def fits(self, path: Path) -> bool:
        """Whether a path relative to the directory is meant: `match` alone would look at its end only."""
        return len(path.parts) == len(Path(self.pattern).parts) and path.match(self.pattern)


def placed(system: Path) -> Iterator[Placed]:
    """Every file of a directory with such a list in it, in the order of paths; ValueError if the list forgets one."""
    rules = rules_of(system)
    for source in sorted(path for path in system.rglob("*") if path.is_file()):
        inside = source.relative_to(system)
        if str(inside) == LIST or "__pycache__" in inside.parts:
            continue
        rule = next((rule for rule in rules if rule.fits(inside)), None)
        if rule is None:
            raise ValueError(f"{source}: {system / LIST} does not say where it goes")
        to = rule.to.format(name=source.name, stem=source.stem, parent=source.parent.name)
        yield Placed(Path(to), source, rule.mode)


def rules_of(system: Path) -> list[Rule]:
    """The lines of the list, in their order: pattern, octal mode, path."""
    lines = [line.split() for line in (system / LIST).read_text().splitlines() if line and not line.startswith("#")]
    return [Rule(pattern, int(mode, 8), to) for pattern, mode, to in lines]
