"""What the checks of tunnels print, read as management servers read it; and charon's interface, byte by byte."""

import socket
import struct
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from holdfast.answers.checks2svpn import Found, Tunnel, found, item, reason, tunnels
from holdfast.scripts.checks2svpn import checkbatchs2svpn, checks2svpn
from holdfast.vici import Refused, Vici, decode, encode

NAME, PEER = "vpn-203_0_113_7-198_51_100_9", "198.51.100.9"
UP = Tunnel(NAME, ("ESTABLISHED",), 2, 2)


def batch(answer: str) -> dict[str, tuple[bool, str]]:
    """As the management server does: at `&`, then at `:`; the first item of another form ends it."""
    read = {}
    for part in answer.split("&"):
        fields = part.split(":")
        if len(fields) != 3:
            break
        read[fields[0]] = (fields[1] == "0", fields[2])
    return read


def test_up_and_not_up_and_unknown() -> None:
    known = [UP, Tunnel("vpn-203_0_113_7-198_51_100_10", ("CONNECTING",), 0, 1)]
    peers = (PEER, "198.51.100.10", "198.51.100.11")
    answer = "".join(item(peer, found(peer, known)) for peer in peers)

    assert batch(answer) == {
        PEER: (True, "IPsec SA found;Site-to-site VPN have connected"),
        "198.51.100.10": (False, "IPsec SA not found;Site-to-site VPN have not connected"),
        "198.51.100.11": (False, "IPsec SA not found;there is no VPN to this peer"),
    }
    assert [found(peer, known).code for peer in peers] == [0, 11, 1]


def test_some_networks_are_not_all() -> None:
    assert found(PEER, [UP._replace(joined=1)]) == (11, "IPsec SA found;1 of 2 networks have connected")


def test_of_two_addresses_of_ours_the_worse_counts() -> None:
    assert found(PEER, [UP, UP._replace(name="vpn-203_0_113_8-198_51_100_9", joined=0)]).code == 11


def test_where_charon_does_not_run() -> None:
    assert found(PEER, None) == (11, "IPsec SA not found;no VPN runs on this router")


@given(text=st.text())
def test_no_text_breaks_the_form(text: str) -> None:
    answer = item(PEER, Found(11, text)) + item("192.0.2.1", Found(0, "up"))

    assert [*batch(answer)] == [PEER, "192.0.2.1"]


@pytest.mark.parametrize(
    ("line", "words"),
    [
        ("received AUTHENTICATION_FAILED notify error", "the keys differ"),
        ("tried 1 shared key for '192.0.2.4' - '192.0.2.8', but MAC mismatched", "the keys differ"),
        ("received NO_PROPOSAL_CHOSEN error notify", "no policy is common to both sides"),
        ("received TS_UNACCEPTABLE notify, no CHILD_SA built", "the networks differ on the two sides"),
        ("sending retransmit 1 of request message ID 0, seq 1", "the peer does not answer"),
        ("peer not responding, trying again (2/0)", "the peer does not answer"),
        ("ignore malformed INFORMATIONAL request", "the keys differ"),
        ("initiating IKE_SA", ""),
    ],
)
def test_reasons(line: str, words: str) -> None:
    assert reason(NAME, {NAME: ["scheduling rekeying in 100s", line]}) == words
    assert reason(NAME, {"vpn-other": [line]}) == ""


def test_the_latest_attempt_that_tells_anything_counts() -> None:
    first = ["initiating Main Mode IKE_SA", "received NO_PROPOSAL_CHOSEN error notify"]
    second = ["initiating Main Mode IKE_SA", "message parsing failed", "sending retransmit 1 of request message ID 0"]

    assert reason(NAME, {NAME: [*first, "initiating"]}) == "no policy is common to both sides"
    assert reason(NAME, {NAME: [*first, *second]}) == "the keys differ"
    assert reason(NAME, {NAME: [*second, "initiating", "sending retransmit 1"]}) == "the peer does not answer"


def test_lists_of_charon() -> None:
    connections = [{NAME: {"version": "IKEv2", "children": {NAME: {"mode": "TUNNEL"}, f"{NAME}-2": {}}}}]
    child = {"name": NAME, "state": "INSTALLED"}
    replaced = {NAME: {"state": "ESTABLISHED", "child-sas": {f"{NAME}-1": child | {"state": "REKEYED"}}}}
    current = {NAME: {"state": "ESTABLISHED", "child-sas": {f"{NAME}-2": child, f"{NAME}-3": child}}}

    assert tunnels(connections, []) == [Tunnel(NAME, (), 0, 2)]
    assert tunnels(connections, [replaced, current]) == [Tunnel(NAME, ("ESTABLISHED", "ESTABLISHED"), 1, 2)]


def test_arguments_are_addresses(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    for bad in ([], ["1.2.3"], ["192.0.2.4", "192.0.2.8"], ["$(id)"], ["--help"]):
        assert checks2svpn(bad, tmp_path) == 2
    assert checkbatchs2svpn(["192.0.2.4;reboot"], tmp_path) == 2
    assert capsys.readouterr().out == ""

    assert checkbatchs2svpn([], tmp_path) == 0
    assert capsys.readouterr().out == ""
    # The whole list may come as one word, each address followed by a blank.
    assert checkbatchs2svpn(["198.51.100.9 198.51.100.10 "], tmp_path) == 0
    assert [*batch(capsys.readouterr().out)] == ["198.51.100.9", "198.51.100.10"]
    assert checks2svpn([PEER], tmp_path) == 11
    assert capsys.readouterr().out == "IPsec SA not found;no VPN runs on this router\n"


NAMES = st.text("abc-_1", min_size=1, max_size=9)
MESSAGES = st.recursive(
    st.dictionaries(NAMES, st.text(max_size=40) | st.lists(st.text(max_size=9)), max_size=4),
    lambda inner: st.dictionaries(NAMES, inner, max_size=3),
)


@given(message=MESSAGES)
def test_messages_come_back(message: dict[str, str | list[str]]) -> None:
    assert decode(encode(message)) == message


def test_a_message_byte_by_byte() -> None:
    message = encode({"a": {"b": "c"}, "d": ["e", b"\xff"]})

    assert message == b"\x01\x01a\x03\x01b\x00\x01c\x02\x04\x01d\x05\x00\x01e\x05\x00\x01\xff\x06"


def packet(kind: int, rest: bytes = b"") -> bytes:
    return struct.pack("!IB", len(rest) + 1, kind) + rest


@pytest.fixture
def answers(tmp_path: Path) -> Iterator[list[bytes]]:
    """A socket that gives these answers, one for each request, whatever is asked."""
    (tmp_path / "run").mkdir()
    queue: list[bytes] = []
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as ear:
        ear.bind(str(tmp_path / "run/charon.vici"))
        ear.listen()

        def serve() -> None:
            with ear.accept()[0] as talk:
                while queue and talk.recv(65536):
                    talk.sendall(queue.pop(0))

        thread = threading.Thread(target=serve)
        thread.start()
        yield queue
        thread.join()


def test_a_refusal_is_in_charons_words(answers: list[bytes], tmp_path: Path) -> None:
    answers += [packet(1, encode({"success": "no", "errmsg": "invalid value for: proposals"})), packet(2)]
    with Vici(tmp_path) as vici:
        with pytest.raises(Refused, match="invalid value for: proposals"):
            vici.ask("load-conn")
        with pytest.raises(Refused, match="does not know the request never"):
            vici.ask("never")


def test_a_conversation_that_breaks_off_is_an_error(answers: list[bytes], tmp_path: Path) -> None:
    answers += [b"\x00\x00\x00\x09\x01abc"]
    with Vici(tmp_path) as vici, pytest.raises(OSError, match="hung up"):
        vici.ask("get-conns")


def test_a_gateway_known_by_its_name_costs_no_other_its_answer(
    answers: list[bytes], capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    answers += listing() * 2

    assert checkbatchs2svpn(["vpn.branch.example", PEER], tmp_path) == 0

    found = batch(capsys.readouterr().out)
    assert found["vpn.branch.example"] == (False, "IPsec SA not found;there is no VPN to this peer")
    assert found[PEER][1].startswith("IPsec SA not found;Site-to-site VPN have not connected")


def listing(*joined: str) -> list[bytes]:
    """Charon's answers to who asks for its connections and what is up, of one tunnel with these networks joined."""
    children = {name: {"name": name, "state": "INSTALLED"} for name in joined}
    up = encode({NAME: {"state": "ESTABLISHED", "child-sas": children}})
    conn = encode({NAME: {"children": {NAME: {}}}})
    sas = (
        [packet(5), packet(7, b"\x07list-sa" + up) + packet(1), packet(5)]
        if joined
        else [packet(5), packet(1), packet(5)]
    )
    return [*sas, packet(5), packet(7, b"\x09list-conn" + conn) + packet(1), packet(5)]


def test_a_tunnel_that_is_missing_from_one_listing_is_looked_at_again(
    answers: list[bytes], capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    """While charon replaces an exchange of keys neither the old one's networks nor the new one may be listed."""
    answers += listing() + listing(NAME)

    assert checks2svpn([PEER], tmp_path) == 0
    assert capsys.readouterr().out == "IPsec SA found;Site-to-site VPN have connected\n"
    assert answers == []


def test_a_tunnel_that_is_up_is_looked_at_once(
    answers: list[bytes], capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    answers += [*listing(NAME), *listing()]

    assert checks2svpn([PEER], tmp_path) == 0
    assert capsys.readouterr().out == "IPsec SA found;Site-to-site VPN have connected\n"
    assert answers == listing()


def test_what_is_neither_address_nor_name_is_refused(tmp_path: Path) -> None:
    for bad in ("192.0.2", "192.0.2.256", "a_b.example", "-x.example", "a..b", "x;y"):
        assert checkbatchs2svpn([PEER, bad], tmp_path) == 2, bad


@pytest.mark.parametrize("ike", ["ESTABLISHED", "REKEYING"])
@pytest.mark.parametrize("child", ["INSTALLED", "REKEYING", "UPDATING"])
def test_what_is_being_replaced_still_carries(ike: str, child: str) -> None:
    connections: list[dict[str, dict[str, object]]] = [{NAME: {"children": {NAME: {}}}}]
    up = {NAME: {"state": ike, "child-sas": {f"{NAME}-1": {"name": NAME, "state": child}}}}

    assert found(PEER, tunnels(connections, [up])).code == 0


@pytest.mark.parametrize(("ike", "child"), [("CONNECTING", "INSTALLED"), ("DELETING", "REKEYED")])
def test_what_comes_or_goes_does_not_carry(ike: str, child: str) -> None:
    up = {NAME: {"state": ike, "child-sas": {f"{NAME}-1": {"name": NAME, "state": child}}}}

    assert found(PEER, tunnels([{NAME: {"children": {NAME: {}}}}], [up])).code == 11


def test_a_charon_that_does_not_answer_is_not_one_that_does_not_run(
    capsys: pytest.CaptureFixture[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("holdfast.scripts.checks2svpn._TIMEOUT_S", 0.05)
    (tmp_path / "run").mkdir()
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as ear:
        ear.bind(str(tmp_path / "run/charon.vici"))
        ear.listen()
        assert checkbatchs2svpn([PEER], tmp_path) == 0

    up, text = batch(capsys.readouterr().out)[PEER]
    assert not up
    assert "charon does not answer in time" in text
