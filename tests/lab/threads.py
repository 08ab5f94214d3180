"""Threads of this process that work beside a test: as long as a block lasts, or once, in another network."""

import socket
import threading
from collections.abc import Callable
from typing import Self, TypeVar

from holdfast.machine import enter_network

T = TypeVar("T")


class Beside:
    """Runs each of some functions in a thread while a block lasts.

    `over` is set when the block ends; each function returns soon after, and is waited for.  `sockets` are closed then.
    What a function raises fails the test: warnings are errors, and pytest warns of it.
    """

    def __init__(self, *functions: Callable[[], None], sockets: tuple[socket.socket, ...] = ()) -> None:
        self.over = threading.Event()
        self._threads = [threading.Thread(target=one) for one in functions]
        self._sockets = sockets

    def __enter__(self) -> Self:
        for thread in self._threads:
            thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.over.set()
        for thread in self._threads:
            thread.join()
        for one in self._sockets:
            one.close()


def in_network(namespace: str, make: Callable[[], T]) -> T:
    """What a function returns in a network namespace; a thread that entered one has no way back, so it ends."""
    made: list[T] = []

    def enter() -> None:
        enter_network(namespace)
        made.append(make())

    thread = threading.Thread(target=enter)
    thread.start()
    thread.join()
    return made[0]
