"""What a version has outside its tree, where management servers, systemd and users look for it.

A package puts it there, and the versions that an upgrade switches between differ in it: each keeps its own.  Programs
are in the tree's `bin`, and `links` says by which names they are called, a line of name and target each: so a switch
of the tree is one of all programs.  Units and the like are in `outside`, at their paths below the root.
"""

import os
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path
from typing import TypeAlias

from holdfast import whole

FILES, LINKS = "outside", "links"
UNSETTLED = "unsettled"
"""There, beside the trees, while what lies outside them may be of another version than the one in use."""
_UNITS = "usr/lib/systemd/system"
_MODE = 0o644

Held: TypeAlias = Mapping[str, bytes | str]
"""By path relative to the root: a file's content, or where a link points."""


def held(tree: Path) -> Held:
    """What the version in a tree has outside it; empty for one that has kept nothing.  OSError."""
    place = tree / FILES
    found: dict[str, bytes | str] = {
        str(path.relative_to(place)): path.read_bytes() for path in sorted(place.rglob("*")) if path.is_file()
    }
    with suppress(FileNotFoundError):
        found |= dict(line.split() for line in (tree / LINKS).read_text("utf-8").splitlines())
    return found


def units_gone(tree: Path, other: Path) -> list[str]:
    """Units that the version in `other` has and the one in `tree` has not.  OSError."""
    wanted = held(tree)
    gone = (Path(path) for path in held(other) if wanted and path not in wanted)
    return [path.name for path in gone if str(path.parent) == _UNITS]


def put(root: Path, tree: Path, other: Path) -> list[str]:
    """Put there what the version in `tree` has, and take away what only the one in `other` had.

    Returns the paths that have changed, none where the version has kept nothing.  OSError, with a part done: doing it
    again is right.
    """
    wanted = held(tree)
    if not wanted:
        return []
    changed = [path for path, thing in wanted.items() if there(root / path) != thing]
    gone = [path for path in held(other) if path not in wanted and there(root / path) is not None]
    for path in changed:
        _lay(root / path, wanted[path])
    for path in gone:
        (root / path).unlink()
        with suppress(OSError):  # a unit's drop-ins may have been its only file; else something is left in there
            if Path(path).parent.suffix == ".d":
                (root / path).parent.rmdir()
    for directory in {(root / path).parent for path in (*changed, *gone)}:
        if directory.is_dir():
            whole.sync(directory)
    return [*changed, *gone]


def unsettle(home: Path) -> None:
    """Note on the disk that what lies outside is about to change.  OSError."""
    (home / UNSETTLED).touch()
    whole.sync(home)


def settle(root: Path, home: Path, tree: Path) -> list[str]:
    """Put there what the version in `tree` has, whatever other one a power cut has left there.

    Returns the paths that have changed.  OSError, with a part done: doing it again is right.
    """
    changed: list[str] = []
    for other in sorted((home / "versions").iterdir()):
        if other.is_dir():
            changed += put(root, tree, other)
    settled(home)
    return changed


def settled(home: Path) -> None:
    """Note that it is of the version in use.  Who dies before it lasts does it again."""
    (home / UNSETTLED).unlink(missing_ok=True)


def there(path: Path) -> bytes | str | None:
    """Return what is at a path: a file's content, where a link points; None where neither is."""
    if path.is_symlink():
        return str(path.readlink())
    return path.read_bytes() if path.is_file() else None


def _lay(path: Path, thing: bytes | str) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    if isinstance(thing, bytes):
        whole.put(path, thing, _MODE)
        return
    aside = path.with_name(f".{path.name}.{os.getpid()}")
    aside.unlink(missing_ok=True)
    aside.symlink_to(thing)
    aside.replace(path)
