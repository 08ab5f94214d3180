"""Waiting for a change among the network devices, without missing one."""

import select
import socket
import time
from collections.abc import Callable
from types import TracebackType
from typing import Self

_RTMGRP_LINK = 1
_LONGEST_MESSAGE = 65536


class LinkEvents:
    """An ear for devices that come, go or change.  It listens from its creation on.

    Open it first, look second, wait third: what happens between looking and waiting ends the wait at once.
    OSError if the kernel gives no socket.
    """

    def __init__(self) -> None:
        self._socket = socket.socket(socket.AF_NETLINK, socket.SOCK_RAW | socket.SOCK_CLOEXEC, socket.NETLINK_ROUTE)
        try:
            self._socket.bind((0, _RTMGRP_LINK))
            self._socket.setblocking(False)  # noqa: FBT003 the library has no other spelling
        except OSError:
            self._socket.close()
            raise

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self.close()

    def fileno(self) -> int:
        """Return the descriptor, for a caller that waits for several things."""
        return self._socket.fileno()

    def close(self) -> None:
        """Stop listening."""
        self._socket.close()

    def wait(self, timeout_s: float) -> bool:
        """Whether anything happened since the last call, waiting for it up to the timeout.  A burst counts as one."""
        ready, _, _ = select.select([self._socket], [], [], max(0.0, timeout_s))
        return bool(ready) and self._drain()

    def _drain(self) -> bool:
        heard = False
        while True:
            try:
                heard = bool(self._socket.recv(_LONGEST_MESSAGE)) or heard
            except BlockingIOError:
                return heard
            except OSError:  # ENOBUFS: so much happened that the kernel threw some of it away
                heard = True


def wait_for_link_event(timeout_s: float) -> bool:
    """Wait for the next change of a network device; False if none came in time.

    What happened before the call is missed: use `wait_until` where something is waited for.
    """
    with LinkEvents() as events:
        return events.wait(timeout_s)


def wait_until(true: Callable[[], bool], timeout_s: float) -> bool:
    """Wait until the question is answered with yes, asking anew at each link event; the last answer."""
    deadline = time.monotonic() + timeout_s
    with LinkEvents() as events:
        while not (answer := true()):
            left = deadline - time.monotonic()
            if left <= 0 or not events.wait(left):
                return true()
    return answer
