"""Receipts on the disk: what was acknowledged is there before the guest hears so, and a crash tears nothing."""

import asyncio
import logging
import os
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from pathlib import Path

from holdfast.receipts import Event, Receipts, compacted, note, parse, render

_MODE = 0o600
_log = logging.getLogger(__name__)


class ReceiptsFile:
    """The one writer of the file.  A disk that refuses is asked again with the next event."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._receipts: Receipts | None = None
        self._fd = -1
        self._size = 0
        # One thread: a slow disk delays whoever waits for it, and nobody else, and lines have one order.
        self._writer = ThreadPoolExecutor(1)

    def receipts(self) -> Receipts:
        """What is written so far; OSError while the file cannot be read, since a password must not come back."""
        if self._receipts is None:
            data = self._read()
            self._receipts = parse(data)
            self._tidy(data, compacted(self._receipts))
        return self._receipts

    async def record(self, event: Event, address: str, serial: int) -> None:
        """Append one event; an acknowledgement is durable when this returns.  OSError if the disk refuses."""
        await asyncio.get_running_loop().run_in_executor(self._writer, self._append, event, address, serial)

    def close(self) -> None:
        """Wait for what is being written."""
        self._writer.shutdown()
        if self._fd >= 0:
            os.close(self._fd)
            self._fd = -1

    def _read(self) -> bytes:
        try:
            return self._path.read_bytes()
        except FileNotFoundError:
            return b""

    def _tidy(self, data: bytes, fresh: bytes) -> None:
        """Forget what is out of date, and a line that a crash has torn."""
        self._size = data.rfind(b"\n") + 1
        if fresh == data:
            return
        aside = self._path.with_name(f".{self._path.name}.new")
        try:
            handle = os.open(aside, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC, _MODE)
            with os.fdopen(handle, "wb") as file:
                file.write(fresh)
                file.flush()
                os.fsync(file.fileno())
            aside.replace(self._path)
            self._size = len(fresh)
            self._sync_directory()
        except OSError as error:
            _log.warning("%s stays as long as it is: %s", self._path, error)

    def _append(self, event: Event, address: str, serial: int) -> None:
        receipts = self.receipts()
        line = render(event, address, serial)
        fd = self._opened()
        try:
            self._write(fd, line)
            if event == "acknowledged":
                os.fsync(fd)
        except OSError:
            with suppress(OSError):
                os.ftruncate(fd, self._size)
            raise
        self._size += len(line)
        note(receipts, event, address, serial)

    def _write(self, fd: int, line: bytes) -> None:
        os.ftruncate(fd, self._size)  # what a torn write has left would become part of this line
        if os.write(fd, line) != len(line):
            raise OSError(f"{self._path}: no room for a line")

    def _opened(self) -> int:
        if self._fd < 0:
            fd = os.open(self._path, os.O_WRONLY | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC, _MODE)
            try:
                self._sync_directory()  # a new file's name has to last as long as its lines
            except OSError:
                os.close(fd)
                raise
            self._fd = fd
        return self._fd

    def _sync_directory(self) -> None:
        handle = os.open(self._path.parent, os.O_RDONLY)
        try:
            os.fsync(handle)
        finally:
            os.close(handle)
