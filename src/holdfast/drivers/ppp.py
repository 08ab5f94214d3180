"""Users of the remote access VPN who are connected: one who may not be any more is disconnected, and nobody else."""

import os
import select
import signal
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path

from holdfast import ppp_session
from holdfast.converge import Failure
from holdfast.l2tp import Sessions
from holdfast.ppp_session import Session
from holdfast.state import Change, Resource, State

PATIENCE_S = 3.0
"""How long pppd has to say good-bye."""


class PppSessions:
    """Ends the pppd of each user who is not allowed.  Who is connected is what pppd's own hook has written down."""

    kinds: tuple[type[Resource], ...] = (Sessions,)

    def __init__(self, root: Path = Path("/")) -> None:
        self.root = root

    def observe(self, desired: State) -> Iterator[Sessions]:
        """The wanted ones as they are wanted, with those who are connected and should not be as well."""
        for wanted in desired.values():
            if isinstance(wanted, Sessions):
                others = {session.user for session in ppp_session.living(self.root)} - {*wanted.allowed}
                yield Sessions((*wanted.allowed, *sorted(others)))

    def check(self, changes: Sequence[Change]) -> Iterable[Failure]:  # noqa: ARG002 nothing can be told before
        """Nothing to ask."""
        return ()

    def apply(self, changes: Sequence[Change]) -> Iterator[Failure]:
        """End them, all at once, and wait until they are gone."""
        for change in changes:
            if not isinstance(change.after, Sessions):
                continue
            try:
                _end([s for s in ppp_session.living(self.root) if s.user not in change.after.allowed], self.root)
            except OSError as error:
                yield Failure(change.key, str(error))


def _end(sessions: Sequence[Session], root: Path) -> None:
    handles = []
    try:
        for session in sessions:
            try:
                handles.append(os.pidfd_open(session.pid))
            except ProcessLookupError:
                continue
            # Looked at once more behind the handle: from here on the number cannot become another's.
            if session not in ppp_session.living(root):
                os.close(handles.pop())
        for sign in (signal.SIGTERM, signal.SIGKILL):
            for handle in handles:
                signal.pidfd_send_signal(handle, sign)
            handles = [handle for handle in handles if not _gone(handle)]
    finally:
        for handle in handles:
            os.close(handle)
    if handles:
        raise OSError("a user's connection does not end")


def _gone(handle: int) -> bool:
    poll = select.poll()
    poll.register(handle, select.POLLIN)
    if not poll.poll(PATIENCE_S * 1000):
        return False
    os.close(handle)
    return True
