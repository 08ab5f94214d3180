"""Long-lived TCP connections of which the test holds both ends: many that are idle, some that never rest."""

import contextlib
import selectors
import socket
import time
from typing import NamedTuple, Self

from threads import Beside
from watching import socket_in

from holdfast.lab.host import Host

_CONNECT_S = 5.0
_CHUNK = b"x" * 512
_BEAT_S = 0.01
_BEATS_A_SECOND = 2000
_PATIENCE_S = 15.0


Way = tuple[socket.socket, socket.socket]
"""Sender and receiver."""


class Stream(NamedTuple):
    """One connection: who opened it, and who accepted it."""

    near: socket.socket
    far: socket.socket


class Streams:
    """`count` connections from a host to `address`:`port`, which `target` accepts at `listens`."""

    def __init__(  # noqa: PLR0913 both ends
        self, source: Host, target: Host, address: str, port: int, count: int, *, listens: int = 0
    ) -> None:
        self.what = f"{source.name} -> {address}:{port}"
        self.streams: list[Stream] = []
        self._listener = socket_in(target, socket.SOCK_STREAM)
        self._listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        self._listener.bind(("", listens or port))
        self._listener.listen(count)
        self._listener.settimeout(_CONNECT_S)
        for _ in range(count):
            near = socket_in(source, socket.SOCK_STREAM)
            near.settimeout(_CONNECT_S)
            near.connect((address, port))
            far, _ = self._listener.accept()
            near.setblocking(False)  # noqa: FBT003 the library's own signature
            far.setblocking(False)  # noqa: FBT003 the library's own signature
            self.streams.append(Stream(near, far))

    def __len__(self) -> int:
        return len(self.streams)

    def ports(self) -> set[int]:
        """The ports that the openers have."""
        return {stream.near.getsockname()[1] for stream in self.streams}

    def alive(self, timeout_s: float) -> int:
        """How many still carry a word there and, once it came, one back, all within a time."""
        ends = [(stream.near, stream.far) for stream in self.streams]
        there = _carried(ends, timeout_s)
        return len(_carried([(far, near) for near, far in there], timeout_s))

    def close(self) -> None:
        """Close all of them without a word to anybody: a reset would be one."""
        for end in (self._listener, *(end for stream in self.streams for end in stream)):
            end.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


def _carried(ways: list[Way], timeout_s: float) -> list[Way]:
    """Those ways over which a word came in time."""
    came: list[Way] = []
    with selectors.DefaultSelector() as waiting:
        for sender, receiver in ways:
            with contextlib.suppress(OSError):
                sender.send(b"word")
                waiting.register(receiver, selectors.EVENT_READ, (sender, receiver))
        end = time.monotonic() + timeout_s
        while waiting.get_map() and time.monotonic() < end:
            for key, _ in waiting.select(max(0.0, end - time.monotonic())):
                way: Way = key.data
                waiting.unregister(way[1])
                with contextlib.suppress(OSError):
                    if way[1].recv(65536):
                        came.append(way)
    return came


class Busy(Beside):
    """Sends over connections all the time, from the accepting side; `stalls_s` and `broken` tell afterwards.

    At the end it goes on until all have been heard of again: after an outage TCP itself pauses, longer and longer.
    """

    def __init__(self, *streams: Streams) -> None:
        self._streams = [stream for some in streams for stream in some.streams]
        self.stalls_s = [0.0] * len(self._streams)
        self.broken = 0
        # Many of them must not take the processor that the routers need.
        self._beat_s = max(_BEAT_S, len(self._streams) / _BEATS_A_SECOND)
        super().__init__(self._run)

    def _run(self) -> None:
        heard = [time.monotonic()] * len(self._streams)
        living = dict(enumerate(self._streams))
        end = float("inf")
        while living and time.monotonic() < end:
            if self.over.is_set():
                end = min(end, time.monotonic() + _PATIENCE_S)
            for number, stream in list(living.items()):
                try:
                    if not self._beat(stream):
                        continue
                except OSError:
                    del living[number]
                    self.broken += 1
                    continue
                now = time.monotonic()
                self.stalls_s[number] = max(self.stalls_s[number], now - heard[number])
                heard[number] = now
                if end < float("inf"):
                    del living[number]
            time.sleep(self._beat_s)
        self.broken += len(living)

    @staticmethod
    def _beat(stream: Stream) -> bool:
        """Send a little, and take what has come; whether anything had."""
        with contextlib.suppress(BlockingIOError):
            stream.far.send(_CHUNK)
        with contextlib.suppress(BlockingIOError):
            return bool(stream.near.recv(65536))
        return False
