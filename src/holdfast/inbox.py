"""The directory that the management server drops files into, and the archive of what was processed."""

import os
import re
import time
from pathlib import Path

from holdfast.errors import Rejected

ARCHIVE_FILES = 1000
ARCHIVE_BYTES = 32 * 1024 * 1024
BOOT_LINE = "cmd_line.json"
"""What a boot line is called as a message.  The newest of this name is never dropped: update_interface_config.sh
changes it, however long ago it came."""
NO_MESSAGES = frozenset({"agent.zip", "cloud-scripts.tgz", "patch-sysvms.sh"})
"""What servers drop here beside messages, up to 100 MB of it (`holdfast.scripts.delivery`)."""
_NAME = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_.-]{0,200}")


class Inbox:
    """/var/cache/cloud.  Files are read at once, whole; archived only after they were answered, or they would be lost
    to a crash in between.
    """

    def __init__(self, directory: Path) -> None:
        self.directory = directory
        self.processed = directory / "processed"

    def read(self, name: str) -> bytes:
        """The file's bytes, from the directory or, when it was answered before, from the archive."""
        name = self.name(name)
        try:
            return (self.directory / name).read_bytes()
        except FileNotFoundError:
            archived = self._archived(name)
            if archived:
                return archived[-1].read_bytes()
        except OSError as error:
            raise Rejected(f"{name}: {error.strerror}") from error
        raise Rejected(f"{name}: no such file in {self.directory}, nor in {self.processed}")

    def name(self, given: str) -> str:
        """A bare file name; a path is accepted only if it leads into this directory."""
        path = Path(given)
        if path.parent not in (Path(), self.directory, Path("/var/cache/cloud")) or not _NAME.fullmatch(path.name):
            raise Rejected(f"{given!r} names no file in {self.directory}")
        if path.name in NO_MESSAGES:
            raise Rejected(f"{path.name}: delivered for patching, and no message")
        return path.name

    def waits(self, name: str) -> bool:
        """Whether such a file lies there unprocessed."""
        return (self.directory / name).is_file()

    def finish(self, name: str, document: bytes, *, keep: bool = True) -> None:
        """Archive a file that was answered (or remove it), unless another has taken its name meanwhile."""
        path = self.directory / self.name(name)
        try:
            if path.read_bytes() != document:
                return
            if not keep:
                path.unlink()
                return
            self.processed.mkdir(mode=0o700, parents=True, exist_ok=True)
            target = self.processed / f"{path.name}.{time.time_ns()}"
            path.chmod(0o600)
            path.rename(target)
            self._prune()
        except FileNotFoundError:
            return  # it came from the archive: it is there already

    def _archived(self, name: str) -> list[Path]:
        try:
            found = [p for p in self.processed.iterdir() if p.name.startswith(f"{name}.") and p.suffix[1:].isdigit()]
        except FileNotFoundError:
            return []
        return sorted((p for p in found if p.stem == name), key=lambda p: int(p.suffix[1:]))

    def _prune(self) -> None:
        """Oldest first, until the archive is within its budget: it holds secrets and must not grow for ever."""
        kept = {str(path) for path in self._archived(BOOT_LINE)[-1:]}
        with os.scandir(self.processed) as listing:
            entries = [(entry.name.rpartition(".")[2], entry.path, entry.stat().st_size) for entry in listing]
        entries.sort(key=lambda entry: int(entry[0]) if entry[0].isdigit() else 0)
        files, size = len(entries), sum(entry[2] for entry in entries)
        for _, path, weight in entries:
            if files <= ARCHIVE_FILES and size <= ARCHIVE_BYTES:
                return
            if path not in kept:
                Path(path).unlink(missing_ok=True)
                files, size = files - 1, size - weight
