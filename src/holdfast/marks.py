"""What was last applied, for things that cannot be read back.  Lives in /run: a reboot must forget."""

from pathlib import Path


class Marks:
    """Small named notes under one directory, each replaced whole by rename."""

    def __init__(self, directory: Path) -> None:
        self.directory = directory

    def read(self, name: str) -> bytes:
        """Return the note, empty if there is none."""
        try:
            return (self.directory / name).read_bytes()
        except FileNotFoundError:
            return b""

    def write(self, name: str, note: bytes) -> None:
        """Replace the note. Not synced to disk: /run does not outlive a power cut anyway."""
        self.directory.mkdir(parents=True, exist_ok=True, mode=0o700)
        fresh = self.directory / f".{name}.new"
        fresh.write_bytes(note)
        fresh.replace(self.directory / name)

    def forget(self, name: str) -> None:
        """Remove the note if it is there."""
        (self.directory / name).unlink(missing_ok=True)
