"""Files, whole: written beside, synced and renamed; a manifest tells which ones are ours."""

import errno
import grp
import os
import stat
from collections.abc import Callable, Collection, Iterable, Iterator, Sequence
from contextlib import suppress
from pathlib import Path

import msgspec
from msgspec.structs import replace

from holdfast import whole
from holdfast.converge import Failure
from holdfast.run import CommandFailed
from holdfast.run import run as run_program
from holdfast.state import Change, File, Key, Resource, State

_FRESH = ".holdfast-new."
_TRIAL = ".holdfast-check."
_DIRECTORY_MODE = 0o755


class Manifest:
    """The paths of our files, kept where a reboot does not forget them.

    A path stands here before its file first exists, so that a file of ours is known as ours at every instant.
    """

    def __init__(self, path: Path) -> None:
        self.path = path

    def read(self) -> frozenset[str]:
        """Return the paths; none if there is no manifest yet or it is damaged.

        Nothing is lost by that but the knowledge which unwanted files to remove.
        """
        try:
            return frozenset(msgspec.json.decode(self.path.read_bytes(), type=list[str]))
        except (OSError, ValueError):
            return frozenset()

    def write(self, paths: Collection[str]) -> None:
        """Replace the manifest, on the disk when this returns; OSError if that cannot be."""
        make_directories(self.path.parent)
        whole.put(self.path, msgspec.json.encode(sorted(paths)))
        whole.sync(self.path.parent)


class Files:
    """Keeps the wanted files, and removes those of the manifest that are wanted no more.

    `root` stands before every path.  `manifest` is the manifest's own path, persistent, not under `root`.
    """

    kinds: tuple[type[Resource], ...] = (File,)

    def __init__(self, manifest: Path, root: Path = Path("/"), run: Callable[..., str] = run_program) -> None:
        self.manifest = Manifest(manifest)
        self.root = root
        self.run = run
        self._settled: set[str] = set()

    def observe(self, desired: State) -> Iterator[File]:
        """Read the wanted files and those of the manifest."""
        wanted = {file.path: file for file in desired.values() if isinstance(file, File)}
        self._settled = set()
        for path in sorted(wanted.keys() | self.manifest.read()):
            file = wanted.get(path)
            # Nobody knows whether the text of a file that is wanted no more is a secret.
            seen = self._read(file or File(path, "", secret=True))
            if seen is None or (file is None and stat.S_ISDIR(seen.mode)):
                continue  # a directory is nothing that we ever put there
            if seen == file:
                self._settled.add(path)
            yield seen

    def check(self, changes: Sequence[Change]) -> Iterator[Failure]:
        """Let each file's own program judge the new text, in a file beside the old one that is removed again."""
        for change in changes:
            file, before = change.after, change.before
            if not isinstance(file, File):
                continue
            try:
                target = self._target(file.path)
                if target.is_dir() and not target.is_symlink():
                    yield Failure(change.key, "a directory is in the way")
                elif file.check and not (isinstance(before, File) and before.text == file.text):
                    self._try(file, target, [other for other in changes if other is not change])
            except CommandFailed as error:
                yield Failure(change.key, str(error), content=True)
            except OSError as error:
                yield Failure(change.key, str(error))

    def apply(self, changes: Sequence[Change]) -> Iterable[Failure]:
        """Write what differs, remove what goes; the manifest first, the directories' sync last."""
        known = self.manifest.read()
        new = {change.key[1] for change in changes if change.after}
        try:
            self._claim(known, new)
        except OSError as error:
            return [Failure(change.key, f"the manifest cannot be written: {error}") for change in changes]
        failures: dict[Key, Failure] = {}
        touched: dict[Path, list[Key]] = {}
        for change in changes:
            try:
                touched.setdefault(self._carry_out(change), []).append(change.key)
            except OSError as error:
                failures[change.key] = Failure(change.key, str(error))
        for directory, keys in touched.items():
            try:
                whole.sync(directory)
            except OSError as error:
                failures |= {key: Failure(key, str(error)) for key in keys}
        with suppress(OSError):  # a path too many is harmless for now: the next change clears it away
            self._claim(known, new - {key[1] for key in failures})
        return list(failures.values())

    def _claim(self, known: Collection[str], new: Collection[str]) -> None:
        # A path without a file leaves: what somebody else puts there later would not be ours.
        kept = {path for path in known if os.path.lexists(self.root / path.lstrip("/"))}
        claimed = kept | self._settled | set(new)
        if claimed != self.manifest.read():
            self.manifest.write(claimed)

    def _carry_out(self, change: Change) -> Path:
        file = change.resource
        assert isinstance(file, File)  # noqa: S101 the spine sends each driver its own kinds
        target = self._target(file.path)
        if change.after:
            make_directories(target.parent)
            _replace(target, file)
        else:
            target.unlink(missing_ok=True)
        return target.parent

    def _target(self, path: str) -> Path:
        target = self.root / path.lstrip("/")
        # A symbolic link among the parents is followed on a whole machine, but not out of a smaller root.
        if not path.startswith("/") or not target.parent.resolve().is_relative_to(self.root.resolve()):
            raise OSError(errno.EPERM, "leads out of the root", path)
        return target

    def _read(self, wanted: File) -> File | None:
        path = self.root / wanted.path.lstrip("/")
        try:
            status = path.lstat()
        except (FileNotFoundError, NotADirectoryError):
            return None
        if not stat.S_ISREG(status.st_mode):
            return replace(wanted, text="", mode=status.st_mode)  # with the bits of its type it equals no wanted mode
        mode = stat.S_IMODE(status.st_mode)
        if wanted.group and status.st_gid != _group(wanted.group):
            wanted = replace(wanted, group=f"{status.st_gid}")
        try:
            raw = path.read_bytes()
        except OSError:
            return replace(wanted, text="", mode=status.st_mode)
        if raw == wanted.text.encode():
            return replace(wanted, mode=mode)
        text = raw.decode(errors="replace")
        return replace(wanted, text=text, mode=status.st_mode if text == wanted.text else mode)

    def _try(self, file: File, target: Path, others: Sequence[Change]) -> None:
        """Run the check on a trial copy, which names trial copies of the other files that change with it."""
        trial, text = _trial(target), file.text
        made = [trial]
        try:
            for change in others:
                path = change.key[1]
                if path not in text:
                    continue
                made.append(_trial(self._target(path)))
                text = text.replace(path, str(made[-1]))  # one that goes is not there to be found
                if isinstance(change.after, File):
                    whole.create(made[-1], change.after.text.encode(), 0o600)
            whole.create(trial, text.encode(), file.mode)
            self.run([*file.check, str(trial)])
        finally:
            for path_made in made:
                path_made.unlink(missing_ok=True)


def _trial(target: Path) -> Path:
    # In the nearest directory there is: a check makes none, since it may be all that ever happens.
    directory = next(parent for parent in target.parents if parent.is_dir())
    return directory / f"{_TRIAL}{target.name}"


def _group(name: str) -> int:
    """Number of a group; root's where the machine does not know it."""
    try:
        return grp.getgrnam(name).gr_gid if name else 0
    except KeyError:
        return 0


def make_directories(path: Path) -> None:
    """Make a directory and its parents, 0755 whatever the umask, each on the disk when this returns."""
    if path.is_dir():
        return
    make_directories(path.parent)
    with suppress(FileExistsError):
        path.mkdir()
        path.chmod(_DIRECTORY_MODE)
        whole.sync(path.parent)


def _replace(target: Path, file: File) -> None:
    """The directory is not synced yet.  Nobody else writes these: what a crash left beside one goes with the next."""
    fresh = target.with_name(f"{_FRESH}{target.name}")
    try:
        whole.create(fresh, file.text.encode(), file.mode, group=_group(file.group))
        fresh.replace(target)
    except OSError:
        fresh.unlink(missing_ok=True)
        raise
