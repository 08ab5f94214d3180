"""What was last applied, for things that cannot be read back.  Lives in /run: a reboot must forget."""

from pathlib import Path

from holdfast import whole


class Marks:
    """Small named notes under one directory, each replaced whole by rename.

    `sealed`: nothing is noted.  For who looks without the lock: its notes would be older than a run's beside it.
    """

    def __init__(self, directory: Path, *, sealed: bool = False) -> None:
        self.directory = directory
        self.sealed = sealed

    def read(self, name: str) -> bytes:
        """Return the note, empty if there is none."""
        try:
            return (self.directory / name).read_bytes()
        except FileNotFoundError:
            return b""

    def write(self, name: str, note: bytes) -> None:
        """Replace the note. Not synced to disk: /run does not outlive a power cut anyway."""
        if self.sealed:
            return
        self.directory.mkdir(parents=True, exist_ok=True, mode=0o700)
        whole.put(self.directory / name, note, lasting=False)

    def forget(self, name: str) -> None:
        """Remove the note if it is there."""
        if not self.sealed:
            (self.directory / name).unlink(missing_ok=True)
