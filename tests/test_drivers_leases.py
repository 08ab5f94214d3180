"""Leases of VMs that are gone: released through the server, or out of its file where nobody serves."""

from collections.abc import Sequence
from pathlib import Path

import pytest

from holdfast.drivers.leases import LeaseFiles
from holdfast.state import Change, Leases, State

KNOWN = "0 02:00:00:00:00:01 10.1.1.11 web1 *\n"
STALE = "0 02:00:00:00:00:02 10.1.1.12 old *\n"
FARTHER = "0 02:00:00:00:00:03 10.9.9.13 gone *\n"
WANTED = Leases("/leases", ("02:00:00:00:00:01 10.1.1.11",), (("10.1.1.0/24", "eth0", "10.1.1.1"),))
HEAD = "  sl  local_address rem_address\n"
DNSMASQ = HEAD + "  1: 00000000:0043 00000000:0000\n"


class Server:
    """A root with a lease file, and dnsmasq's answer to a release."""

    def __init__(self, root: Path, *, running: bool = True, deaf: bool = False) -> None:
        self.file = root / "leases"
        self.file.write_text(KNOWN + STALE + FARTHER)
        self.file.chmod(0o640)
        (root / "udp").write_text(DNSMASQ if running else HEAD)
        self.deaf = deaf
        self.asked: list[Sequence[str]] = []
        self.driver = LeaseFiles(root, self.run, root / "udp")

    def run(self, argv: Sequence[str]) -> str:
        self.asked.append(argv)
        if not self.deaf:
            self.file.write_text(self.file.read_text().replace(STALE, ""))
        return ""

    @property
    def state(self) -> State:
        return {WANTED.key: WANTED}

    def settle(self) -> list[str]:
        (seen,) = self.driver.observe(self.state)
        return [failure.reason for failure in self.driver.apply([Change(seen, WANTED)])]


def test_what_is_served_is_released_by_the_server_and_the_rest_taken_out(tmp_path: Path) -> None:
    server = Server(tmp_path)

    assert server.settle() == []
    assert server.asked == [["dhcp_release", "eth0", "10.1.1.12", "02:00:00:00:00:02"]]
    assert server.file.read_text() == KNOWN
    assert server.file.stat().st_mode & 0o777 == 0o640
    assert [*server.driver.observe(server.state)] == [WANTED]


def test_without_a_server_the_file_is_all_there_is(tmp_path: Path) -> None:
    server = Server(tmp_path, running=False)

    assert server.settle() == []
    assert server.asked == []
    assert server.file.read_text() == KNOWN


def test_a_server_that_does_not_hear_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("holdfast.drivers.leases.WRITTEN_S", 0.05)
    server = Server(tmp_path, deaf=True)

    assert server.settle() == ["dnsmasq has not released 10.1.1.12"]
    assert STALE in server.file.read_text()


def test_no_file_is_no_lease(tmp_path: Path) -> None:
    driver = LeaseFiles(tmp_path)
    assert [*driver.observe({WANTED.key: WANTED})] == [WANTED]
