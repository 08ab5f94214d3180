"""Where the boot line comes from."""

import os
import sys
import time
from collections.abc import Callable, Sequence
from hashlib import sha256
from pathlib import Path
from typing import NamedTuple

from holdfast import whole
from holdfast.boot.sources import DEFAULT, OVERRIDE, PATIENCE_S, TABLE, WAIT_S, Place, Source, kept
from holdfast.run import run as run_program

_LOOK_S = 0.25
_HASTE_S = 1.0  # for a program's answer, where what is stored waits to be restored
_BEHIND_S = 0.05  # file times are as coarse as the kernel's tick, and so is the start of the first process


class Found(NamedTuple):
    """A boot line: as text that `line.parse` understands, and where it was found, for people to read.

    `fresh`: it was given to this machine since it started, so a management server has started it.  False where nobody
    can tell: most sources give the same line again after any reboot.  `mark` tells one giving from another.
    """

    text: str
    source: str
    fresh: bool = False
    written_s: float | None = None

    @property
    def mark(self) -> str:
        """What stays the same however often this very giving is found."""
        return (
            f"{self.source} {self.written_s if self.written_s is not None else sha256(self.text.encode()).hexdigest()}"
        )


def find(
    root: Path = Path("/"),
    *,
    wait_s: float | None = None,
    late: Callable[[str], bool] | None = None,
    run: Callable[..., str] = run_program,
    say: Callable[[str], object] = sys.stderr.write,
) -> Found | None:
    """The boot line that the hypervisor has for this machine, or None if there is none.

    An override file comes first, then what this hypervisor's sources say, then what was given to an earlier start.
    Where the line is known to come late it is waited for, `wait_s` seconds or as long as is right for this hypervisor;
    0: one look, and a program that does not answer at once is not waited for.
    `late`: only what came after the first look counts: a line that was given since this machine started, or one from a
    source that fills late of which `late` says that it is another one.  Nothing does where an operator has overridden
    all of them.  `say` is told what is waited for and what came of it, a line each.  Raises nothing: what cannot be
    read is said.
    """
    patience_s = _HASTE_S if wait_s == 0 else PATIENCE_S
    kind = hypervisor(run, patience_s)
    sources = (OVERRIDE, *TABLE.get(kind, DEFAULT))
    bound_s = (WAIT_S if wait_s is None else wait_s) if any(source.late for source in sources) else 0.0
    with Place(root, run, patience_s) as place:
        if late and OVERRIDE.read(place):
            return None
        found = _awaited(sources, place, bound_s, _Asked(kind, late, say))
        for trouble in sorted(place.troubles):
            say(f"holdfast: {trouble}\n")
        if found is None and not late:
            if old := kept(place):
                return Found(old, f"{place.kept} of an earlier start")
            say(f"holdfast: no boot line ({kind}): looked at {', '.join(source.name for source in sources)}\n")
        return found


def hypervisor(run: Callable[..., str] = run_program, patience_s: float = PATIENCE_S) -> str:
    """What this machine runs on, in systemd-detect-virt's words; `unknown` if it cannot say."""
    try:
        return run(["systemd-detect-virt"], timeout_s=patience_s).strip()
    except OSError:  # it ends with 1 for `none`
        return "unknown"


class _Asked(NamedTuple):
    """What `find` was asked, for its loop."""

    kind: str
    late: Callable[[str], bool] | None
    say: Callable[[str], object]

    def counts(self, source: Source, text: str, *, fresh: bool) -> bool:
        """Whether this is a line to take."""
        return self.late is None or fresh or (source.late and not source.told and self.late(text))


def _awaited(sources: Sequence[Source], place: Place, bound_s: float, asked: _Asked) -> Found | None:
    """Ask all of them again and again until one answers or the time is over."""
    began, told = time.monotonic(), False
    while True:
        for source in sources:
            text = source.read(place)
            fresh = bool(text) and source.told and _since_start(place)
            if text and asked.counts(source, text, fresh=fresh):
                if told:
                    asked.say(f"holdfast: the boot line has come: {source.name}\n")
                return Found(text, source.name, fresh, place.written_s)
        if time.monotonic() - began >= bound_s:
            return None
        if not told and not asked.late:
            late = ", ".join(source.name for source in sources if source.late)
            asked.say(f"holdfast: no boot line yet ({asked.kind}): waiting for it at most {bound_s:.0f} s: {late}\n")
            told = True
        time.sleep(_LOOK_S)


def _since_start(place: Place) -> bool:
    """Whether what was last read was written after the first process started.

    Not after the kernel did: that is not told where the kernel is another's, and before its first process nobody
    writes.
    """
    if place.written_s is None:
        return True  # it was read from a wire: whoever wrote is there now
    try:
        fields = (place.root / "proc/1/stat").read_text().rpartition(")")[2].split()
        ticks = int(fields[19]) / os.sysconf("SC_CLK_TCK")
        since_kernel_s = float((place.root / "proc/uptime").read_text().split()[0])
    except (OSError, ValueError, IndexError):
        return False
    return place.written_s + _BEHIND_S > time.time() - since_kernel_s + ticks


def leave(path: Path, message: bytes) -> None:
    """Leave a message where the next command finds it, whole or not at all."""
    path.parent.mkdir(parents=True, exist_ok=True)
    whole.put(path, message)
