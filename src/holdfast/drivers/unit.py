"""Services under systemd: running or not, and whether each has read what it should have read."""

import os
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

import msgspec
from msgspec import Struct
from msgspec.structs import replace

from holdfast.converge import Failure
from holdfast.marks import Marks
from holdfast.run import run as run_program
from holdfast.state import Change, File, Resource, State, Unit

PROPERTIES = (
    "LoadState",
    "ActiveState",
    "UnitFileState",
    "InvocationID",
    "InactiveExitTimestampMonotonic",
    "NeedDaemonReload",
)
_START_TIMEOUT_S = 100.0  # systemd itself gives up after 90
_CLOCK_GRAIN_S = 0.02  # file times are as coarse as the kernel's tick
_MICROSECOND_S = 1e-6
_MOMENT_S = 2.0  # a command that only looks at its services twice asks systemd once: 10 ms


def systemd_runs(root: Path = Path("/")) -> bool:
    """Whether there is a systemd to talk to: the same question that systemctl asks itself first."""
    # Not by shutil, which brings four compressors along.
    return (root / "run/systemd/system").is_dir() and any(
        os.access(f"{directory}/systemctl", os.X_OK) for directory in os.get_exec_path()
    )


class Status(NamedTuple):
    """What systemd says of one unit.  `started_s`: when its last start began, seconds of the monotonic clock."""

    active: str
    masked: bool
    invocation: str
    started_s: float
    stale: bool

    @property
    def up(self) -> bool:
        """Running, without a doubt."""
        return self.active in ("active", "reloading", "refreshing")

    @property
    def down(self) -> bool:
        """Not running, without a doubt.  Starting, stopping and waiting for a restart are neither."""
        return self.active in ("inactive", "failed")


class _Look(NamedTuple):
    """What was asked for, the present start of each service, and when, by the monotonic clock."""

    units: Sequence[Unit]
    starts: Mapping[str, str]
    at_s: float

    def repeats(self, last: "_Look") -> bool:
        """Whether it would show the same: a moment ago, nothing changed by us since, and all still in the same run."""
        return self[:2] == last[:2] and self.at_s - last.at_s < _MOMENT_S


_NEVER = _Look((), {}, float("-inf"))
_DOWN = Status("inactive", masked=False, invocation="", started_s=0.0, stale=False)


class Note(Struct, frozen=True):
    """The mark of a unit: what its present run, by invocation id, had read when we last looked after it."""

    invocation: str = ""
    restart: str = ""
    reload: str = ""


def parse_show(text: str, names: Sequence[str]) -> dict[str, Status]:
    """Understand what `systemctl show` printed for these names: blocks in their order, parted by blank lines.

    ValueError if there are more or fewer blocks than names.  An alias is shown under its real name, so `Id` would
    not tell which block is whose.
    """
    blocks = [block for block in text.split("\n\n") if block.strip()]
    statuses = {}
    for name, block in zip(names, blocks, strict=True):
        said = dict(line.partition("=")[::2] for line in block.splitlines())
        statuses[name] = Status(
            active=said.get("ActiveState", ""),
            masked=said.get("LoadState") == "masked" or said.get("UnitFileState", "").startswith("masked"),
            invocation=said.get("InvocationID", ""),
            started_s=int(said.get("InactiveExitTimestampMonotonic") or 0) * _MICROSECOND_S,
            stale=said.get("NeedDaemonReload") == "yes",
        )
    return statuses


class Units:
    """Keeps the services that somebody claims, running or stopped.  Enables and disables nothing.

    `available` tells whether systemd can be asked at all; where it is False the caller should claim no units.
    """

    kinds: tuple[type[Resource], ...] = (Unit,)

    def __init__(
        self, marks: Marks, root: Path = Path("/"), *, available: bool = True, run: Callable[..., str] = run_program
    ) -> None:
        self.marks = marks
        self.root = root
        self.available = available
        self.run = run
        self._seen: Mapping[str, Status] = {}
        self._last = _NEVER

    def observe(self, desired: State) -> Iterator[Unit]:
        """Ask for all claimed units at once.  Where systemd does not answer, none is seen, and `apply` says why."""
        units = [unit for unit in desired.values() if isinstance(unit, Unit)]
        look = _Look(units, {unit.name: self._started(unit.name) for unit in units}, time.monotonic())
        if not look.repeats(self._last):
            self._last = look
            stopped = {unit.name: _DOWN for unit in units if not unit.running and self._is_down(unit.name)}
            try:
                self._seen = {**stopped, **self._show([unit.name for unit in units if unit.name not in stopped])}
            except (OSError, ValueError):
                self._seen, self._last = {}, _NEVER
        for unit in units:
            if unit.name in self._seen:
                yield self._observed(unit, self._seen[unit.name], desired)

    def check(self, changes: Sequence[Change]) -> Iterator[Failure]:
        """Name the masked ones."""
        for change in changes:
            unit = change.after
            status = self._seen.get(unit.name) if isinstance(unit, Unit) and unit.running else None
            if status and status.masked:
                yield Failure(change.key, f"{change.key[1]} is masked")

    def apply(self, changes: Sequence[Change]) -> Iterable[Failure]:
        """Start, restart, reload or stop, one after the other; then note what those that run have read."""
        units = [change.after for change in changes if isinstance(change.after, Unit)]
        if not units:
            return []
        if not self.available:
            return [Failure(unit.key, "systemd does not run here") for unit in units]
        before = {change.key: change.before for change in changes}
        self._last = _NEVER
        try:
            self._prepare(units)
        except (OSError, ValueError) as error:
            return [Failure(unit.key, str(error)) for unit in units]
        failures, read = [], []
        for unit in units:
            try:
                self._carry_out(unit, before[unit.key])
                read += [unit] if unit.running else []
            except OSError as error:
                failures.append(Failure(unit.key, str(error)))
        self._note(read)
        return failures

    def _prepare(self, units: Sequence[Unit]) -> None:
        # Seen anew: files of units may have been written since, and a look that failed must not restart anything.
        self._seen = self._show([unit.name for unit in units])
        starting = [unit.name for unit in units if unit.running]
        if any(self._seen[name].stale for name in starting):
            self.run(["systemctl", "daemon-reload"])
        if starting:
            # It clears the start limit as well: our own restarts are no crash loop.
            try:
                self.run(["systemctl", "reset-failed", "--", *starting])
            except OSError:
                return  # a unit that was never loaded has nothing to reset

    def _carry_out(self, unit: Unit, before: Resource | None) -> None:
        status = self._seen[unit.name]
        if not unit.running:
            verb = "stop"
        elif status.masked:
            raise OSError(f"{unit.name} is masked")
        elif not status.up:
            verb = "start"
        elif isinstance(before, Unit) and before.restart == unit.restart:
            verb = "reload-or-restart"
        else:
            verb = "restart"
        self.run(["systemctl", verb, "--", unit.name], timeout_s=_START_TIMEOUT_S)

    def _note(self, units: Sequence[Unit]) -> None:
        # A note that is not written costs one more restart, never a missed one.
        try:
            seen = self._show([unit.name for unit in units])
            for unit in units:
                self._write_note(unit, seen[unit.name])
        except (OSError, ValueError):
            return

    def _observed(self, unit: Unit, status: Status, desired: State) -> Unit:
        if not unit.running:
            return replace(unit, running=not status.down)
        if not status.up:
            return replace(unit, running=False, restart="", reload="")
        note = self._read_note(unit.name)
        if note.invocation == status.invocation:
            return replace(unit, restart=note.restart, reload=note.reload)
        unread = [desired.get(("File", path)) for path in unit.files if not self._has_read(path, status, desired)]
        if not unread:
            # Noted at once: from now on even a file that disappears is a difference.
            self._write_note(unit, status)
            return unit
        for_reload = all(isinstance(file, File) and file.reload == unit.name for file in unread)
        for_restart = all(isinstance(file, File) and file.restart == unit.name for file in unread)
        return replace(unit, restart=unit.restart if for_reload else "", reload=unit.reload if for_restart else "")

    def _started(self, name: str) -> str:
        """The id of a service's present start, empty if it has none: a link of systemd's, from its start to its end."""
        try:
            return str((self.root / f"run/systemd/units/invocation:{name}").readlink())
        except OSError:
            return ""

    def _is_down(self, name: str) -> bool:
        """Whether a service is certainly not running, without asking.

        To ask after what does not run costs 2 ms each: systemd forgets such a unit at once, and reads its file anew.
        """
        known = self.available and name.endswith(".service") and (self.root / "run/systemd/units").is_dir()
        return known and not self._started(name)

    def _has_read(self, path: str, status: Status, desired: State) -> bool:
        """Whether a start that was not ours came after this file had become what it should be."""
        file, place = desired.get(("File", path)), self.root / path.lstrip("/")
        try:
            same = not isinstance(file, File) or place.read_bytes() == file.text.encode()
            # ctime as well: a rename or a restored backup keeps the old mtime.
            written_s = max(place.stat().st_mtime, place.stat().st_ctime)
        except OSError:
            return False
        started_s = status.started_s + time.time() - time.monotonic()
        return same and written_s + _CLOCK_GRAIN_S < started_s

    def _show(self, names: Sequence[str]) -> dict[str, Status]:
        if not names:
            return {}
        if not self.available:
            raise OSError("systemd does not run here")
        properties = [word for name in PROPERTIES for word in ("-p", name)]
        return parse_show(self.run(["systemctl", "show", *properties, "--", *names]), names)

    def _read_note(self, name: str) -> Note:
        try:
            return msgspec.json.decode(self.marks.read(f"unit.{name}") or b"{}", type=Note)
        except (OSError, ValueError):
            return Note()

    def _write_note(self, unit: Unit, status: Status) -> None:
        if status.up:
            note = Note(status.invocation, unit.restart, unit.reload)
            self.marks.write(f"unit.{unit.name}", msgspec.json.encode(note))
