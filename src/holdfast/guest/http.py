"""One connection is one request and one response, so that none can outlive a change of tenant."""

import asyncio
import time
from asyncio import StreamReader, StreamWriter
from collections.abc import Awaitable, Callable
from http import HTTPStatus

import h11

from holdfast.guest.answers import BAD_REQUEST, Answer, Content, Request

LARGEST_HEAD = 8192  # bytes
_LARGEST_BODY = 65536
_READ = 16384
_LOOK_S = 1.0  # how often one who waits for a guest looks whether there is still something to send

Respond = Callable[[Request], Awaitable[Answer]]


def _nothing() -> None:
    pass


async def converse(
    reader: StreamReader, writer: StreamWriter, respond: Respond, progress: Callable[[], None] = _nothing
) -> None:
    """Read a request, answer it, wait until the answer has left; OSError if the client goes away.

    `progress` is called with each piece of a large answer that has left.
    """
    connection = h11.Connection(h11.SERVER, max_incomplete_event_size=LARGEST_HEAD)
    try:
        request = await _request(connection, reader)
        if request is None:
            return
        answer = await respond(request)
    except h11.RemoteProtocolError as error:
        request = Request(b"GET", b"")
        answer = BAD_REQUEST._replace(status=error.error_status_hint)
    writer.transport.set_write_buffer_limits(high=0)  # so that `drain` waits for all of it
    try:
        writer.write(_rendered(answer, with_body=request.method != b"HEAD"))
        await writer.drain()
        if answer.content and request.method != b"HEAD":
            await _sent(answer.content, writer, progress)
    finally:
        if answer.content:
            answer.content.close()


async def _sent(content: Content, writer: StreamWriter, progress: Callable[[], None]) -> None:
    """Send piece by piece, one at a time, so that a guest that is slow costs no more than one."""
    async for piece in content.pieces():
        writer.write(piece)
        while True:
            try:
                async with asyncio.timeout(_LOOK_S):
                    await writer.drain()
                break
            except TimeoutError:
                content.check()
        progress()


async def _request(connection: h11.Connection, reader: StreamReader) -> Request | None:
    """The head of the request; its body is read and forgotten, as closing on unread bytes would cut the answer off."""
    head: Request | None = None
    body = 0
    while body <= _LARGEST_BODY:
        event = connection.next_event()
        if event is h11.NEED_DATA:
            if connection.they_are_waiting_for_100_continue:
                break
            connection.receive_data(await reader.read(_READ))
        elif isinstance(event, h11.Request):
            head = Request(event.method, event.target, list(event.headers))
        elif isinstance(event, h11.Data):
            body += len(event.data)
        else:
            break
    return head


def _rendered(answer: Answer, *, with_body: bool) -> bytes:
    """The whole response.  Not by h11: what a client may make of a request (CONNECT, HEAD) must not stop its answer."""
    status = HTTPStatus(answer.status)
    lines = [
        f"HTTP/1.1 {status.value} {status.phrase}",
        time.strftime("Date: %a, %d %b %Y %H:%M:%S GMT", time.gmtime()),
        f"Content-Type: {answer.kind}",
        f"Content-Length: {answer.content.length if answer.content else len(answer.body)}",
        *answer.headers,
        "Cache-Control: no-store",
        "Connection: close",
        *(["Allow: GET, HEAD"] if status is HTTPStatus.METHOD_NOT_ALLOWED else []),
        "\r\n",
    ]
    return "\r\n".join(lines).encode() + (answer.body if with_body else b"")
