"""The few effects on a disk that a crash can fall between, so that a test can cut the power at each of them."""

import os
from collections.abc import Iterable, Iterator
from contextlib import suppress
from pathlib import Path
from typing import NamedTuple

DIRECTORY_MODE = 0o700
FILE_MODE = 0o400


class Entry(NamedTuple):
    """A file in a directory: its inode and its size in bytes."""

    inode: int
    size: int


class Disk:
    """Plain POSIX calls, each one operation.  Nothing is durable before `sync` of the file and of its directory.

    Every method raises OSError as the kernel reports it.
    """

    def read(self, path: Path) -> bytes:
        """Read a whole file."""
        with open(path, "rb", buffering=0) as file:  # noqa: PTH123 half the cost of Path.open, and start-up counts
            return file.readall()

    def names(self, directory: Path) -> list[str]:
        """Names in a directory, in no order."""
        return os.listdir(directory)  # noqa: PTH208 names are wanted, not paths

    def readlink(self, path: Path) -> str:
        """Where a symbolic link points."""
        return os.readlink(path)  # noqa: PTH115 the text as it is, not a path made of it

    def links(self, path: Path) -> int:
        """How many names a file has."""
        return path.stat().st_nlink

    def entries(self, directory: Path) -> Iterator[Entry]:
        """Every file of a directory."""
        with os.scandir(directory) as found:
            for entry in found:
                stat = entry.stat(follow_symlinks=False)
                yield Entry(stat.st_ino, stat.st_size)

    def write(self, path: Path, data: bytes) -> None:
        """Make a file that is not there yet."""
        handle = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW, FILE_MODE)
        with os.fdopen(handle, "wb", buffering=0) as file:
            view = memoryview(data)
            while view:
                view = view[file.write(view) :]

    def sync(self, path: Path) -> None:
        """Make a file's bytes, or a directory's names, durable."""
        handle = os.open(path, os.O_RDONLY)
        try:
            os.fsync(handle)
        finally:
            os.close(handle)

    def make_directory(self, path: Path) -> None:
        """Make a directory that only its owner enters."""
        path.mkdir(mode=DIRECTORY_MODE)

    def link(self, existing: Path, path: Path) -> None:
        """Give a file a second name."""
        path.hardlink_to(existing)

    def symlink(self, target: str, path: Path) -> None:
        """Make a symbolic link that is not there yet."""
        path.symlink_to(target)

    def rename(self, before: Path, after: Path) -> None:
        """Rename; what bore the new name is replaced in the same instant."""
        before.rename(after)

    def unlink(self, path: Path) -> None:
        """Remove a name."""
        path.unlink()

    def remove_directory(self, path: Path) -> None:
        """Remove an empty directory."""
        path.rmdir()


def replace_link(disk: Disk, link: Path, target: str, aside: str) -> None:
    """Set a symbolic link in one instant.  What stands there and is no link is kept, `aside` appended to its name."""
    fresh = link.with_name(f".{link.name}.new")
    with suppress(FileNotFoundError):
        disk.unlink(fresh)
    disk.symlink(target, fresh)
    if os.path.lexists(link) and not link.is_symlink():
        disk.rename(link, link.with_name(link.name + aside))
    disk.rename(fresh, link)


def link_through(disk: Disk, directory: Path, through: str, names: Iterable[str], aside: str) -> None:
    """Let exactly these names in `directory` lead to `through/<name>`.  Links of other hands to elsewhere stay."""
    wanted = {name: f"{through}/{name}" for name in names}
    stale = []
    for name in disk.names(directory):
        with suppress(OSError):  # not a link
            target = disk.readlink(directory / name)
            if wanted.get(name) == target:
                del wanted[name]
            elif name not in wanted and target == f"{through}/{name}":
                stale.append(name)
    for name in stale:
        disk.unlink(directory / name)
    for name, target in wanted.items():
        replace_link(disk, directory / name, target, aside)
    if wanted or stale:
        disk.sync(directory)


def remove(disk: Disk, directory: Path) -> None:
    """Remove a directory of files as far as that is possible; what is left can be tried again."""
    with suppress(OSError):
        for name in disk.names(directory):
            disk.unlink(directory / name)
        disk.remove_directory(directory)
