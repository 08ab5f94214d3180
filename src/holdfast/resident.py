"""The resident agent: one loop that listens and never converges itself; for each request and wish it forks a child."""

import gc
import math
import os
import selectors
import signal
import socket
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import suppress
from pathlib import Path
from time import monotonic
from typing import Any, NamedTuple

from holdfast import answer, errands, requests
from holdfast.alerts import alert
from holdfast.cli import COMMANDS, DONE, followed, guarded
from holdfast.ears import Ear, Wish
from holdfast.ears.connections import Connections
from holdfast.ears.deaf import Deaf
from holdfast.ears.hello import PeerEar
from holdfast.ears.links import Links
from holdfast.ears.names import Names
from holdfast.ears.observed import Observed
from holdfast.ears.start import Start
from holdfast.ears.timer import Timer
from holdfast.ears.wake import ROLE, Wake
from holdfast.role_report import MOVED, word
from holdfast.session import Session
from holdfast.systemd import notify

SOCKET = "run/holdfast/agent.sock"
CHILDREN = 64
"""How many run at a time; whoever comes then does the work itself."""
LIMIT_S = 580.0
"""How long a child may run: longer than it may wait for the lock, shorter than a management server waits."""
STOP_S = 10.0
AGAIN_S = 2.0
"""The pause after an own convergence that failed."""
LOOK_S = 2.0
"""The longest that the loop sleeps."""
_BACKLOG = 128
_MUCH = 4096


class _Child(NamedTuple):
    """`handle` becomes readable when it ends.  Without a caller it converges on the agent's own account."""

    pid: int
    handle: int
    until: float
    caller: socket.socket | None


class Agent:
    """Serves the clients at `root`/run/holdfast/agent.sock and heeds what the ears wish for.

    `commands`: what clients may ask for, by name.  `heed`: converge for some reasons, in a child; its exit status.
    OSError if the socket cannot be made.
    """

    def __init__(
        self, root: Path, commands: requests.Commands, ears: Sequence[Ear], heed: Callable[[Sequence[str]], int]
    ) -> None:
        self.root, self.commands, self.ears, self.heed = root, commands, ears, heed
        self._place = root / SOCKET
        self._door = _listening(self._place)
        self._rouser, self._roused = socket.socketpair()
        self._children: dict[int, _Child] = {}
        self._wanted: list[str] = []
        self._again = 0.0  # no own convergence before
        # Its own alone: what children start would otherwise speak to systemd in its name.
        self._systemd = {name: os.environ.pop(name, "") for name in ("NOTIFY_SOCKET", "WATCHDOG_USEC", "WATCHDOG_PID")}
        self._told_to_end = False
        self._stop = math.inf  # when whoever still runs is given up
        self._petted = -math.inf

    def run(self) -> None:
        """Serve until SIGTERM; then wait for the children that run."""
        self._rouser.setblocking(False)  # noqa: FBT003 the library has no other spelling
        signal.set_wakeup_fd(self._rouser.fileno())
        for number in (signal.SIGTERM, signal.SIGINT):
            signal.signal(number, self._note_end)
        self._tell("READY=1")
        while self._stop == math.inf or (self._children and monotonic() < self._stop):
            self._turn()

    def _note_end(self, *_: object) -> None:
        self._told_to_end = True

    def _end(self) -> None:
        self._stop = monotonic() + STOP_S
        self._tell("STOPPING=1")
        # Whoever waits there has not been heard, and does the work itself.
        self._place.unlink(missing_ok=True)
        self._door.close()
        # Nobody waits for an own convergence, and at the end of a machine it may wait for what ends after this agent.
        for child in self._children.values():
            if child.caller is None:
                os.kill(child.pid, signal.SIGTERM)

    def _tell(self, state: str) -> None:
        with suppress(OSError):  # systemd is busy: the next word will do
            notify(self._systemd, state)

    def _turn(self) -> None:
        """Wait for whatever comes first, and see to all that has come."""
        for act in self._waited():
            act()
        if self._told_to_end and self._stop == math.inf:
            self._end()
        now = monotonic()
        for ear in self.ears:
            if ear.due() <= now:
                self._take(ear, ear.tick(now))
        for child in self._children.values():
            if child.until <= now:
                self._give_up(child)
        self._converge(now)
        if now - self._petted >= LOOK_S / 2:
            self._tell("WATCHDOG=1")
            self._petted = now

    def _waited(self) -> list[Callable[[], None]]:
        # Asked anew each time: ears may open and close what they listen at.
        with selectors.PollSelector() as waiting:
            for handle, act in self._handles():
                waiting.register(handle, selectors.EVENT_READ, act)
            return [key.data for key, _ in waiting.select(max(0.0, self._next() - monotonic()))]

    def _handles(self) -> Iterator[tuple[int, Callable[[], None]]]:
        yield self._roused.fileno(), self._hear_signal
        if self._stop == math.inf:
            yield self._door.fileno(), self._accept
        for ear in self.ears:
            if ear.fileno() >= 0:
                yield ear.fileno(), lambda ear=ear: self._take(ear, ear.ready(monotonic()))  # type: ignore[misc]
        for child in self._children.values():
            yield child.handle, lambda child=child: self._reap(child)  # type: ignore[misc]

    def _hear_signal(self) -> None:
        self._roused.recv(_MUCH)

    def _next(self) -> float:
        """When something is due."""
        times = [monotonic() + LOOK_S, self._stop]
        times += [ear.due() for ear in self.ears]
        times += [child.until for child in self._children.values()]
        times += [self._again] if self._wanted and not self._converging() else []
        return min(times)

    def _take(self, ear: Ear, wishes: Iterable[Wish]) -> None:
        """Remember the reasons; what is urgent rouses the other ears."""
        heard = list(wishes)
        for other in self.ears:
            if other is not ear and any(wish.urgent for wish in heard):
                heard += other.tick(monotonic())
        self._wanted += [cause for cause, _ in heard if cause and cause not in self._wanted]

    def _converging(self) -> bool:
        return any(child.caller is None for child in self._children.values())

    def _converge(self, now: float) -> None:
        """Begin an own convergence if one is wanted, none is under way and the last has not just failed."""
        if self._wanted and now >= self._again and self._stop == math.inf and not self._converging():
            causes, self._wanted = self._wanted, []
            self._fork(lambda: requests.finished(lambda: self.heed(causes)), None)

    def _accept(self) -> None:
        with suppress(OSError):  # whoever it was has gone, or there are too many open files: not our end
            caller, _ = self._door.accept()
            if len(self._children) < CHILDREN:
                self._fork(lambda: requests.carry_out(caller, self.commands), caller)
            else:
                caller.close()

    def _fork(self, work: Callable[[], int], caller: socket.socket | None) -> None:
        try:
            pid = os.fork()
        except OSError:
            if caller:
                caller.close()
            self._again = monotonic() + AGAIN_S
            return
        if not pid:
            code = 1
            try:
                self._leave(caller)
                code = work()
            finally:
                os._exit(code)  # whatever happens, a child never gets back into the loop
        self._children[pid] = _Child(pid, os.pidfd_open(pid), monotonic() + LIMIT_S, caller)

    def _leave(self, caller: socket.socket | None) -> None:
        """As a child: let go of everything that is the agent's."""
        signal.set_wakeup_fd(-1)
        for number in (signal.SIGTERM, signal.SIGINT):
            signal.signal(number, signal.SIG_DFL)
        for ear in self.ears:
            ear.close()
        for child in self._children.values():
            os.close(child.handle)
            if child.caller:
                child.caller.close()
        for own in (self._door, self._rouser, self._roused):
            if own is not caller:
                own.close()
        # When memory runs out the one who works goes first: its caller does it again.
        with suppress(OSError):
            Path("/proc/self/oom_score_adj").write_text("0\n", "ascii")

    def _reap(self, child: _Child) -> None:
        del self._children[child.pid]
        _, status = os.waitpid(child.pid, 0)
        os.close(child.handle)
        if os.WIFSIGNALED(status):
            # It may have been about to follow keepalived's word.
            (self.root / MOVED).touch()
        if child.caller:
            child.caller.close()  # without an answer by now, the caller does the work itself
        elif os.waitstatus_to_exitcode(status) not in DONE:
            self._again = monotonic() + AGAIN_S

    def _give_up(self, child: _Child) -> None:
        what = (
            f"a request ({requests.called(child.pid, child.caller)})"
            if child.caller
            else "a convergence of the agent's own"
        )
        alert(self.root, [f"{what} was ended: no end within {LIMIT_S:.0f} s (process {child.pid})"])
        if child.caller:
            with suppress(OSError):
                child.caller.send(f"3 no end within {LIMIT_S:.0f} s".encode())
        os.kill(child.pid, signal.SIGKILL)  # it has not been reaped, so the id is still its own
        self._children[child.pid] = child._replace(until=math.inf)


def _listening(place: Path) -> socket.socket:
    """Open the socket; it appears when it listens, and for root alone."""
    fresh = place.with_name(f".{place.name}.new")
    fresh.parent.mkdir(mode=0o755, parents=True, exist_ok=True)
    fresh.unlink(missing_ok=True)
    door = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    before = os.umask(0o177)
    try:
        door.bind(str(fresh))
    finally:
        os.umask(before)
    door.listen(_BACKLOG)
    door.setblocking(False)  # noqa: FBT003 the library has no other spelling
    fresh.rename(place)
    return door


def main(root: Path) -> int:
    """Be the agent of this router until told to stop."""
    ears: list[Ear] = [
        PeerEar(root, monotonic()),
        Wake(root),
        Links(),
        Connections(root, monotonic()),
        Deaf(root, monotonic()),
        Start(root, monotonic()),
        Observed(root, monotonic()),
        Names(root),
        Timer(monotonic()),
    ]
    # What has been imported is the children's common ground: never looked through again, so never copied.
    gc.collect()
    gc.freeze()
    Agent(root, COMMANDS, ears, lambda causes: heed(root, causes)).run()
    return 0


def heed(root: Path, causes: Sequence[str]) -> int:
    """Converge for these reasons, in a child; a role that another is following already is none.  The exit status."""

    def told(title: str, act: Callable[[Session], Any]) -> int:
        given = act(Session(root))
        if given.changes or given.code:  # the journal knows the rest already
            answer.tell(title, given)
        return int(given.code)

    def converge() -> int:
        errands.do(root, causes)
        others = "; ".join(cause for cause in causes if cause != ROLE and cause not in errands.ERRANDS)
        moved = (root / MOVED).exists()
        code = followed(root, lambda: told(f"role {word(root) or 'unknown'}", Session.follow))
        return told(others, lambda s: s.converge(others)) if others and not moved else code

    return guarded(converge)
