"""The disc whose files guests are served: read in pieces, by threads, and let go of as soon as it is unmounted."""

import asyncio
import errno
import logging
import os
import stat
from collections.abc import AsyncIterator, Callable
from concurrent.futures import ThreadPoolExecutor
from io import FileIO
from pathlib import Path

from holdfast.guest import answers, index
from holdfast.guest.answers import BINARY, NOT_FOUND, UNAVAILABLE, Answer, Request
from holdfast.guest.index import Place

ROOT = Path("/var/www/html/cks-iso")
PIECE = 65536
"""Bytes that one guest's download holds at a time; who takes less than this in the time of an exchange is left."""
MOST = 500
"""Downloads at a time."""

_READERS = 8  # threads: a disc that is slow delays those who read it, and nobody else
_FLAGS = os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_NOCTTY | os.O_CLOEXEC
_NOWHERE = (errno.EACCES, errno.ENOENT, errno.ENOTDIR, errno.ELOOP, errno.ENAMETOOLONG, errno.ENXIO)
_log = logging.getLogger(__name__)

Mounted = Callable[[Path], bool]


class Files:
    """What guests may read.  Nothing is remembered of the disc: another may be there with the next request."""

    def __init__(self, root: Path = ROOT, mounted: Mounted = os.path.ismount) -> None:
        self._root, self._mounted = root, mounted
        self._pool = ThreadPoolExecutor(_READERS, thread_name_prefix="disc")
        self._open = 0

    async def answer(self, request: Request) -> Answer:
        """Answer GET or HEAD of a place on the disc; 503 if too many downloads are under way."""
        place = index.place(answers.path_of(request.target))
        if place is None:
            return NOT_FOUND
        if self._open >= MOST:
            return UNAVAILABLE
        self._open += 1
        answer = None
        try:
            answer = await asyncio.get_running_loop().run_in_executor(self._pool, self._found, place, request)
        finally:
            if answer is None or answer.content is None:
                self._open -= 1
        return answer

    def close(self) -> None:
        """Wait for nobody: a drive may never answer."""
        self._pool.shutdown(wait=False, cancel_futures=True)

    def _found(self, place: Place, request: Request) -> Answer:
        try:
            return self._look(place, request)
        except OSError as error:
            if error.errno in _NOWHERE:
                return NOT_FOUND
            _log.error("the served disc: %s", error.strerror)
            return UNAVAILABLE

    def _look(self, place: Place, request: Request) -> Answer:
        # Taken first: if the disc is unmounted from here on, what is found is of another device, or not there.
        device = self._root.stat().st_dev
        if not self._mounted(self._root):
            return NOT_FOUND
        top = os.path.realpath(os.fsencode(self._root))
        # The disc is read-only, so no link changes between here and there.
        real = os.path.realpath(os.path.join(top, *place.names), strict=True)  # noqa: PTH118 names are bytes
        if real != top and not real.startswith(top + b"/"):
            return NOT_FOUND
        file = FileIO(os.open(real, _FLAGS), "rb") if not os.path.isdir(real) else None  # noqa: PTH112 bytes
        found = os.fstat(file.fileno()) if file else os.stat(real)  # noqa: PTH116 bytes
        if found.st_dev != device or (file and (place.slash or not stat.S_ISREG(found.st_mode))):
            if file:
                file.close()
            return NOT_FOUND
        return self._file(file, found, request) if file else _directory(place, real)

    def _file(self, file: FileIO, found: os.stat_result, request: Request) -> Answer:
        size = found.st_size
        span = index.span(request.headers, size) if request.method == b"GET" else index.Span(0, size)
        if span is None:
            file.close()
            return Answer(416, b"", headers=(f"Content-Range: bytes */{size}",))
        content = Download(self, file, span, found.st_dev)
        if span.length == size:
            return Answer(200, b"", BINARY, content=content, headers=("Accept-Ranges: bytes",))
        part = f"Content-Range: bytes {span.first}-{span.first + span.length - 1}/{size}"
        return Answer(206, b"", BINARY, content=content, headers=(part,))

    def _check(self, device: int) -> None:
        """OSError if the disc is not there any more."""
        if self._root.stat().st_dev != device or not self._mounted(self._root):
            raise ConnectionAbortedError(errno.ECONNABORTED, "the disc has been unmounted")

    async def _read(self, handle: int, length: int, offset: int) -> bytes:
        return await asyncio.get_running_loop().run_in_executor(self._pool, os.pread, handle, length, offset)


class Download:
    """A file, or a part of it, on its way to one guest."""

    def __init__(self, files: Files, file: FileIO, span: index.Span, device: int) -> None:
        self._files, self._file, self._span, self._device = files, file, span, device

    @property
    def length(self) -> int:
        """How many bytes it will be."""
        return self._span.length

    async def pieces(self) -> AsyncIterator[bytes]:
        """All of it, in order; OSError if the disc cannot be read, or is gone."""
        first, length = self._span
        end = first + length
        while first < end:
            self.check()
            try:
                data = await self._files._read(self._file.fileno(), min(PIECE, end - first), first)  # noqa: SLF001 one room
            except OSError as error:
                _log.error("the served disc: %s", error.strerror)
                raise
            if not data:
                raise OSError(errno.EIO, "the file has become shorter")
            first += len(data)
            yield data

    def check(self) -> None:
        """OSError if the disc is not there any more."""
        self._files._check(self._device)  # noqa: SLF001 one room

    def close(self) -> None:
        """Let go of the file, so that the disc can be taken out."""
        if not self._file.closed:
            self._file.close()
            self._files._open -= 1  # noqa: SLF001 one room


def _directory(place: Place, real: bytes) -> Answer:
    if not place.slash:
        to = place._replace(slash=True).url
        return Answer(301, b"moved\n", headers=(f"Location: {to}",))
    with os.scandir(real) as entries:
        names = [
            (entry.name, entry.is_dir(follow_symlinks=False))
            for entry in entries
            if entry.is_file(follow_symlinks=False) or entry.is_dir(follow_symlinks=False) or entry.is_symlink()
        ]
    return Answer(200, index.listing(place, names), index.HTML)
