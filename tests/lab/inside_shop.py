"""Inside a host of the lab: a shop that gives session ids, a customer, and a crowd of them at a constant rate."""

import argparse
import asyncio
import http.client
import json
import re
import secrets
import ssl
import sys
import time
from collections import Counter
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from threading import Thread
from urllib.parse import urlsplit

_SESSION = re.compile(r"(?:^|[;&?] *)(JSESSIONID|ASPSESSIONID[A-Z]*)=([^;&?]+)")
_CROWD_TIMEOUT_S = 3.0


class Shop(BaseHTTPRequestHandler):
    """Says its name; without a session id in the request it gives one, unless the path begins with /quiet."""

    name = ""
    cookie = "JSESSIONID"

    def do_GET(self) -> None:
        """Answer."""
        known = _SESSION.search(self.headers.get("Cookie", "")) or _SESSION.search(self.path)
        body = self.name.encode()
        self.send_response(200)
        self.send_header("Content-Length", str(len(body)))
        if not known and not self.path.startswith("/quiet"):
            self.send_header("Set-Cookie", "flavour=plain; Path=/")
            self.send_header("Set-Cookie", f"{self.cookie}={secrets.token_hex(8)}; Path=/")
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *_: object) -> None:
        """Nothing."""


class Server(ThreadingHTTPServer):
    """With room for a crowd."""

    request_queue_size = 256
    daemon_threads = True


def shop(stop: Path, name: str, port: int, cookie: str) -> None:
    """Serve until the file `stop` is there."""
    Shop.name, Shop.cookie = name, cookie
    server = Server(("", port), Shop)
    Thread(target=server.serve_forever, daemon=True).start()
    while not stop.exists():
        time.sleep(0.1)
    print("{}")  # noqa: T201 its answer


def get(url: str, source: str, headers: list[str], times: int, timeout_s: float) -> None:
    """Ask several times, each on a new connection; print the answers of the last and who answered each."""
    target, names = urlsplit(url), []
    told: dict[str, object] = {"status": 0}
    for _ in range(times):
        at = (target.hostname or "", target.port)
        origin = (source, 0) if source else None
        context = ssl._create_unverified_context()  # noqa: S323, SLF001 whose certificate it is, is what is asked
        client = (
            http.client.HTTPSConnection(*at, timeout=timeout_s, source_address=origin, context=context)
            if target.scheme == "https"
            else http.client.HTTPConnection(*at, timeout=timeout_s, source_address=origin)
        )
        try:
            page = url.split(target.netloc, 1)[1] or "/"
            client.request("GET", page, headers=dict(header.split(": ", 1) for header in headers))
            peer = client.sock.getpeercert(binary_form=True) if isinstance(client.sock, ssl.SSLSocket) else None
            answer = client.getresponse()
            body = answer.read().decode(errors="replace")
            cookies = answer.headers.get_all("Set-Cookie") or []
            told = {"status": answer.status, "body": body[:200], "cookies": cookies}
            told["certificate"] = ssl.DER_cert_to_PEM_cert(peer) if peer else ""
            names.append(body[:20])
        except (OSError, http.client.HTTPException) as error:
            told = {"status": 0, "error": repr(error)}
            names.append("")
        finally:
            client.close()
    print(json.dumps({**told, "names": names}))  # noqa: T201 its answer


async def _visit(address: str, port: int, seen: Counter[str], errors: list[str], began: float) -> None:
    try:
        async with asyncio.timeout(_CROWD_TIMEOUT_S):
            reader, writer = await asyncio.open_connection(address, port)
            writer.write(b"GET /quiet HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n")
            answer = await reader.read()
            writer.close()
        wrong = "" if answer.startswith((b"HTTP/1.1 200", b"HTTP/1.0 200")) else f"answered {answer[:60]!r}"
    except (OSError, TimeoutError) as error:
        wrong = repr(error)
    seen["bad" if wrong else "good"] += 1
    if wrong:
        errors.append(f"{time.monotonic() - began:.2f} s: {wrong}")


async def _crowd(stop: Path, address: str, port: int, rate_hz: int) -> None:
    seen: Counter[str] = Counter(good=0, bad=0)
    errors: list[str] = []
    visits: set[asyncio.Task[None]] = set()
    began = time.monotonic()
    number = 0
    while number % 20 or not stop.exists():  # noqa: ASYNC240 a look at a local file
        number += 1
        visit = asyncio.create_task(_visit(address, port, seen, errors, began))
        visits.add(visit)
        visit.add_done_callback(visits.discard)
        await asyncio.sleep(max(0.0, began + number / rate_hz - time.monotonic()))
    await asyncio.gather(*visits)
    seconds = time.monotonic() - began
    print(json.dumps({**seen, "sent": number, "errors": errors[:10], "last": errors[-1:], "seconds": seconds}))  # noqa: T201 its answer


def main(argv: list[str]) -> None:
    """`shop STOP NAME PORT COOKIE`, `get URL …`, `crowd STOP ADDRESS PORT RATE`."""
    if argv[0] == "shop":
        shop(Path(argv[1]), argv[2], int(argv[3]), argv[4])
    elif argv[0] == "crowd":
        asyncio.run(_crowd(Path(argv[1]), argv[2], int(argv[3]), int(argv[4])))
    else:
        options = argparse.ArgumentParser()
        options.add_argument("url")
        options.add_argument("--source", default="")
        options.add_argument("--header", action="append", default=[])
        options.add_argument("--times", type=int, default=1)
        options.add_argument("--timeout", type=float, default=3)
        given = options.parse_args(argv[1:])
        get(given.url, given.source, given.header, given.times, given.timeout)


if __name__ == "__main__":
    main(sys.argv[1:])
