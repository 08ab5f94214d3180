"""A disk that remembers each operation, and the states in which a power cut may leave it.

What is modelled, worse than any file system that routers run on: a name that its directory has not synced is there or
not, independently of every other name (a rename is one thing: both of its names or neither); bytes that their file has
not synced are whole, cut in half, half zeros, or gone.  What was synced stays.
"""

import itertools
import os
import random
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import TypeAlias

from holdfast.disk import Disk

ALL_SUBSETS_UP_TO = 5
SAMPLES = 24

Directory: TypeAlias = dict[str, int]
Name: TypeAlias = tuple[int, str]
Change: TypeAlias = tuple[tuple[Name, int | None], ...]
"""Names that change together: which one, and the inode that it gets (None: none)."""
Tear: TypeAlias = Callable[[bytes], bytes]

TEARS: tuple[Tear, ...] = (
    lambda data: data,
    lambda data: data[: len(data) // 2],
    lambda data: data[: len(data) // 2] + bytes(len(data) - len(data) // 2),
    lambda _: b"",
)


@dataclass
class Inode:
    """A file, a link or a directory.  `synced` is what of it is durable: all names of a directory, bytes of a file."""

    target: str | None = None
    data: bytes | None = None
    synced: bool = True
    names: Directory = field(default_factory=dict)


class RecordingDisk(Disk):
    """Does everything for real, and keeps for each moment what is durable and what is not yet."""

    def __init__(self, top: Path) -> None:
        """`top` and everything in it counts as durable already."""
        self.top = top
        self.log: list[str] = []
        self.states: list[set[Tree]] = []
        self._inodes: dict[int, Inode] = {}
        self._now: dict[int, Directory] = {}
        self._pending: list[Change] = []
        self._root = self._learn(top, {})
        self._mark("start")

    def write(self, path: Path, data: bytes) -> None:
        super().write(path, data)
        number = self._add(Inode(data=b"", synced=False))
        self._change((self._name(path), number))
        self._mark(f"open {path.name}")
        self._inodes[number].data = data
        self._mark(f"write {path.name}")

    def sync(self, path: Path) -> None:
        super().sync(path)
        if not path.is_relative_to(self.top):
            return
        number = self._find(path)
        self._inodes[number].synced = True
        if number in self._now:
            kept = []
            for change in self._pending:
                if any(directory == number for (directory, _), _ in change):
                    self._settle(change)
                else:
                    kept.append(change)
            self._pending = kept
        self._mark(f"sync {path.name}")

    def make_directory(self, path: Path) -> None:
        super().make_directory(path)
        number = self._add(Inode())
        self._now[number] = {}
        self._change((self._name(path), number))
        self._mark(f"mkdir {path.name}")

    def link(self, existing: Path, path: Path) -> None:
        super().link(existing, path)
        self._change((self._name(path), self._find(existing)))
        self._mark(f"link {path.name}")

    def symlink(self, target: str, path: Path) -> None:
        super().symlink(target, path)
        self._change((self._name(path), self._add(Inode(target=target))))
        self._mark(f"symlink {path.name}")

    def rename(self, before: Path, after: Path) -> None:
        number = self._find(before)
        super().rename(before, after)
        self._change((self._name(before), None), (self._name(after), number))
        self._mark(f"rename {before.name} {after.name}")

    def unlink(self, path: Path) -> None:
        super().unlink(path)
        self._change((self._name(path), None))
        self._mark(f"unlink {path.name}")

    def remove_directory(self, path: Path) -> None:
        super().remove_directory(path)
        self._change((self._name(path), None))
        self._mark(f"rmdir {path.name}")

    # --- the model

    def _learn(self, path: Path, known: dict[int, int]) -> int:
        stat = path.lstat()
        if stat.st_ino in known:
            return known[stat.st_ino]
        if path.is_symlink():
            number = self._add(Inode(target=os.readlink(path)))  # noqa: PTH115 the text, not a path
        elif path.is_dir():
            number = self._add(Inode())
            names = {each.name: self._learn(each, known) for each in sorted(path.iterdir())}
            self._inodes[number].names = names
            self._now[number] = dict(names)
        else:
            number = self._add(Inode(data=path.read_bytes()))
        known[stat.st_ino] = number
        return number

    def _add(self, inode: Inode) -> int:
        self._inodes[len(self._inodes)] = inode
        return len(self._inodes) - 1

    def _find(self, path: Path) -> int:
        number = self._root
        for part in path.relative_to(self.top).parts:
            number = self._now[number][part]
        return number

    def _name(self, path: Path) -> Name:
        return self._find(path.parent), path.name

    def _change(self, *names: tuple[Name, int | None]) -> None:
        for (directory, name), number in names:
            if number is None:
                del self._now[directory][name]
            else:
                self._now[directory][name] = number
        self._pending.append(names)

    def _settle(self, change: Change) -> None:
        for (directory, name), number in change:
            _put(self._inodes[directory].names, name, number)

    def _mark(self, what: str) -> None:
        """One operation is done: work out every state that a cut may leave right now."""
        self.log.append(what)
        trees: set[Tree] = set()
        for chosen in _subsets(len(self._pending), len(self.log)):
            names = {number: dict(inode.names) for number, inode in self._inodes.items() if number in self._now}
            for change, taken in zip(self._pending, chosen, strict=True):
                for (directory, name), number in change if taken else ():
                    _put(names[directory], name, number)
            trees.update(self._tree(self._root, names, tear) for tear in TEARS)
        self.states.append(trees)

    def _tree(self, number: int, names: dict[int, Directory], tear: Tear) -> "Tree":
        inode = self._inodes[number]
        if number in names:
            below = tuple((name, self._tree(each, names, tear)) for name, each in sorted(names[number].items()))
            return Tree(number, names=below)
        if inode.target is not None:
            return Tree(number, target=inode.target)
        assert inode.data is not None
        return Tree(number, data=inode.data if inode.synced else tear(inode.data))


@dataclass(frozen=True)
class Tree:
    """What is found after the power comes back; two trees are equal if nobody could tell them apart."""

    inode: int
    target: str | None = None
    data: bytes | None = None
    names: "tuple[tuple[str, Tree], ...]" = ()

    def lay_out(self, path: Path, made: dict[int, Path] | None = None) -> None:
        """Make it real at `path`, which is not there yet."""
        made = {} if made is None else made
        if self.target is not None:
            path.symlink_to(self.target)
        elif self.data is None:
            path.mkdir(mode=0o700)
            for name, tree in self.names:
                tree.lay_out(path / name, made)
        elif self.inode in made:
            path.hardlink_to(made[self.inode])
        else:
            path.write_bytes(self.data)
            made[self.inode] = path


def _put(names: Directory, name: str, number: int | None) -> None:
    if number is None:
        names.pop(name, None)
    else:
        names[name] = number


def _subsets(count: int, seed: int) -> Iterator[tuple[bool, ...]]:
    """Which of the pending changes made it to the disk: all combinations if few, else the telling ones and a sample."""
    if count <= ALL_SUBSETS_UP_TO:
        yield from itertools.product((False, True), repeat=count)
        return
    for place in range(count + 1):
        yield tuple(each < place for each in range(count))
        yield tuple(each >= place for each in range(count))
    for place in range(count):
        yield tuple(each == place for each in range(count))
        yield tuple(each != place for each in range(count))
    chance = random.Random(seed)  # noqa: S311 a sample, not a secret
    for _ in range(SAMPLES):
        yield tuple(chance.random() < 0.5 for _ in range(count))
