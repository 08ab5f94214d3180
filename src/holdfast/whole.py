"""Files that are replaced whole: whoever reads one, and a power cut, finds the old or the new, never a part."""

import os
from pathlib import Path


def put(path: Path, content: bytes, mode: int = 0o600, *, lasting: bool = True) -> None:
    """Replace a file; a symbolic link is replaced, not followed.  OSError, and then nothing has changed.

    `lasting`: the content is on the disk before it has the name; the name lasts when the directory is synced.
    """
    # A name of this process's own: of two writers none gives the other's unfinished file the name.
    fresh = path.with_name(f".{path.name}.{os.getpid()}")
    try:
        create(fresh, content, mode, lasting=lasting)
        fresh.replace(path)
    except OSError:
        fresh.unlink(missing_ok=True)
        raise


def create(path: Path, content: bytes, mode: int, *, group: int = 0, lasting: bool = True) -> None:
    """Make a new file of exactly this mode and group; what was left under that name goes.  OSError."""
    path.unlink(missing_ok=True)
    descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC, 0o600)
    with open(descriptor, "wb") as file:  # noqa: PTH123 a path cannot be opened by descriptor
        file.write(content)
        file.flush()
        if group:
            os.fchown(descriptor, -1, group)
        os.fchmod(descriptor, mode)
        if lasting:
            os.fsync(descriptor)


def sync(directory: Path) -> None:
    """Put a directory's names on the disk.  OSError."""
    descriptor = os.open(directory, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
