"""The guest service as guests meet it: the real process on loopback, killed, starved and lied to."""

import asyncio
import http.client
import json
import os
import signal
import socket
import ssl
import subprocess
import sys
import time
from base64 import b64encode
from collections.abc import AsyncIterator, Iterator
from contextlib import AsyncExitStack, ExitStack, asynccontextmanager, contextmanager, suppress
from pathlib import Path
from typing import Any

import pytest

from holdfast.guest.answers import Answer, Caller, Request
from holdfast.guest.doors import Doors, Limits
from holdfast.receipts import parse

ROUTER, GUEST = "127.0.0.1", "127.0.0.11"
SECRET = 'pa"ss; $(wörd)'  # noqa: S105 a made-up one
PLAIN = b"GET / HTTP/1.0\r\n\r\n"
WEB1 = {"at": [ROUTER], "metadata": {"instance-id": "i-1"}, "password": SECRET, "serial": 1}
SOURCE = str(Path(__file__).parents[1] / "src")
START = "from holdfast.guest.__main__ import main; main()"
DIES_AT = "import os; os.{call} = lambda *_: os.kill(os.getpid(), 9);" + START
DIES_ANSWERING = (
    "import os; from holdfast.guest import http; http._rendered = lambda *_, **__: os.kill(os.getpid(), 9);" + START
)
# What systemd does before it starts a program: sockets from 3 on, and the environment says so.
AS_SYSTEMD = """
import os, sys
for number, fd in enumerate(map(int, sys.argv.pop(1).split(",")), 3):
    os.dup2(fd, number)
os.environ |= {"LISTEN_PID": str(os.getpid()), "LISTEN_FDS": "3"}
import holdfast.guest.__main__ as service
service.HTTP, service.HTTPS, service.PASSWORDS = map(int, sys.argv.pop(1).split(","))
service.main()
"""


class House:
    """A directory with a view and receipts."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.view = path / "view.json"
        self.receipts = path / "receipts"

    def show(self, **guests: dict[str, Any]) -> None:
        """Replace the view; `a127_0_0_11` is the guest of that address."""
        document = {"schema": 1, "guests": {name[1:].replace("_", "."): guest for name, guest in guests.items()}}
        fresh = self.path / "fresh"
        fresh.write_text(json.dumps(document))
        fresh.replace(self.view)

    def acknowledged(self) -> dict[str, int]:
        return parse(self.receipts.read_bytes()).acknowledged if self.receipts.exists() else {}

    @contextmanager
    def serving(self, program: str = "", **more: str) -> Iterator["Service"]:
        argv = [sys.executable, *(("-c", program) if program else ("-m", "holdfast.guest"))]
        options = {"http": f"{ROUTER}:0", "passwords": f"{ROUTER}:0", "view": str(self.view), "state": str(self.path)}
        options |= {"certificate": str(self.path / "given.pem")} | more
        argv += [word for name, value in options.items() for word in (f"--{name}", value)]
        process = subprocess.Popen(argv, stderr=subprocess.PIPE, text=True, env=os.environ | {"PYTHONPATH": SOURCE})
        service = Service(process)
        try:
            service.wait_for_ports(sum(name in options for name in ("http", "https", "passwords")))
            yield service
        finally:
            process.kill()
            process.wait()
            if process.stderr:
                service.log += process.stderr.read()
                process.stderr.close()


class Service:
    def __init__(self, process: "subprocess.Popen[str]") -> None:
        self.process = process
        self.ports: dict[str, int] = {}
        self.log = ""

    def wait_for_ports(self, count: int) -> None:
        while len(self.ports) < count:
            line = self.process.stderr.readline() if self.process.stderr else ""
            assert line, f"the service did not start: {self.log}"
            self.log += line
            name, _, where = line.strip().partition(" at ")
            if where:
                self.ports[name] = int(where.rpartition(":")[2])

    def connect(self, port: str, source: str = GUEST) -> socket.socket:
        return socket.create_connection((ROUTER, self.ports[port]), timeout=5, source_address=(source, 0))

    def raw(self, port: str, request: bytes, source: str = GUEST) -> bytes:
        with self.connect(port, source) as connection:
            connection.sendall(request)
            return b"".join(iter(lambda: connection.recv(65536), b""))

    def fetch(self, target: str, method: str = "GET", source: str = GUEST) -> tuple[http.client.HTTPResponse, bytes]:
        client = http.client.HTTPConnection(ROUTER, self.ports["http"], timeout=5, source_address=(source, 0))
        client.request(method, target)
        answer = client.getresponse()
        return answer, answer.read()

    def say(self, word: str, source: str = GUEST) -> str:
        """What `wget --header "DomU_Request: word"` prints; empty if the service dies of it."""
        request = f"GET / HTTP/1.0\r\nUser-Agent: Wget/1.21\r\nHost: {ROUTER}\r\nDomU_Request: {word}\r\n\r\n"
        try:
            head, _, body = self.raw("passwords", request.encode(), source).partition(b"\r\n\r\n")
        except ConnectionError:
            return ""
        assert not head or head.startswith((b"HTTP/1.1 200 ", b"HTTP/1.1 503 "))
        return body.decode()


@pytest.fixture
def house(tmp_path: Path) -> House:
    return House(tmp_path)


@pytest.fixture(scope="module")
def idle(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[House, Service]]:
    """A service that several tests share: each sets the view that it needs."""
    house = House(tmp_path_factory.mktemp("guest"))
    with house.serving() as service:
        yield house, service


def test_metadata_and_user_data(idle: tuple[House, Service]) -> None:
    house, service = idle
    binary = bytes(range(256)) * 4096
    house.show(a127_0_0_11=WEB1 | {"userdata": b64encode(binary).decode()})
    answer, body = service.fetch("/latest/user-data")

    assert (answer.status, body) == (200, binary)
    assert answer.headers["Content-Type"] == "application/octet-stream"
    assert answer.headers["Content-Length"] == str(len(binary))
    assert answer.headers["Cache-Control"] == "no-store"
    assert answer.headers["Connection"] == "close"
    assert service.fetch("/latest/meta-data/")[1] == b"instance-id\n"
    answer, body = service.fetch("/latest/user-data", "HEAD")
    assert (answer.status, body, answer.headers["Content-Length"]) == (200, b"", str(len(binary)))
    answer, _ = service.fetch("/latest/user-data", "POST")
    assert (answer.status, answer.headers["Allow"]) == (405, "GET, HEAD")


def test_each_guest_sees_its_own(idle: tuple[House, Service]) -> None:
    house, service = idle
    house.show(a127_0_0_11=WEB1, a127_0_0_12={"at": ["127.0.0.2"], "metadata": {"instance-id": "i-2"}})

    assert service.fetch("/latest/instance-id")[1] == b"i-1"
    assert service.fetch("/latest/instance-id", source="127.0.0.12")[0].status == 404  # another router address's guest
    assert service.fetch("/latest/instance-id", source="127.0.0.13")[0].status == 404
    assert service.say("send_my_password", source="127.0.0.12") == "saved_password"
    house.show()
    assert service.fetch("/latest/instance-id")[0].status == 404
    house.view.unlink()
    assert service.fetch("/latest/instance-id")[0].status == 404


def test_a_broken_view_leaves_the_last_good_one(idle: tuple[House, Service]) -> None:
    house, service = idle
    house.show(a127_0_0_11=WEB1)
    assert service.fetch("/latest/instance-id")[1] == b"i-1"
    for broken in (b"", b"{", b'{"schema":2,"guests":{}}', b'{"schema":1,"guests":{"a":\xff}}'):
        (house.path / "fresh").write_bytes(broken)
        (house.path / "fresh").replace(house.view)
        assert service.fetch("/latest/instance-id")[1] == b"i-1"
    house.show(a127_0_0_11={"at": 3}, a127_0_0_12={"at": [ROUTER], "metadata": {"a": "b"}})

    assert service.fetch("/latest/instance-id")[0].status == 404
    assert service.fetch("/latest/a", source="127.0.0.12")[1] == b"b"


@pytest.mark.parametrize(
    ("request_text", "status"),
    [
        (b"GET /latest/instance-id HTTP/1.0\n\n", 200),
        (b"GET /latest/instance-id HTTP/1.1\r\nHost: data-server\r\n\r\n", 200),
        (b"GET http://data-server/latest/instance-id HTTP/1.1\r\nHost: x\r\nConnection: keep-alive\r\n\r\n", 200),
        (b"POST /x HTTP/1.1\r\nHost: x\r\nContent-Length: 3\r\n\r\nabc", 405),
        (b"POST /x HTTP/1.1\r\nHost: x\r\nExpect: 100-continue\r\nContent-Length: 3\r\n\r\n", 405),
        (b"GET /latest/instance-id HTTP/1.1\r\n\r\n", 400),
        (b"GET /latest/\xff HTTP/1.0\r\n\r\n", 400),
        (b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\r\n\r\n", 400),
        (b"GET / HTTP/1.0\r\nX: " + b"a" * 20000 + b"\r\n\r\n", 431),
    ],
)
def test_dialects_and_nonsense(idle: tuple[House, Service], request_text: bytes, status: int) -> None:
    house, service = idle
    house.show(a127_0_0_11=WEB1)

    assert service.raw("http", request_text).startswith(b"HTTP/1.1 %d " % status)


def test_a_request_that_follows_another_is_not_answered(idle: tuple[House, Service]) -> None:
    house, service = idle
    house.show(a127_0_0_11=WEB1)
    both = b"GET /latest/instance-id HTTP/1.1\r\nHost: x\r\n\r\n" * 2

    assert service.raw("http", both).count(b"HTTP/1.1 ") == 1


def test_one_guest_cannot_take_all_connections(idle: tuple[House, Service]) -> None:
    house, service = idle
    house.show(a127_0_0_11=WEB1)
    held = [service.connect("http", "127.0.0.66") for _ in range(12)]
    cut = [line for line in held[8:] if line.recv(1) == b""]

    assert len(cut) == 4
    assert service.fetch("/latest/instance-id")[1] == b"i-1"
    for line in held:
        line.close()
    assert eventually_answered(service, "127.0.0.66")


def eventually_answered(service: Service, source: str) -> bool:
    """Whether this address is let in again: the service has to notice first that it has left."""
    deadline = time.monotonic() + 5
    while time.monotonic() < deadline:
        with suppress(ConnectionError):
            return service.raw("http", PLAIN, source).startswith(b"HTTP/1.1 404 ")
        time.sleep(0.01)
    return False


def test_a_password_is_given_once(house: House) -> None:
    house.show(a127_0_0_11=WEB1)
    with house.serving() as service:
        assert service.say("send_my_password") == SECRET
        assert service.say("send_my_password") == SECRET
        house.show(a127_0_0_11=WEB1 | {"password": "newer", "serial": 2})
        assert service.say("saved_password") == "saved_password"  # of the one that it was given
        assert house.acknowledged() == {GUEST: 1}
        assert service.say("send_my_password") == "newer"
        assert service.say("saved_password") == "saved_password"
        assert service.say("saved_password") == "saved_password"
        assert service.say("send_my_password") == "saved_password"
        assert service.say("anything") == "bad_request"
        assert service.fetch("/latest/user-data")[0].status == 404

    assert house.receipts.read_text().count("\n") == 4
    assert SECRET not in service.log
    assert "newer" not in service.log


@pytest.mark.parametrize(
    ("program", "word"),
    [
        ("", "send_my_password"),
        (DIES_AT.format(call="ftruncate"), "send_my_password"),
        (DIES_AT.format(call="write"), "send_my_password"),
        (DIES_ANSWERING, "send_my_password"),
        (DIES_AT.format(call="ftruncate"), "saved_password"),
        (DIES_AT.format(call="write"), "saved_password"),
        (DIES_AT.format(call="fsync"), "saved_password"),
        (DIES_ANSWERING, "saved_password"),
        ("", "saved_password"),
    ],
)
def test_killed_at_any_step_a_password_is_neither_lost_nor_repeated(house: House, program: str, word: str) -> None:
    house.show(a127_0_0_11=WEB1)
    house.receipts.touch()  # a new file is synced by itself, which is not the step that is meant
    with house.serving(program) as service:
        said = service.say(word)
        assert bool(said) == (not program)
        if program:
            assert service.process.wait(5) == -signal.SIGKILL
    with house.serving() as service:
        if word == "send_my_password":
            assert service.say("send_my_password") == SECRET
        elif said:
            assert service.say("send_my_password") == "saved_password"
        assert service.say("saved_password") == "saved_password"  # a guest that heard nothing tries again
        assert service.say("send_my_password") == "saved_password"


def test_receipts_are_repaired_and_shortened_at_the_start(house: House) -> None:
    house.show(a127_0_0_11=WEB1 | {"serial": 13})
    whole = (
        b"delivered 127.0.0.11 11\nacknowledged 127.0.0.11 11\ndelivered 127.0.0.11 12\nacknowledged 127.0.0.11 12\n"
    )
    house.receipts.write_bytes(whole + b"acknowledged 127.0.0.11 1")
    with house.serving() as service:
        assert house.receipts.read_bytes() == b"delivered 127.0.0.11 12\nacknowledged 127.0.0.11 12\n"
        assert service.say("send_my_password") == SECRET
        assert service.say("saved_password") == "saved_password"

    assert house.acknowledged() == {GUEST: 13}
    assert house.receipts.stat().st_mode & 0o077 == 0


def test_receipts_that_cannot_be_shortened_are_repaired_in_place(house: House) -> None:
    house.show(a127_0_0_11=WEB1 | {"serial": 13})
    whole = b"acknowledged 127.0.0.11 11\nacknowledged 127.0.0.11 12\n"
    house.receipts.write_bytes(whole + b"acknowledged 127.0.0.11 1")
    (house.path / ".receipts.new").mkdir()  # in the way of the shorter one
    with house.serving() as service:
        assert service.say("send_my_password") == SECRET
        assert service.say("saved_password") == "saved_password"

    assert house.receipts.read_bytes() == whole + b"delivered 127.0.0.11 13\nacknowledged 127.0.0.11 13\n"


def test_a_disk_that_refuses_leaves_the_password_pending(house: House) -> None:
    house.show(a127_0_0_11=WEB1)
    full = house.path / "full"
    program = (
        "import os; real = os.write;"
        f"os.write = lambda fd, data: real(fd, data[:5] if os.path.exists({str(full)!r}) else data);{START}"
    )
    with house.serving(program) as service:
        full.touch()
        assert service.say("send_my_password") == SECRET
        assert service.say("saved_password") == "unavailable\n"
        assert service.say("send_my_password") == SECRET
        assert house.receipts.read_bytes() == b""
        full.unlink()
        assert service.say("saved_password") == "saved_password"
        assert service.say("send_my_password") == "saved_password"

    assert house.acknowledged() == {GUEST: 1}


def test_unreadable_receipts_bring_no_password_back(house: House) -> None:
    house.show(a127_0_0_11=WEB1)
    house.receipts.mkdir()
    with house.serving() as service:
        assert service.say("send_my_password") == "unavailable\n"
        assert service.fetch("/latest/instance-id")[1] == b"i-1"
        house.receipts.rmdir()
        assert service.say("send_my_password") == SECRET


def tls_client() -> ssl.SSLContext:
    client = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    client.check_hostname = False
    client.verify_mode = ssl.CERT_NONE
    return client


def made_by(path: Path, *protection: str) -> None:
    """Have openssl(1) make a key, protected or not, and its certificate."""
    words = f"openssl req -x509 -newkey rsa:2048 -subj /CN=x -keyout {path} -out {path}".split()
    subprocess.run([*words, *(protection or ["-nodes"])], check=True, capture_output=True)


def certificate(service: Service, client: ssl.SSLContext) -> bytes:
    with client.wrap_socket(service.connect("https"), server_hostname="data-server") as line:
        line.sendall(b"GET /latest/instance-id HTTP/1.0\r\n\r\n")
        answer = b"".join(iter(lambda: line.recv(65536), b""))
        assert answer.endswith(b"\r\n\r\ni-1")
        return line.getpeercert(binary_form=True) or b""


def test_tls_with_a_certificate_of_its_own(house: House) -> None:
    house.show(a127_0_0_11=WEB1)
    (house.path / "given.pem").write_text("broken")
    with house.serving(https=f"{ROUTER}:0") as service:
        first = certificate(service, tls_client())
        assert (house.path / "tls.pem").stat().st_mode & 0o777 == 0o600
        trusting = ssl.create_default_context(cadata=ssl.DER_cert_to_PEM_cert(first))
        assert certificate(service, trusting) == first  # for the name data-server
        assert service.raw("https", b"GET / HTTP/1.0\r\n\r\n")[:5] != b"HTTP/"
    with house.serving(https=f"{ROUTER}:0") as service:
        assert certificate(service, tls_client()) == first

    assert "given.pem" in service.log


def test_tls_with_the_operators_certificate(house: House) -> None:
    house.show(a127_0_0_11=WEB1)
    given = house.path / "given.pem"
    made_by(given)
    with house.serving(https=f"{ROUTER}:0") as service:
        assert certificate(service, tls_client()) == ssl.PEM_cert_to_DER_cert(
            given.read_text().partition("KEY-----\n")[2].partition("KEY-----\n")[2]
        )
        old = tls_client()
        old.maximum_version = ssl.TLSVersion.TLSv1_2
        assert certificate(service, old)
    assert not (house.path / "tls.pem").exists()


def test_a_key_that_wants_a_passphrase_is_a_broken_one(house: House) -> None:
    house.show(a127_0_0_11=WEB1)
    made_by(house.path / "given.pem", "-passout", "pass:secret")
    with house.serving(https=f"{ROUTER}:0") as service:
        assert certificate(service, tls_client())

    assert "given.pem" in service.log
    assert (house.path / "tls.pem").exists()


def test_without_openssl_http_goes_on(house: House) -> None:
    house.show(a127_0_0_11=WEB1)
    with house.serving(f"import os; os.environ['PATH'] = '/nowhere'; {START}", https=f"{ROUTER}:0") as service:
        assert service.fetch("/latest/instance-id")[1] == b"i-1"
        with service.connect("https") as line:
            assert line.recv(1) == b""


def test_told_to_stop_it_finishes_what_is_in_flight(house: House) -> None:
    house.show(a127_0_0_11=WEB1)
    with house.serving() as service, service.connect("http") as slow:
        slow.sendall(b"GET /latest/instance-id HTTP/1.0\r\n")
        service.fetch("/latest/instance-id")  # so that the slow one has been let in
        service.process.send_signal(signal.SIGTERM)
        time.sleep(0.1)
        slow.sendall(b"\r\n")
        assert b"".join(iter(lambda: slow.recv(65536), b"")).endswith(b"i-1")
        assert service.process.wait(5) == 0


def test_systemd_hands_over_sockets_and_hears_that_all_is_ready(house: House) -> None:
    house.show(a127_0_0_11=WEB1)
    with ExitStack() as held:
        notice = held.enter_context(socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM))
        notice.bind(str(house.path / "notify"))
        notice.settimeout(5)
        ports, fds = [], []
        for high in (50, 51, 52):  # out of the way of 3, 4 and 5
            listener = held.enter_context(socket.create_server((ROUTER, 0)))
            ports.append(listener.getsockname()[1])
            fds.append(os.dup2(listener.fileno(), high))
            held.callback(os.close, high)
        lists = [",".join(map(str, numbers)) for numbers in (fds, ports)]
        argv = [sys.executable, "-c", AS_SYSTEMD, *lists, "--view", str(house.view), "--state", str(house.path)]
        environment = os.environ | {"PYTHONPATH": SOURCE, "NOTIFY_SOCKET": str(house.path / "notify")}
        process = subprocess.Popen(argv, env=environment, stderr=subprocess.DEVNULL, text=True, pass_fds=fds)
        held.callback(process.wait)
        held.callback(process.kill)
        service = Service(process)
        service.ports = dict(zip(("http", "https", "passwords"), ports, strict=True))
        assert notice.recv(100) == b"READY=1"
        assert service.fetch("/latest/instance-id")[1] == b"i-1"
        assert service.say("send_my_password") == SECRET


def test_no_socket_is_an_error(house: House) -> None:
    argv = [sys.executable, "-m", "holdfast.guest", "--view", str(house.view)]

    assert subprocess.run(argv, capture_output=True, check=False).returncode == 2


@asynccontextmanager
async def opened(limits: Limits, tls: ssl.SSLContext | None = None) -> AsyncIterator[tuple[int, list[str]]]:
    """Doors of this process, with limits that a test can wait for: their port, and who was answered."""
    asked: list[str] = []

    async def respond(caller: Caller, request: Request) -> Answer:
        asked.append(caller.peer)
        if request.target == b"/fault":
            raise ValueError(SECRET)
        return Answer(200, b"x" * 20_000_000 if request.target == b"/large" else b"ok")

    doors = Doors(limits)
    with socket.create_server((ROUTER, 0)) as listener:
        task = asyncio.create_task(doors.open(listener, respond, tls))
        try:
            yield listener.getsockname()[1], asked
        finally:
            task.cancel()
            await doors.empty()


@asynccontextmanager
async def connected(port: int) -> AsyncIterator[tuple[asyncio.StreamReader, asyncio.StreamWriter]]:
    reader, writer = await asyncio.open_connection(ROUTER, port, limit=1024)
    try:
        yield reader, writer
    finally:
        writer.close()
        with suppress(ConnectionError):
            await writer.wait_closed()


async def exchange(port: int, request: bytes) -> bytes:
    async with connected(port) as (reader, writer):
        writer.write(request)
        try:
            return await reader.read()
        except ConnectionError:
            return b""


@pytest.mark.parametrize("request_text", [b"", b"GET / HT", b"POST / HTTP/1.0\r\nContent-Length: 9\r\n\r\n"])
def test_a_slow_client_is_cut_off(request_text: bytes) -> None:
    async def story() -> None:
        async with opened(Limits(exchange_s=0.2)) as (port, asked):
            assert await asyncio.wait_for(exchange(port, request_text), 2) == b""
            assert asked == []
            assert b"ok" in await exchange(port, PLAIN)

    asyncio.run(story())


def test_a_client_that_does_not_read_is_cut_off() -> None:
    async def story() -> None:
        async with opened(Limits(exchange_s=0.2, per_source=1)) as (port, _), connected(port) as (reader, writer):
            writer.write(b"GET /large HTTP/1.0\r\n\r\n")
            await asyncio.sleep(0.4)
            assert b"ok" in await exchange(port, PLAIN)  # its place is free again
            with suppress(ConnectionError):
                assert len(await reader.read(30_000_000)) < 20_000_000

    asyncio.run(story())


def test_a_handshake_that_does_not_end_is_cut_off() -> None:
    async def story() -> None:
        async with opened(Limits(handshake_s=0.2), ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)) as (port, asked):
            assert await asyncio.wait_for(exchange(port, b"\x16\x03\x01"), 2) == b""
            assert asked == []

    asyncio.run(story())


def test_all_together_are_bounded() -> None:
    async def story() -> None:
        async with opened(Limits(per_source=50, total=3)) as (port, _), AsyncExitStack() as held:
            lines = [await held.enter_async_context(connected(port)) for _ in range(3)]
            assert await exchange(port, PLAIN) == b""
            lines[0][1].close()
            await asyncio.sleep(0.05)
            assert b"ok" in await exchange(port, PLAIN)

    asyncio.run(story())


def test_a_fault_is_logged_without_its_words_and_the_next_is_served(caplog: pytest.LogCaptureFixture) -> None:
    async def story() -> None:
        async with opened(Limits()) as (port, _):
            assert await exchange(port, b"GET /fault HTTP/1.0\r\n\r\n") == b""
            assert b"ok" in await exchange(port, PLAIN)

    asyncio.run(story())

    assert "ValueError in " in caplog.text
    assert SECRET not in caplog.text
