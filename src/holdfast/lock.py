"""One writer at a time: a kernel lock that queues, and that dies with its holder."""

import fcntl
import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

from holdfast.errors import Failed

LOCK = Path("/run/holdfast/lock")
WAIT_S = 570.0
"""The management server gives a command ten minutes; an answer should still reach it."""
PATIENCE_S = 1.0


@contextmanager
def locked(path: Path = LOCK, *, wait_s: float = WAIT_S, on_wait: Callable[[], object] | None = None) -> Iterator[None]:
    """Hold the lock.  Waits in the kernel's queue up to `wait_s` seconds, then Failed.

    `on_wait` is called once if the wait lasts longer than a second.  The file stays: it is the queue's name.
    """
    if not path.parent.is_dir():
        path.parent.mkdir(parents=True, exist_ok=True)
        path.parent.chmod(0o755)  # whatever the umask: what the guest service reads is in there too
    # Not inherited by programs that are started meanwhile: a daemon must not keep the lock for ever.
    handle = os.open(path, os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW, 0o600)
    try:
        fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        _queue(handle, path, wait_s, on_wait)
    try:
        os.ftruncate(handle, 0)
        os.pwrite(handle, b"%d\n" % os.getpid(), 0)
        yield
    finally:
        os.close(handle)


def _queue(handle: int, path: Path, wait_s: float, on_wait: Callable[[], object] | None) -> None:
    """Wait in a thread: flock has no time limit of its own, and asking again and again would lose one's turn."""
    import threading  # noqa: PLC0415 most runs need not wait, and start-up counts

    turn = threading.Event()
    decision = threading.Lock()
    given_up = False

    def wait() -> None:
        fcntl.flock(handle, fcntl.LOCK_EX)
        with decision:
            if given_up:
                os.close(handle)
            else:
                turn.set()

    threading.Thread(target=wait, daemon=True, name="lock").start()
    try:
        if turn.wait(min(PATIENCE_S, wait_s)):
            return
        if on_wait and wait_s > PATIENCE_S:
            on_wait()
        if turn.wait(max(0.0, wait_s - PATIENCE_S)):
            return
        holder = os.pread(handle, 32, 0).decode(errors="replace").strip()
    finally:
        with decision:
            given_up = not turn.is_set()
    if given_up:
        raise Failed(f"{path}: held by process {holder or 'unknown'} for more than {wait_s:.0f} s")
