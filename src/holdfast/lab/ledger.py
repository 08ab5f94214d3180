"""What a lab has made on this machine, written down before it is made, so that all of it can be removed by anybody."""

import contextlib
import fcntl
import json
import os
import shutil
from collections.abc import Iterator
from pathlib import Path

from holdfast.lab.process import Process, finish, gone, look_up
from holdfast.lab.sentence import LabError

ROOT = Path("/run/holdfast-lab")
_LOCK = Path("/run/holdfast-lab.lock")
NETNS = Path("/run/netns")
_GRACE_S = 20.0  # the kernel may take some of it on a busy machine
_NSPAWN = Path("/run/systemd/nspawn")


class Ledger:
    """One lab's records: a directory with its owner and one line for each thing made."""

    def __init__(self, directory: Path) -> None:
        self.directory = directory

    @classmethod
    def open(cls, name: str, *, stay: bool) -> "Ledger":
        """Begin a lab's records; LabError if a lab of this name is there.  `stay`: it outlives this process."""
        ROOT.mkdir(mode=0o700, exist_ok=True)
        ledger = cls(ROOT / name)
        owner = look_up(os.getpid())
        assert owner is not None  # noqa: S101 this process runs
        with _alone():  # records whose owner is not written down yet look as if nobody needed them
            try:
                ledger.directory.mkdir(mode=0o700)
            except FileExistsError as error:
                raise LabError(f"there is a lab named {name} already; holdfast lab down {name} removes it") from error
            ledger.note("owner", pid=owner.pid, start=owner.start, stay=stay)
        return ledger

    def note(self, kind: str, **what: str | int | bool) -> None:
        """Write one thing down."""
        with (self.directory / "things").open("a") as things:
            things.write(json.dumps({"kind": kind, **what}) + "\n")

    def process(self, pid: int, role: str) -> Process:
        """Write a running process down; LabError if it has ended already."""
        process = look_up(pid)
        if process is None:
            raise LabError(f"{role} ended at once")
        self.note("process", pid=process.pid, start=process.start, role=role)
        return process

    def things(self, kind: str) -> Iterator[dict[str, str]]:
        """Return everything of one kind, the newest last; a line cut off by a crash is passed over."""
        with contextlib.suppress(FileNotFoundError):
            for line in (self.directory / "things").read_text().splitlines():
                with contextlib.suppress(json.JSONDecodeError):
                    thing = json.loads(line)
                    if thing["kind"] == kind:
                        yield thing

    def processes(self) -> list[Process]:
        """Return those recorded processes that still run."""
        found = [Process(int(thing["pid"]), int(thing["start"])) for thing in self.things("process")]
        return [process for process in found if process.alive()]

    def owned(self) -> bool:
        """Whether somebody still needs this lab: its owner lives, or it was made to stay."""
        for owner in self.things("owner"):
            return bool(owner["stay"]) or Process(int(owner["pid"]), int(owner["start"])).alive()
        return False

    def remove(self) -> None:
        """Remove everything recorded, and the records last; LabError names what would not go."""
        cgroups = [Path(thing["path"]) for thing in self.things("cgroup")]
        self._end_processes(cgroups)
        for thing in reversed(list(self.things("mount"))):
            _unmount(thing["path"])
        for thing in self.things("netns"):
            if (NETNS / thing["name"]).exists():
                finish(["ip", "netns", "delete", thing["name"]])
        for thing in self.things("machine"):
            with contextlib.suppress(FileNotFoundError):
                (_NSPAWN / "propagate" / thing["name"]).rmdir()
        for cgroup in cgroups:
            remove_cgroup(cgroup)
        left = [thing["path"] for thing in self.things("mount") if os.path.ismount(thing["path"])]
        if left:
            raise LabError(f"{', '.join(left)} would not unmount; its records stay in {self.directory}")
        shutil.rmtree(self.directory)

    def _end_processes(self, cgroups: list[Path]) -> None:
        # A container's supervisor must go last and by itself: killed, it would leave its container behind.
        supervisors = {int(thing["pid"]) for thing in self.things("process") if thing["role"].startswith("supervisor")}
        inside = [process for cgroup in cgroups for process in members(cgroup)]
        first = [process for process in [*inside, *self.processes()] if process.pid not in supervisors]
        for process in first:
            process.kill()
        gone([process for process in self.processes() if process.pid in supervisors], _GRACE_S)
        rest = [process for cgroup in cgroups for process in members(cgroup)] + self.processes()
        for process in rest:
            process.kill()
        if not gone([*first, *rest], _GRACE_S):
            left = ", ".join(_told(process) for process in [*first, *rest] if process.alive())
            raise LabError(f"processes {left} would not end; their records stay in {self.directory}")


def _told(process: Process) -> str:
    """A process's id, name and state, for a reader who has to find out why it stays."""
    try:
        return " ".join(Path(f"/proc/{process.pid}/stat").read_text().split()[:3])
    except OSError:
        return str(process.pid)


def members(cgroup: Path) -> list[Process]:
    """Return every process in a cgroup and below."""
    found = []
    for procs in cgroup.rglob("cgroup.procs") if cgroup.is_dir() else ():
        with contextlib.suppress(OSError):
            found += [look_up(int(pid)) for pid in procs.read_text().split()]
    return [process for process in found if process is not None]


def remove_cgroup(cgroup: Path) -> None:
    """Remove an empty cgroup with those below it."""
    for folder, _, _ in os.walk(cgroup, topdown=False):
        with contextlib.suppress(OSError):
            Path(folder).rmdir()


def _unmount(path: str) -> None:
    if os.path.ismount(path) and finish(["umount", path]).code:
        # A process that is just ending may still hold it; detached it goes with its last user.
        finish(["umount", "--lazy", path])


@contextlib.contextmanager
def _alone() -> Iterator[None]:
    """Two labs that begin at a time would trip over each other."""
    with _LOCK.open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        yield


def sweep() -> list[str]:
    """Remove what labs left whose owners are dead; return their names.  LabError, last, for what would not go."""
    swept, stubborn = [], []
    with _alone():
        for directory in sorted(ROOT.iterdir()) if ROOT.is_dir() else ():
            ledger = Ledger(directory)
            if (directory / "things").exists() and not ledger.owned():
                try:
                    ledger.remove()
                    swept.append(directory.name)
                except LabError as error:
                    stubborn.append(str(error))
    if stubborn:
        raise LabError("; ".join(stubborn))
    return swept
