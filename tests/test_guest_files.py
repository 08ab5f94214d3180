"""The disc that guests are served: what of it they see, in pieces, and nothing beside it."""

import http.client
import os
import shutil
import socket
import tempfile
import time
from collections.abc import Iterator
from html.parser import HTMLParser
from pathlib import Path
from urllib.parse import urljoin

import pytest
from hypothesis import given
from hypothesis import strategies as st

from holdfast.guest import files
from holdfast.guest.index import Place, Span, listing, place, span
from test_guest_service import GUEST, ROUTER, WEB1, House

SHM = Path("/dev/shm")  # noqa: S108 a file system of its own, as a disc is
LARGE = 24 << 20
STRANGER = "127.0.0.12"


@pytest.mark.parametrize(
    ("path", "found"),
    [
        (b"/cks-iso", Place((), slash=False)),
        (b"/cks-iso/", Place((), slash=True)),
        (b"/cks-iso//./k8s%20x/a%2Fb/", Place((b"k8s x", b"a", b"b"), slash=True)),
        (b"/cks-iso/a/.", Place((b"a",), slash=True)),
        (b"/cks-isolated", None),
        (b"/latest/cks-iso/", None),
        (b"/cks-iso/../etc/passwd", None),
        (b"/cks-iso/%2e%2E/etc/passwd", None),
        (b"/cks-iso/a%2f..%2f..%2fetc", None),
        (b"/cks-iso/a%00", None),
    ],
)
def test_a_path_is_a_place_on_the_disc_or_none(path: bytes, found: Place | None) -> None:
    assert place(path) == found


@pytest.mark.parametrize(
    ("value", "found"),
    [
        (b"bytes=0-0", Span(0, 1)),
        (b"bytes=5-", Span(5, 5)),
        (b"bytes=-3", Span(7, 3)),
        (b"bytes=-30", Span(0, 10)),
        (b"bytes=8-99", Span(8, 2)),
        (b"bytes=10-", None),
        (b"bytes=-0", None),
        (b"bytes=5-4", Span(0, 10)),
        (b"bytes=-", Span(0, 10)),
        (b"bytes=0-1,3-4", Span(0, 10)),
        (b"lines=1-2", Span(0, 10)),
    ],
)
def test_a_range_is_within_the_file(value: bytes, found: Span | None) -> None:
    assert span([(b"Range", value)], 10) == found
    assert span([(b"Range", value), (b"If-Range", b'"x"')], 10) == Span(0, 10)


class Links(HTMLParser):
    """What a program that follows links sees."""

    def __init__(self, page: bytes) -> None:
        super().__init__()
        self.links: list[str] = []
        self.tags: set[str] = set()
        self.feed(page.decode())

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.add(tag)
        self.links += [value for name, value in attrs if name == "href" and value]


@given(st.lists(st.tuples(st.binary(min_size=1).filter(lambda n: not {0, 47} & {*n}), st.booleans()), max_size=4))
def test_every_name_is_one_link_that_leads_there(entries: list[tuple[bytes, bool]]) -> None:
    here = Place((b"k8s", b"<b>"), slash=True)
    shown = Links(listing(here, entries))

    assert shown.tags <= {"title", "h1", "pre", "a"}
    found = [place(urljoin(here.url, link).encode()) for link in shown.links]
    dots = (b".", b"..")  # which no directory gives
    assert [each for each, (name, _) in zip(found, sorted(entries), strict=True) if name not in dots] == [
        Place((b"k8s", b"<b>", name), slash=directory) for name, directory in sorted(entries) if name not in dots
    ]


@pytest.fixture
def disc() -> Iterator[Path]:
    path = Path(tempfile.mkdtemp(dir=SHM, prefix="holdfast-disc-"))
    (path / "k8s").mkdir()
    (path / "k8s/kubeadm").write_bytes(b"0123456789")
    (path / "k8s/empty").touch()
    (path / "large").write_bytes(os.urandom(LARGE))
    (path / "inside").symlink_to("k8s/kubeadm")
    (path / "outside").symlink_to("/etc/passwd")
    (path / "up").symlink_to("../../../etc")
    (path / "other").symlink_to("/proc/self/status")
    os.mkfifo(path / "pipe")
    yield path
    shutil.rmtree(path)


def test_guests_read_files_and_directories_and_nothing_beside(disc: Path, tmp_path: Path) -> None:
    home, top = House(tmp_path), f"/cks-iso/{disc.name}"
    home.show(a127_0_0_11=WEB1)
    with home.serving(disc=str(SHM)) as service:

        def asked(
            target: str, method: str = "GET", source: str = GUEST, **more: str
        ) -> tuple[int, bytes, dict[str, str]]:
            client = http.client.HTTPConnection(ROUTER, service.ports["http"], timeout=5, source_address=(source, 0))
            client.request(method, target, headers=more)
            answer = client.getresponse()
            return answer.status, answer.read(), dict(answer.headers)

        assert asked(f"{top}/k8s/kubeadm")[:2] == (200, b"0123456789")
        assert asked(f"{top}/k8s/empty")[:2] == (200, b"")
        assert asked(f"{top}/inside")[:2] == (200, b"0123456789")
        assert asked(f"{top}/large")[1] == (disc / "large").read_bytes()
        status, body, headers = asked(f"{top}/large", "HEAD")
        assert (status, body, headers["Content-Length"]) == (200, b"", str(LARGE))
        status, body, headers = asked(f"{top}/k8s/kubeadm", Range="bytes=7-")
        assert (status, body, headers["Content-Range"]) == (206, b"789", "bytes 7-9/10")
        assert asked(f"{top}/k8s/kubeadm", Range="bytes=10-")[0] == 416
        status, _, headers = asked(f"{top}/k8s")
        assert (status, headers["Location"]) == (301, f"{top}/k8s/")
        status, body, _ = asked(f"{top}/")
        assert (status, Links(body).links[:2]) == (200, ["./inside", "./k8s/"])
        for hidden in ("outside", "up/passwd", "up/", "other", "pipe", "none", "large/", "../..", "%2e%2e/x"):
            assert asked(f"{top}/{hidden}")[0] == 404, hidden
        assert asked(f"{top}/large", "POST")[0] == 405
        assert asked(f"{top}/large", source=STRANGER)[0] == 404
        assert asked("/latest/instance-id")[1] == b"i-1"
    with home.serving(disc=str(disc)) as service:  # a directory on which nothing is mounted
        assert service.fetch("/cks-iso/")[0].status == 404
        assert service.fetch("/cks-iso/large")[0].status == 404
    with home.serving(disc="/nowhere") as service:
        assert service.fetch("/cks-iso/large")[0].status == 404
    assert "Traceback" not in service.log


def test_a_guest_that_reads_slowly_holds_neither_the_service_nor_much_of_it(disc: Path, tmp_path: Path) -> None:
    home = House(tmp_path)
    home.show(a127_0_0_11=WEB1, a127_0_0_13=WEB1, a127_0_0_14=WEB1)
    with home.serving(disc=str(SHM)) as service:
        status = Path(f"/proc/{service.process.pid}/status")
        before = resident(status)
        ask = f"GET /cks-iso/{disc.name}/large HTTP/1.0\r\n\r\n".encode()
        slow: list[socket.socket] = []
        for source in ("127.0.0.13", "127.0.0.14"):
            for _ in range(8):
                slow.append(service.connect("http", source))
                slow[-1].sendall(ask)
        for each in slow:
            assert each.recv(1000).startswith(b"HTTP/1.1 200 ")
        began = time.monotonic()
        for _ in range(20):
            assert service.fetch("/latest/instance-id")[1] == b"i-1"
        took = time.monotonic() - began
        assert service.raw("http", ask).endswith((disc / "large").read_bytes()[-1000:])
        print(f"{took / 20 * 1000:.1f} ms an answer, {resident(status) - before} KiB more")  # noqa: T201 measured
        assert resident(status) - before < len(slow) * 4 * files.PIECE / 1024 + 8192
        for each in slow:
            each.close()


def resident(status: Path) -> int:
    """KiB."""
    return next(int(line.split()[1]) for line in status.read_text().splitlines() if line.startswith("VmRSS:"))
