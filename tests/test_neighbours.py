"""Gateways' MACs: what becomes of them in the text for keepalived's hook, and when it is left."""

import socket
from collections.abc import Iterator
from pathlib import Path

import pytest

from holdfast import neighbours
from holdfast.ears.neighbours import LOOK_S, Neighbours
from holdfast.peer import Hello, Pair, Peer, Sent

OUTER = (("eth1", "203.0.113.1"), ("eth4", "10.9.0.1"))
PAIR = Pair(key="", gateways=OUTER)
MAC, OTHER = "02:00:cb:00:71:01", "02:00:0a:09:00:01"
LINE = f"neighbor replace 203.0.113.1 lladdr {MAC} dev eth1 nud probe\n"
SECOND = f"neighbor replace 10.9.0.1 lladdr {OTHER} dev eth4 nud probe\n"


def test_each_gateway_whose_mac_is_known() -> None:
    assert neighbours.batch(OUTER, {"203.0.113.1": MAC, "10.9.0.1": OTHER, "192.0.2.9": OTHER}) == LINE + SECOND
    assert neighbours.batch(OUTER, {}) == ""


def test_an_address_behind_two_devices_is_left_to_arp() -> None:
    twice = (*OUTER, ("eth5", "10.9.0.1"), OUTER[0])
    assert neighbours.batch(twice, {"203.0.113.1": MAC, "10.9.0.1": OTHER}) == LINE


@pytest.mark.parametrize("mac", ["01:00:5e:00:00:01", "ff:ff:ff:ff:ff:ff", "00:00:00:00:00:00"])
def test_what_is_no_one_machines_mac_is_not_set(mac: str) -> None:
    assert neighbours.batch(OUTER, {"203.0.113.1": mac}) == ""


class Ear:
    """The ear, with a kernel that knows what it is told to know."""

    def __init__(self, root: Path, asked: socket.socket, monkeypatch: pytest.MonkeyPatch) -> None:
        self.kernel: dict[str, str] = {}
        monkeypatch.setattr(Neighbours, "_mac", lambda _, __, gateway: self.kernel.get(gateway, ""))
        self.path = root / neighbours.PATH.lstrip("/")
        self.ear = Neighbours(root, asked)
        self.now = 0.0

    def serves(self) -> str:
        return self.looks(None, serving=True)

    def hears(self, told: dict[str, str] | None) -> str:
        return self.looks(Peer(Hello(neighbours=told), self.now, Sent(self.now, "", 0)), serving=False)

    def looks(self, heard: Peer | None, *, serving: bool, pair: Pair = PAIR) -> str:
        self.now += LOOK_S
        self.ear.keep(pair, heard, self.now, serving=serving)
        return self.path.read_text() if self.path.exists() else ""


@pytest.fixture
def ear(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Ear]:
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as asked:
        yield Ear(tmp_path, asked, monkeypatch)


def test_who_serves_tells_what_its_kernel_knows_and_leaves_it_for_itself(ear: Ear) -> None:
    assert ear.serves() == ""
    ear.kernel = {"203.0.113.1": MAC, "192.0.2.9": OTHER}
    assert ear.serves() == LINE
    assert ear.ear.found == {"203.0.113.1": MAC}, "what is no gateway is nobody's business"


def test_who_stands_by_leaves_what_it_hears(ear: Ear) -> None:
    assert ear.hears({"203.0.113.1": MAC, "192.0.2.9": OTHER}) == LINE
    assert ear.ear.found == {}, "its own links are down: it knows nothing by itself"
    assert ear.hears({"10.9.0.1": OTHER}) == LINE + SECOND, "a gateway that fell silent may still be there"
    assert ear.hears({}) == ear.hears(None) == LINE + SECOND, "so after a change of roles"
    assert ear.hears({"203.0.113.1": OTHER}) == LINE.replace(MAC, OTHER) + SECOND


def test_what_it_was_told_once_gives_way_to_what_it_finds(ear: Ear) -> None:
    ear.hears({"203.0.113.1": MAC})
    ear.kernel = {"203.0.113.1": OTHER}
    assert ear.serves() == LINE.replace(MAC, OTHER)


def test_a_gateway_that_is_none_any_more_is_forgotten(ear: Ear) -> None:
    ear.hears({"203.0.113.1": MAC, "10.9.0.1": OTHER})
    one = Pair(key="", gateways=OUTER[:1])
    assert ear.looks(None, serving=False, pair=one) == LINE
    assert ear.hears(None) == LINE
    ear.ear.over()
    assert not ear.path.exists()


def test_the_kernel_is_asked_once_a_second(ear: Ear) -> None:
    ear.serves()
    ear.kernel = {"203.0.113.1": MAC}
    ear.now -= LOOK_S / 2
    assert ear.serves() == "", "half a second later"
    ear.now -= LOOK_S / 2
    assert ear.serves() == LINE


def test_what_cannot_be_written_is_tried_again(ear: Ear) -> None:
    ear.path.parent.parent.mkdir()
    ear.path.parent.write_text("in the way")
    ear.hears({"203.0.113.1": MAC})
    ear.path.parent.unlink()
    assert ear.hears(None) == LINE
