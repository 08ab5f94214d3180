"""Scripts about files: diagnostics are collected and removed again, and the disk is tried."""

import errno
import os
import sys
import time
from collections.abc import Iterator, Sequence
from pathlib import Path

from holdfast.answers.get_diagnostics_files import ARCHIVE, KEYWORDS, masked, may_read, wanted
from holdfast.scripts import failed, refuse, words

HOME = "root"
TRIED = ("root", "var/cache/cloud")
"""Directories that management servers must be able to write to."""
LONGEST = 8 << 20
"""Bytes of one file: its end is what matters."""
MOST = 64 << 20
KEPT = 3
"""Archives that may lie there: who does not remove them must not fill the disk."""
_FREE = 3
_PROGRAM_S = 20.0
_DEAD_S = 3600.0


def filesystem_writable_check(argv: Sequence[str], root: Path = Path("/")) -> int:
    """filesystem_writable_check.py: 0 if all can be written to; the text of a failure is read."""
    if words(argv):
        return refuse("filesystem_writable_check.py   whether the disk can be written to")
    code = 0
    for name in TRIED:
        if why := unwritable(root / name):
            sys.stdout.write(f"{why}: /{name}\n")
            code = 1
    return code


def unwritable(directory: Path) -> str:
    """Why a directory cannot be written to; empty if it can."""
    probe = directory / f".holdfast-{os.getpid()}"
    try:
        handle = os.open(probe, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW, 0o600)
        try:
            os.write(handle, b"x")
            os.fsync(handle)
        finally:
            os.close(handle)
            probe.unlink()
    except OSError as error:
        return os.strerror(error.errno or errno.EIO)  # "Read-only file system" is the text that is looked for
    return ""


def cleanup(argv: Sequence[str], root: Path = Path("/")) -> int:
    """cleanup.sh PATH: remove an archive of diagnostics, and nothing else.  One that is not there is removed."""
    if len(argv) != 1 or not ARCHIVE.fullmatch(argv[0]):
        return refuse("cleanup.sh /root/diagnostics_files_N.zip   remove what get_diagnostics_files.py made")
    try:
        (root / argv[0].lstrip("/")).unlink(missing_ok=True)
    except OSError as error:
        return failed(error)
    return 0


def get_diagnostics_files(argv: Sequence[str], root: Path = Path("/")) -> int:
    """get_diagnostics_files.py WORD…: put files and what programs show into an archive; print its path."""
    try:
        path = _archive([word for word in words(argv) if word], root)
    except OSError as error:
        return failed(error)
    sys.stdout.write(f"{path}\n")
    return 0


def _archive(asked: list[str], root: Path) -> str:
    import zipfile  # noqa: PLC0415 the other scripts of this module start fast

    home = root / HOME
    _prune(home)
    stat = os.statvfs(home)
    if stat.f_bavail * stat.f_frsize < MOST // _FREE:
        raise OSError(errno.ENOSPC, "too little room for an archive", str(home))
    name = f"diagnostics_files_{time.time_ns() // 1000}.zip"
    fresh = home / f".{name}"
    handle = os.open(fresh, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW, 0o600)
    told = []
    try:
        with os.fdopen(handle, "wb") as file, zipfile.ZipFile(file, "w", zipfile.ZIP_DEFLATED) as archive:
            for member, text, line in _members(asked, root):
                told.append(line)
                if member:
                    archive.writestr(member, text)
            archive.writestr("fileinfo.txt", "".join(f"{line}\n" for line in told))
        fresh.replace(home / name)
    finally:
        fresh.unlink(missing_ok=True)
    return f"/{HOME}/{name}"


def _members(asked: list[str], root: Path) -> Iterator[tuple[str, bytes, str]]:
    """Name, text, and a line for fileinfo.txt, of all that is put in; no name for what is left out."""
    found = wanted(asked)
    total = 0
    for word in found.keywords:
        text = _shown(word)
        yield f"{word}.txt", text, f"{word}: {' '.join(KEYWORDS[word])}, {len(text)} bytes"
    for path in found.files:
        try:
            text = _read(path, root) if total < MOST else b""
        except OSError as error:
            yield "", b"", f"{path}: {error.strerror}"
            continue
        total += len(text)
        yield (path.lstrip("/") if total < MOST else ""), masked(path, text), f"{path}: {len(text)} bytes"
    for word in found.refused:
        yield "", b"", f"{word[:200]!r}: refused, it is not among what may leave the router"


def _read(path: str, root: Path) -> bytes:
    place = root / path.lstrip("/")
    try:
        real = place.resolve(strict=True)
        inside = f"/{real.relative_to(root.resolve())}"
    except (RuntimeError, ValueError) as error:
        raise OSError(errno.EACCES, "refused, it is a link to nothing that could go out") from error
    if not may_read(inside) or not real.is_file():
        raise OSError(errno.EACCES, f"refused, it is {inside}")
    with real.open("rb") as file:
        size = file.seek(0, 2)
        file.seek(max(0, size - LONGEST))
        return file.read(LONGEST)


def _shown(word: str) -> bytes:
    from holdfast.run import capture  # noqa: PLC0415 as above

    try:
        done = capture(KEYWORDS[word], timeout_s=_PROGRAM_S)
    except OSError as error:
        return f"{error}\n".encode()
    return f"{done.out}{done.errors}".encode()[:LONGEST]


def _prune(home: Path) -> None:
    """Leave room for one more; what a run that died has left goes too."""
    archives = sorted(path for path in home.glob("diagnostics_files_*") if ARCHIVE.fullmatch(f"/{HOME}/{path.name}"))
    dead = [path for path in home.glob(".diagnostics_files_*.zip") if time.time() - path.stat().st_mtime > _DEAD_S]
    for path in [*archives[: max(0, len(archives) - KEPT + 1)], *dead]:
        path.unlink(missing_ok=True)
