"""What guests ask their router for, byte by byte, and the messages that bring it there."""

import base64
import contextlib
import itertools
import json
import socket
import ssl
from collections.abc import Iterable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any, NamedTuple

from watching import socket_in

from holdfast.lab.host import REFUSED_S, Host

Message = dict[str, Any]

ASK_S = 5.0
PORTS = (80, 443, 8080)
TLS = 443
NONE_WAITS = "saved_password"


class Answer(NamedTuple):
    """What came back over HTTP; status 0 if nothing did."""

    status: int
    body: bytes


NOTHING = Answer(0, b"")


def asks(  # noqa: PLR0913 a question and where it is put
    host: Host,
    server: str,
    target: str,
    *,
    port: int = 80,
    headers: Sequence[str] = (),
    source: str = "",
    tls: bool = False,
    timeout_s: float = ASK_S,
) -> Answer:
    """Put one question, its target as it stands here, and return the answer; NOTHING if none came in time."""
    lines = [f"GET {target} HTTP/1.0", *headers, "", ""]
    with contextlib.ExitStack() as opened:
        wire = opened.enter_context(socket_in(host, socket.SOCK_STREAM))
        wire.settimeout(timeout_s)
        try:
            if source:
                wire.bind((source, 0))
            wire.connect((server, port))
            if tls:
                wire = opened.enter_context(_unchecked(wire))
            wire.sendall("\r\n".join(lines).encode())
            heard = b"".join(iter(lambda: wire.recv(65536), b""))
        except OSError:
            return NOTHING
    head, _, body = heard.partition(b"\r\n\r\n")
    return Answer(int(head.split()[1]), body) if head else NOTHING


def _unchecked(plain: socket.socket) -> ssl.SSLSocket:
    """The router's certificate is its own; templates ask with `--insecure`."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
    return context.wrap_socket(plain)


def hears_nothing(host: Host, *servers: str, source: str = "") -> None:
    """No answer at any of the ports, whatever is asked."""
    word = "DomU_Request: send_my_password"

    def put(where: tuple[str, int]) -> Answer:
        server, port = where
        target, tls = "/latest/meta-data/", port == TLS
        return asks(host, server, target, port=port, headers=[word], source=source, tls=tls, timeout_s=REFUSED_S)

    wheres = list(itertools.product(servers, PORTS))
    with ThreadPoolExecutor(len(wheres)) as at_once:  # each waits in vain
        heard = dict(zip(wheres, at_once.map(put, wheres), strict=True))
    assert set(heard.values()) == {NOTHING}, f"{host.name} ({source}) heard what it should not: {heard}"


def told(host: Host, server: str, word: str = "send_my_password", *, source: str = "") -> str:
    """What the password server says to a word."""
    answer = asks(host, server, "/", port=8080, headers=[f"DomU_Request: {word}"], source=source)
    assert answer.status == 200, answer
    return answer.body.decode().strip()


def listed(host: Host, server: str) -> list[str]:
    """The names of a guest's metadata; none if there is no metadata."""
    answer = asks(host, server, "/latest/meta-data/")
    assert answer.status in (200, 404), answer
    return answer.body.decode().splitlines() if answer.status == 200 else []


def read(host: Host, server: str) -> dict[str, str]:
    """All metadata of a guest, each name that is listed."""
    found = {}
    for name in listed(host, server):
        answer = asks(host, server, f"/latest/meta-data/{name}")
        assert answer.status == 200, (name, answer)
        found[name] = answer.body.decode()
    return found


def metadata(address: str, values: Mapping[str, str | None], userdata: bytes | None = None) -> Message:
    """All that is known of one VM; an empty file is null."""
    content = base64.b64encode(userdata).decode() if userdata else None
    entries: list[list[str | None]] = [["metadata", name, value] for name, value in values.items()]
    if userdata is not None:
        entries.insert(0, ["userdata", "user-data", content])
    return {"vm_ip_address": address, "vm_metadata": entries, "type": "vmdata"}


def password(address: str, text: str) -> Message:
    """A VM's password."""
    return {"ip_address": address, "password": text, "type": "vmpassword"}


def bundle(messages: Iterable[tuple[str, Message]]) -> bytes:
    """Messages by name of file, as one `VR-<uuid>.cfg`."""
    lines = ["#Apache CloudStack Virtual Router Config File", "<version>", "1.0", "</version>"]
    for number, (name, message) in enumerate(messages):
        file = f"{name}.json.{number:08x}-31ab-4c00-9d00-000000000031"
        text = json.dumps(message | {"delete_from_processed_cache": False})
        lines += ["<file>", f"/var/cache/cloud/{file}", text, "</file>"]
        lines += ["<script>", f"/opt/cloud/bin/update_config.py {file}", "</script>"]
    return ("\n".join(lines) + "\n").encode()
