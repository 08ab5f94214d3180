"""Who is connected by remote access: pppd's hook writes it down, by process, so that names need not be searched for."""

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

from holdfast import whole

FOLDER = "run/holdfast/ppp"


class Session(NamedTuple):
    """A user's pppd: its process id and when it started (clock ticks since boot), which no other process shares."""

    pid: int
    started: int
    user: str


def started(pid: int) -> int:
    """When a process started; OSError if there is none."""
    text = Path(f"/proc/{pid}/stat").read_text()
    return int(text.rpartition(")")[2].split()[19])


def living(root: Path) -> Iterator[Session]:
    """The sessions whose pppd lives."""
    for path in sorted((root / FOLDER).glob("[0-9]*")):
        try:
            ticks, _, user = path.read_text().rstrip("\n").partition(" ")
            session = Session(int(path.name), int(ticks), user)
            if started(session.pid) == session.started:
                yield session
        except (OSError, ValueError):
            continue  # it has ended meanwhile, or its hook was interrupted


def main(argv: Sequence[str], environment: Mapping[str, str], root: Path = Path("/")) -> int:
    """pppd's hook, at `ip-up` and `ip-down` alike: the process that calls is told by PPPD_PID, its user by PEERNAME.

    The last argument (`ipparam`) says nothing here; `CONNECT_TIME` is there only when a session ends.
    """
    del argv
    pid, user = environment.get("PPPD_PID", ""), environment.get("PEERNAME", "")
    if not pid.isascii() or not pid.isdigit():
        return 2
    path = root / FOLDER / pid
    if "CONNECT_TIME" in environment:
        path.unlink(missing_ok=True)
        return 0
    path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    whole.put(path, f"{started(int(pid))} {user}\n".encode(), lasting=False)
    return 0
