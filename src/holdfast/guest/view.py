"""The file in which the agent says what guests are to be told."""

import logging
import os
from pathlib import Path
from typing import Literal

import msgspec
from msgspec import Raw, Struct

from holdfast.guest.answers import Guest

PATH = Path("/run/holdfast/guest/view.json")

_log = logging.getLogger(__name__)

_Stamp = tuple[int, int, int] | None


class _Document(Struct):
    schema: Literal[1]
    guests: dict[str, Raw]


_documents = msgspec.json.Decoder(_Document)
_guests = msgspec.json.Decoder(Guest)


class View:
    """The newest whole view.  The file is looked at with every question, and read when it has changed."""

    def __init__(self, path: Path = PATH) -> None:
        self._path = path
        self._stamp: _Stamp = None
        self._guests: dict[str, Raw] = {}
        self._said: set[str] = set()

    def guest(self, address: str) -> Guest | None:
        """What is known of the guest with this address; None if that is nothing."""
        self._refresh()
        # Each is decoded when it asks: a thousand others' user data would cost every one of them.
        raw = self._guests.get(address)
        try:
            return None if raw is None else _guests.decode(raw)
        except (msgspec.DecodeError, UnicodeDecodeError) as error:
            self._complain(f"{address}: {error}")
            return None

    def _refresh(self) -> None:
        try:
            if self._stamp == _stamp(os.stat(self._path)):  # noqa: PTH116 half the cost of Path.stat, at each request
                return
            with self._path.open("rb") as file:
                # Before it is decoded: a broken one is not tried again.
                self._stamp = _stamp(os.fstat(file.fileno()))
                data = file.read()
            self._guests = _documents.decode(data).guests
            self._said.clear()
        except FileNotFoundError:
            self._stamp, self._guests = None, {}
        except (OSError, msgspec.DecodeError, UnicodeDecodeError) as error:
            self._complain(str(error))

    def _complain(self, trouble: str) -> None:
        """Say it once: the same guest may ask every second."""
        if trouble not in self._said:
            self._said.add(trouble)
            _log.error("%s: %s", self._path, trouble)


def _stamp(stat: os.stat_result) -> _Stamp:
    return stat.st_ino, stat.st_mtime_ns, stat.st_size
