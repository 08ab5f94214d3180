"""What conntrack(8) is asked when a network goes, and what is noted.  The samples are what conntrack 1.4.7 printed."""

from collections.abc import Sequence
from pathlib import Path

import pytest

from holdfast.drivers.flows import Connections
from holdfast.marks import Marks
from holdfast.run import CommandFailed
from holdfast.state import Change, Flows

WEB, DATA = Flows("10.44.1.0/24"), Flows("10.44.2.0/24")
NONE = "conntrack v1.4.7 (conntrack-tools): 0 flow entries have been deleted."
TRANSLATED = """\
tcp      6 431999 ESTABLISHED src=192.0.2.9 dst=203.0.113.60 sport=40000 dport=80 src=10.44.1.21 dst=192.0.2.9 \
sport=80 dport=40000 [ASSURED] mark=1986 use=1
tcp      6 431999 ESTABLISHED src=192.0.2.9 dst=203.0.113.60 sport=40001 dport=80 src=10.44.1.21 dst=192.0.2.9 \
sport=80 dport=40001 [ASSURED] mark=1986 use=1
udp      17 29 src=192.0.2.9 dst=203.0.113.51 sport=53 dport=53 src=10.44.2.21 dst=192.0.2.9 sport=53 dport=53 use=1
udp      17 29 src=192.0.2.9 dst=203.0.113.51 sport=54 dport=53 [UNREPLIED] src=10.44.11.21 dst=192.0.2.9 sport=53 \
dport=54 use=1
"""


class Conntrack:
    """Notes every call.  `says` is the error of each deletion, `listed` the answer to a listing."""

    def __init__(self, *, says: str = "", listed: str = TRANSLATED) -> None:
        self.says = says
        self.listed = listed
        self.deleted: list[str] = []

    def __call__(self, argv: Sequence[str], stdin: str = "", *, timeout_s: float = 60) -> str:
        del stdin, timeout_s
        assert argv[0] == "conntrack"
        if argv[1] == "-L":
            return self.listed
        self.deleted.append(" ".join(argv[2:]))
        if self.says:
            raise CommandFailed(f"conntrack -D: {self.says}")
        return ""


def connections(base: Path, conntrack: Conntrack) -> Connections:
    return Connections(Marks(base), conntrack)


def test_a_network_that_comes_is_noted_and_nothing_is_asked(tmp_path: Path) -> None:
    conntrack = Conntrack()
    driver = connections(tmp_path, conntrack)

    assert list(driver.check([Change(None, WEB)])) == []
    assert list(driver.apply([Change(None, WEB), Change(None, DATA)])) == []
    assert list(driver.observe({})) == [WEB, DATA]
    assert list(connections(tmp_path, conntrack).observe({})) == [WEB, DATA]  # another process reads the same note
    assert conntrack.deleted == []


def test_a_network_that_goes_takes_its_connections_along_whichever_end_it_was(tmp_path: Path) -> None:
    """VMs that asked, VMs that were asked, and VMs behind a public address: each once, and nobody else's."""
    conntrack = Conntrack()
    driver = connections(tmp_path, conntrack)
    list(driver.apply([Change(None, WEB), Change(None, DATA)]))

    assert list(driver.apply([Change(WEB, None)])) == []
    assert conntrack.deleted == ["--orig-src 10.44.1.0/24", "--orig-dst 10.44.1.0/24", "--reply-src 10.44.1.21"]
    assert list(driver.observe({})) == [DATA]


def test_that_there_were_none_is_no_failure(tmp_path: Path) -> None:
    conntrack = Conntrack(says=NONE, listed="")
    driver = connections(tmp_path, conntrack)
    list(driver.apply([Change(None, WEB)]))

    assert list(driver.apply([Change(WEB, None)])) == []
    assert list(driver.observe({})) == []


@pytest.mark.parametrize("says", ["Operation failed: Operation not permitted", "Unknown option"])
def test_what_could_not_be_deleted_stays_noted_and_is_tried_again(tmp_path: Path, says: str) -> None:
    conntrack = Conntrack(says=says)
    driver = connections(tmp_path, conntrack)
    list(driver.apply([Change(None, WEB), Change(None, DATA)]))

    failures = list(driver.apply([Change(WEB, None)]))

    assert [(failure.key, says in failure.reason) for failure in failures] == [(WEB.key, True)]
    assert list(driver.observe({})) == [WEB, DATA]

    conntrack.says = ""
    assert list(driver.apply([Change(WEB, None)])) == []
    assert list(driver.observe({})) == [DATA]


def test_one_that_cannot_go_does_not_hold_up_the_next(tmp_path: Path) -> None:
    class Picky(Conntrack):
        def __call__(self, argv: Sequence[str], stdin: str = "", *, timeout_s: float = 60) -> str:
            if WEB.network in argv:
                raise CommandFailed("conntrack: busy")
            return super().__call__(argv, stdin, timeout_s=timeout_s)

    driver = connections(tmp_path, Picky(listed=""))
    list(driver.apply([Change(None, WEB), Change(None, DATA)]))

    failures = list(driver.apply([Change(WEB, None), Change(DATA, None)]))

    assert [failure.key for failure in failures] == [WEB.key]
    assert list(driver.observe({})) == [WEB]


@pytest.mark.parametrize("note", [b"", b"not json", b'{"a": 1}', b"[1]"])
def test_a_note_that_is_absent_or_broken_is_an_empty_one(tmp_path: Path, note: bytes) -> None:
    Marks(tmp_path).write("flows", note)
    driver = connections(tmp_path, Conntrack())

    assert list(driver.observe({})) == []
    assert list(driver.apply([Change(None, WEB)])) == []
    assert list(driver.observe({})) == [WEB]
