"""Listening sockets: who is let in, for how long, and how many at a time."""

import asyncio
import logging
import resource
import socket
import traceback
from collections import Counter
from collections.abc import Awaitable, Callable
from functools import partial
from ssl import SSLContext
from typing import NamedTuple

from holdfast.guest.answers import Answer, Caller, Request
from holdfast.guest.http import LARGEST_HEAD, converse

Respond = Callable[[Caller, Request], Awaitable[Answer]]

_log = logging.getLogger(__name__)
_OTHER_FILES = 64  # descriptors that are no connections
_PAUSE_S = 0.05


class Limits(NamedTuple):
    """Connections at a time, of one address and of all.  Seconds for a TLS handshake, for an exchange, for stopping."""

    per_source: int = 8
    total: int = 2000
    handshake_s: float = 5.0
    exchange_s: float = 10.0
    stop_s: float = 2.0


class Doors:
    """Every connection of every listening socket."""

    def __init__(self, limits: Limits = Limits()) -> None:  # noqa: B008 immutable
        self._limits = limits
        files, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
        self._total = limits.total if files == resource.RLIM_INFINITY else min(limits.total, files - _OTHER_FILES)
        self._of: Counter[str] = Counter()
        self._tasks: set[asyncio.Task[None]] = set()

    async def open(self, listener: socket.socket, respond: Respond, tls: SSLContext | None = None) -> None:
        """Let callers in until cancelled."""
        loop = asyncio.get_running_loop()
        listener.settimeout(0)
        while True:
            try:
                connection, (peer, _) = await loop.sock_accept(listener)
            except OSError:
                await asyncio.sleep(_PAUSE_S)  # no descriptor is free; the caller waits in the kernel's queue
                continue
            if self._of[peer] >= self._limits.per_source or len(self._tasks) >= self._total:
                connection.close()
            else:
                self._of[peer] += 1
                task = loop.create_task(self._serve(connection, peer, respond, tls))
                self._tasks.add(task)
                task.add_done_callback(partial(self._left, peer))
            # Accepting does not give way by itself while callers queue: they would starve who is inside.
            await asyncio.sleep(0)

    async def empty(self) -> None:
        """Wait for who is inside, for as long as stopping may take."""
        if self._tasks:
            await asyncio.wait(self._tasks, timeout=self._limits.stop_s)

    def _left(self, peer: str, task: asyncio.Task[None]) -> None:
        self._tasks.discard(task)
        self._of[peer] -= 1
        if not self._of[peer]:
            del self._of[peer]

    async def _serve(self, connection: socket.socket, peer: str, respond: Respond, tls: SSLContext | None) -> None:
        writer = None
        try:
            async with asyncio.timeout(self._limits.exchange_s) as limit:
                caller = Caller(peer, connection.getsockname()[0])
                reader, writer = await self._streams(connection, tls)
                await converse(reader, writer, lambda request: respond(caller, request), partial(self._goes_on, limit))
                writer.close()
                await writer.wait_closed()
        except (OSError, TimeoutError):
            pass  # the caller's own affair
        except Exception as error:  # noqa: BLE001 whatever one caller brings about, the next is served
            _log.error("%s: %s", peer, nameless(error))
        finally:
            if writer:
                writer.transport.abort()
            else:
                connection.close()

    def _goes_on(self, limit: asyncio.Timeout) -> None:
        """A large answer may take long, as long as it is taken."""
        limit.reschedule(asyncio.get_running_loop().time() + self._limits.exchange_s)

    async def _streams(
        self, connection: socket.socket, tls: SSLContext | None
    ) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
        loop = asyncio.get_running_loop()
        reader = asyncio.StreamReader(limit=LARGEST_HEAD, loop=loop)
        protocol = asyncio.StreamReaderProtocol(reader, loop=loop)
        transport, _ = await loop.connect_accepted_socket(
            lambda: protocol, connection, ssl=tls, ssl_handshake_timeout=self._limits.handshake_s if tls else None
        )
        return reader, asyncio.StreamWriter(transport, protocol, reader, loop)


def nameless(error: BaseException) -> str:
    """What went wrong and where, without the error's own words: they may quote what a guest was told."""
    frames = traceback.extract_tb(error.__traceback__)
    where = f" in {frames[-1].filename}:{frames[-1].lineno}" if frames else ""
    return f"{type(error).__name__}{where}"
