"""The service from its start to its end: what is known, what is written down, and the three ports."""

import asyncio
import logging
import os
import signal
import socket
from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

from holdfast import receipts as receipts_format
from holdfast.guest import answers, files, tls, view
from holdfast.guest.answers import UNAVAILABLE, Answer, Caller, Request
from holdfast.guest.doors import Doors, Limits, nameless
from holdfast.guest.receipts_file import ReceiptsFile
from holdfast.systemd import notify

STATE = Path(receipts_format.PATH).parent

_log = logging.getLogger(__name__)


class Settings(NamedTuple):
    """Where things are, and what may be overdone."""

    view: Path = view.PATH
    state: Path = STATE
    certificate: Path = tls.GIVEN
    limits: Limits = Limits()
    disc: Path = files.ROOT


class Ports(NamedTuple):
    """Listening sockets, each of which may be missing."""

    http: socket.socket | None = None
    https: socket.socket | None = None
    passwords: socket.socket | None = None


class Service:
    """Answers, from the newest view and receipts."""

    def __init__(self, settings: Settings) -> None:
        self._view = view.View(settings.view)
        self._receipts = ReceiptsFile(settings.state / Path(receipts_format.PATH).name)
        self._files = files.Files(settings.disc)

    async def metadata(self, caller: Caller, request: Request) -> Answer:
        """Answer on the ports for metadata."""
        guest = self._view.guest(caller.peer)
        if answers.about_disc(caller, guest, request):
            return await self._files.answer(request)
        return answers.metadata(caller, guest, request)

    async def password(self, caller: Caller, request: Request) -> Answer:
        """Answer on the port for passwords; what the answer claims is written down by then."""
        try:
            known = self._receipts.receipts()
        except OSError as error:
            _log.error("%s", error)
            return UNAVAILABLE
        answer = answers.password(caller, self._view.guest(caller.peer), known, request)
        if answer.event is None or (answer.event == "delivered" and known.delivered.get(caller.peer) == answer.serial):
            return answer
        try:
            await self._receipts.record(answer.event, caller.peer, answer.serial)
        except OSError as error:
            _log.error("%s %s %d: %s", answer.event, caller.peer, answer.serial, error)
            # Without its note a delivery only loses precision; an acknowledgement would be a lie.
            return answer if answer.event == "delivered" else UNAVAILABLE
        _log.info("password %d of %s: %s", answer.serial, caller.peer, answer.event)
        return answer

    def warm(self) -> None:
        """Read what is there, so that a fault shows at the start and the first guest need not wait."""
        self._view.guest("")
        try:
            self._receipts.receipts()
        except OSError as error:
            _log.error("%s", error)

    def close(self) -> None:
        """Wait for what is being written."""
        self._files.close()
        self._receipts.close()


async def serve(ports: Ports, settings: Settings) -> None:
    """Serve until told to stop (SIGTERM, SIGINT), then finish what is in flight.  Any other end is an error."""
    loop = asyncio.get_running_loop()
    loop.set_exception_handler(_discreet)
    stop = asyncio.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, stop.set)
    service, doors = Service(settings), Doors(settings.limits)
    service.warm()
    open_doors = _opened(ports, settings, service, doors)
    notify(os.environ, "READY=1")
    stopped = loop.create_task(stop.wait())
    done, _ = await asyncio.wait({stopped, *open_doors}, return_when=asyncio.FIRST_COMPLETED)
    for door in open_doors:
        door.cancel()
    await doors.empty()
    service.close()
    for task in done - {stopped}:
        task.result()  # a door that closed by itself


def _opened(ports: Ports, settings: Settings, service: Service, doors: Doors) -> set[asyncio.Task[Any]]:
    loop = asyncio.get_running_loop()
    tasks = set()
    if ports.http:
        tasks.add(loop.create_task(doors.open(ports.http, service.metadata)))
    if ports.passwords:
        tasks.add(loop.create_task(doors.open(ports.passwords, service.password)))
    if ports.https:
        tasks.add(loop.create_task(_open_with_tls(ports.https, settings, service, doors)))
    for name, listener in ports._asdict().items():
        if listener:
            _log.info("%s at %s:%d", name, *listener.getsockname()[:2])
    return tasks


async def _open_with_tls(listener: socket.socket, settings: Settings, service: Service, doors: Doors) -> None:
    # Making a certificate takes a while, the first time; nobody else waits for it.
    context = await asyncio.to_thread(tls.context, settings.certificate, settings.state / "tls.pem")
    if context is None:
        doors = Doors(Limits(total=0))  # whoever comes is turned away, rather than kept waiting in the kernel's queue
    await doors.open(listener, service.metadata, context)


def _discreet(_: asyncio.AbstractEventLoop, context: Mapping[str, Any]) -> None:
    """Log what asyncio caught, in its own words but not in the error's."""
    error = context.get("exception")
    _log.error("%s: %s", context.get("message"), nameless(error) if error else "no exception")
