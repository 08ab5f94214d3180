"""One connection, one response, whatever the bytes are."""

import asyncio
import socket

import pytest
from hypothesis import given
from hypothesis import strategies as st

from holdfast.guest.answers import BAD_REQUEST, Answer, Request
from holdfast.guest.http import converse

SAMPLES = (
    b"GET /latest/meta-data/ HTTP/1.1\r\nHost: x\r\n\r\n",
    b"GET / HTTP/1.0\r\nDomU_Request: send_my_password\r\n\r\n",
    b"HEAD / HTTP/1.1\r\nHost: x\r\nUpgrade: h2c\r\nConnection: upgrade\r\n\r\n",
    b"POST / HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n0\r\n\r\n",
    b"CONNECT a:1 HTTP/1.1\r\nHost: x\r\n\r\nabc",
)


def said_to(data: bytes) -> bytes:
    """Everything that is answered to a client that sends this and nothing more."""

    async def respond(_: Request) -> Answer:
        return BAD_REQUEST

    async def story() -> bytes:
        ours, theirs = socket.socketpair()
        reader, writer = await asyncio.open_connection(sock=ours)
        with theirs:
            theirs.sendall(data)
            theirs.shutdown(socket.SHUT_WR)
            await converse(reader, writer, respond)
            writer.close()
            await writer.wait_closed()
            return b"".join(iter(lambda: theirs.recv(65536), b""))

    return asyncio.run(story())


@pytest.mark.parametrize(
    ("data", "status"),
    [
        (b"", b""),
        (b"GET", b"400"),
        (SAMPLES[0], b"200"),
        (SAMPLES[2], b"200"),
        (SAMPLES[3], b"200"),
        (SAMPLES[4], b"200"),
        (b"HEAD / HTTP/1.1\r\nHost: x\r\nContent-Length: 5\r\n\r\n", b"400"),
        (b"POST / HTTP/1.1\r\nHost: x\r\nContent-Length: 99999999\r\n\r\n" + b"x" * 100_000, b"200"),
        (b"GET / HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: gzip\r\n\r\n", b"501"),
    ],
)
def test_every_kind_of_request_has_an_answer(data: bytes, status: bytes) -> None:
    assert said_to(data)[9:12] == status


@given(st.sampled_from(SAMPLES), st.lists(st.tuples(st.integers(0, 99), st.binary(max_size=3)), max_size=8))
def test_any_bytes_have_one_answer_or_none(sample: bytes, changes: list[tuple[int, bytes]]) -> None:
    data = bytearray(sample)
    for at, piece in changes:
        data[at : at + 1] = piece
    said = said_to(bytes(data))

    assert not said or (said.startswith(b"HTTP/1.1 ") and said.count(b"HTTP/1.1 ") == 1)
