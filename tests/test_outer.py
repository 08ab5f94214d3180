"""Outer nics that a router of a pair is to have: absent or down is no better than dark, and no reason to swing."""

import socket
from math import inf
from pathlib import Path
from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from holdfast.ears import outer as outer_ear
from holdfast.ears.decisions import Decisions
from holdfast.ears.outer import Gateways, links
from holdfast.features.pair import FEATURE
from holdfast.interface import Interface, missing
from holdfast.pair_files import Own
from holdfast.peer import Hello, Pair, Peer, Sent
from holdfast.router import Facts, Nic, Role, Router
from holdfast.session import NIC_WAIT_S
from holdfast.state import File
from holdfast.verdict import LATE_S, NEVER_SEEN_S, UNABLE_S, YIELD_S, Links, Outage, Yielding
from test_redundancy import ADDRESS, CONTROL, HERE, ISOLATED, PUBLIC, TIERS, bags, mac

MAC = "1e:00:cb:00:71:48"
WHOLE = Links(1, 0)


def nic(key: str, device: str, *addresses: str, purpose: str = "public") -> Interface:
    return Interface(key, device, purpose, tuple((address, 24) for address in addresses))


@pytest.mark.parametrize(
    ("faces", "absent"),
    [
        pytest.param([nic(MAC, "eth2", "a")], (), id="there"),
        pytest.param([nic(MAC, "", "a")], (MAC,), id="absent"),
        pytest.param([nic("eth2", "", "a")], ("eth2",), id="no MAC is known"),
        pytest.param([nic(MAC, "", "a", purpose="private")], (MAC,), id="a private gateway"),
        pytest.param([nic(MAC, "", "a", purpose="tier"), nic("eth0", "", "b", purpose="guest")], (), id="guests'"),
        pytest.param([nic(MAC, "")], (), id="nothing is to be on it"),
        pytest.param([nic("eth2", "", "a"), nic(MAC, "", "b", "a")], (MAC,), id="by number and by MAC"),
        pytest.param([nic("eth2", "", "a"), nic(MAC, "eth4", "a")], (), id="plugged anew with another number"),
        pytest.param(
            [nic(MAC, "eth2", "a"), nic("06:00:00:00:00:01", "", "b")], ("06:00:00:00:00:01",), id="one of two"
        ),
    ],
)
def test_which_nics_are_missing(faces: list[Interface], absent: tuple[str, ...]) -> None:
    assert missing(faces) == missing(faces[::-1]) == absent


def left(messages: list[dict[str, Any]], there: Facts) -> Pair:
    # The messages came while all nics were there.
    (claim,) = FEATURE.contribute(None, Router(bags(messages, HERE), there))
    assert isinstance(claim.part, File)
    return msgspec.json.decode(claim.part.text, type=Pair)


def test_a_pair_names_the_public_nic_that_was_unplugged() -> None:
    without = Facts((Nic(CONTROL, "eth0"), Nic(mac(1), "eth2")), Role.MASTER)

    assert (left(TIERS, HERE).outer, left(TIERS, HERE).missing) == (("eth1",), ())
    assert (left(TIERS, without).outer, left(TIERS, without).missing) == ((), (PUBLIC,))
    assert left(TIERS[:1], without).missing == (), "nobody has asked for one yet"


def test_an_isolated_networks_boot_line_asks_for_its_public_nic() -> None:
    line = {"type": "cmdline", "cmd_line": ISOLATED}
    nics = (Nic("02:00:47:00:00:0e", "eth0"), Nic("0e:00:a9:47:00:3c", "eth1"), Nic(PUBLIC, "eth2"))

    assert left([line], Facts(nics)).missing == ()
    assert left([line], Facts(nics[:2])).missing == ("eth2",)
    told = ADDRESS["ip_address"][0] | {"public_ip": "198.51.100.71", "gateway": "198.51.100.1", "nic_dev_id": 2}
    both = [line, ADDRESS | {"ip_address": [told]}]
    assert left(both, Facts(nics[:2])).missing == (PUBLIC,), "one nic, whose MAC is known by now"
    assert left(both, Facts((*nics[:2], Nic(PUBLIC, "eth4")))).missing == ()


def test_what_the_kernel_does_not_have_is_missing() -> None:
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as asked:
        assert links(asked, ("lo",)) == Links(1, 0)
        assert links(asked, ("lo", "nix9"), 1) == Links(1, 0, missing=2)
        assert not links(asked, ("lo", "nix9")).sound


@pytest.mark.parametrize("wrong", [Links(0, 1), Links(1, 1), Links(0, 0, down=1), Links(1, 0, missing=1), Links(0, 0)])
def test_what_is_not_sound(wrong: Links) -> None:
    assert not wrong.sound
    assert WHOLE.sound


@pytest.mark.parametrize("wrong", [Links(0, 0, missing=1), Links(0, 0, down=1)])
def test_a_link_that_goes_or_is_taken_down_is_an_outage_after_seconds(wrong: Links) -> None:
    outage = Outage()
    assert not outage.step("MASTER", WHOLE, 0)
    assert not outage.step("MASTER", wrong, 10)
    assert outage.due() == 10 + NEVER_SEEN_S
    assert not outage.step("MASTER", wrong, 9.9 + NEVER_SEEN_S)
    assert outage.step("MASTER", wrong, 10 + NEVER_SEEN_S)
    assert not outage.step("MASTER", WHOLE, 14)
    assert outage.due() == inf


def test_a_backups_links_are_down_on_purpose() -> None:
    outage = Outage()
    for now in range(100):
        assert not outage.step("BACKUP", Links(0, 0, down=1), now)
    assert not outage.step("MASTER", Links(0, 0, down=1), 100), "they come up now"
    assert not outage.step("MASTER", WHOLE, 100 + NEVER_SEEN_S)


def test_a_nic_that_was_not_there_yet_is_waited_for_longer_than_its_command_does() -> None:
    outage = Outage()
    late = Links(1, 0, missing=1)
    assert not outage.step("MASTER", WHOLE, 0)
    assert not outage.step("MASTER", late, 10)
    assert not outage.step("MASTER", late, 9.9 + LATE_S)
    assert outage.step("MASTER", late, 10 + LATE_S)

    outage = Outage()
    assert not outage.step("MASTER", late, 0)
    assert not outage.step("MASTER", Links(2, 0), LATE_S - 1), "it came"
    assert not outage.step("MASTER", Links(0, 0, missing=2), LATE_S)
    assert outage.step("MASTER", Links(0, 0, missing=2), LATE_S + NEVER_SEEN_S), "both went"


def test_a_commands_wait_for_its_nic_is_over_before_the_pair_moves() -> None:
    assert LATE_S > NIC_WAIT_S + NEVER_SEEN_S


@pytest.mark.parametrize("role", ["MASTER", "BACKUP"])
def test_who_lacks_a_nic_could_not_serve(role: str, tmp_path: Path) -> None:
    decided, own = Decisions(tmp_path, 0), Own(role=role)

    decided.write(own, Pair(key=""), None, 1, Links(0, 0, down=1))
    assert decided.able(own, 1), "a backup's are down on purpose"
    decided.write(own, Pair(key=""), None, 2, Links(0, 0, down=1, missing=1))
    assert not decided.able(own, 2)
    decided.write(own, Pair(key=""), None, 3, Links(0, 0, down=2))
    assert decided.able(own, 3), "it is back"


def test_who_lacks_a_nic_yields_to_a_peer_that_does_not(tmp_path: Path) -> None:
    decided, helpful = Decisions(tmp_path, 0), Hello(role="BACKUP", able=True, name="r-2-VM")

    def fault(now: float, links: Links) -> bool:
        heard = Peer(helpful, now, Sent(now, "MASTER", 0))
        return decided.write(Own(role="MASTER"), Pair(key=""), heard, now, links).fault

    assert not fault(1, WHOLE)
    assert not fault(2, Links(0, 0, missing=1))
    assert fault(2 + NEVER_SEEN_S, Links(0, 0, missing=1))
    assert "is missing" in (tmp_path / "var/log/routerServiceMonitor.log").read_text()


def test_a_run_that_moves_keeps_the_fault_that_it_has_set(tmp_path: Path) -> None:
    decided, peer = Decisions(tmp_path, 0), Hello(role="MASTER", able=True, name="r-2-VM", ground="b v2 1")
    moves = Own(role="FAULT", fault=True, moving="b v2 1", leaving_since=1.0)

    def fault(own: Own, now: float) -> bool:
        return decided.write(own, Pair(key="", ground="a v2 1"), Peer(peer, now, Sent(now, "", 0)), now, WHOLE).fault

    assert fault(moves, 2)
    assert fault(moves, 60), "however long the run takes: on the old ground both would serve"
    assert not fault(moves._replace(moving=""), 61)


def test_a_gateway_that_was_not_asked_has_not_kept_silent(monkeypatch: pytest.MonkeyPatch) -> None:
    here, there = socket.socketpair(socket.AF_UNIX, socket.SOCK_DGRAM)
    with here, there:
        here.setblocking(False)  # noqa: FBT003 the library has no other spelling
        monkeypatch.setattr(outer_ear, "_arp", lambda _: here)
        monkeypatch.setattr(Gateways, "_ask", lambda *_: None)
        gateways = Gateways()
        probed = Pair(key="", announce=(("eth2", ("203.0.113.7",)),), probed=(("eth2", "203.0.113.1"),))
        gateways.keep(probed, serving=True)
        there.send(bytes(14) + socket.inet_aton("203.0.113.1") + bytes(10))
        assert gateways.step(1.0) is True
        for tenth in range(11, 30):
            assert gateways.step(tenth / 10) is True
        assert gateways.step(8.0) is True, "the agent stood still meanwhile"
        silent = [tenth for tenth in range(81, 140) if gateways.step(tenth / 10) is False]
        assert silent[0] == 116, "three and a half seconds of questions without an answer"


def test_a_network_that_is_given_up_is_no_link_that_went() -> None:
    outage = Outage()
    outage.step("MASTER", Links(2, 0), 0)
    for now in range(1, 100):
        assert not outage.step("MASTER", WHOLE, now)


class Side:
    """A router of a pair as far as its outer links go; keepalived is as quick as can be."""

    def __init__(self, role: str) -> None:
        self.role, self.outage, self.yielding = role, Outage(), Yielding()
        self.networks, self.nics = {1}, {1}

    @property
    def links(self) -> Links:
        there, absent = len(self.networks & self.nics), len(self.networks - self.nics)
        return Links(there, 0, missing=absent) if self.role == "MASTER" else Links(0, 0, down=there, missing=absent)

    def able(self, now: float) -> bool:
        return not self.links.missing and self.yielding.able(now)

    def yields(self, other: "Side", now: float) -> bool:
        heard = Peer(Hello(role=other.role, able=other.able(now)), now, Sent(now, self.role, 0))
        broken = self.outage.step(self.role, self.links, now)
        return self.yielding.step(self.role, heard, now, broken=broken, sound=self.links.sound)


TOLD, PLUGGED = st.sampled_from([0, 2, 10, 25]), st.sampled_from([0, 1, 5, 12, 30, 100, 10_000])


def turns(events: list[tuple[float, int, str]], until: int) -> tuple[list[float], list[Side]]:
    """When roles changed, where these things happen to two routers: (time, which one, told, plugged or unplugged)."""
    sides, seen = [Side("MASTER"), Side("BACKUP")], []
    for tick in range(4 * until):
        now = tick / 4
        for _, which, what in (event for event in events if now - 0.25 < event[0] <= now):
            side = sides[which]
            if what == "told":
                side.networks.add(2)
            elif what == "plugged":
                side.nics.add(2)
            else:
                side.nics.discard(1)
        one, two = sides
        yielding = [one.yields(two, now), two.yields(one, now)]
        if any(yielding):
            assert not all(yielding)
            one.role, two.role = two.role, one.role
            seen.append(now)
    return seen, sides


@given(TOLD, TOLD, PLUGGED, PLUGGED)
def test_a_nic_that_is_announced_before_it_is_plugged_makes_no_pair_swing(
    told1: float, told2: float, plugged1: float, plugged2: float
) -> None:
    """At most each yields once within its pause, and never while a command could still be waiting for its nic."""
    events = [(told1, 0, "told"), (told2, 1, "told"), (plugged1, 0, "plugged"), (plugged2, 1, "plugged")]
    seen, _ = turns(events, 200)
    assert len([now for now in seen if now < UNABLE_S]) <= 1
    assert len(seen) <= 2
    if max(plugged1 - told1, plugged2 - told2) < LATE_S:
        assert seen == []
    if plugged1 == plugged2 and told1 == told2:
        assert seen == [], "neither is better off"


def test_an_unplugged_nic_moves_the_role_once_and_its_return_does_not_move_it_back() -> None:
    seen, sides = turns([(10, 0, "unplugged")], 3600)
    assert seen == [10 + NEVER_SEEN_S]
    assert [side.role for side in sides] == ["BACKUP", "MASTER"]
    assert not sides[0].able(3600)
    sides[0].nics = {1}
    assert sides[0].able(3600)
    assert not sides[1].yields(sides[0], 3600 + YIELD_S)


def test_where_both_nics_are_gone_nobody_yields() -> None:
    assert turns([(10, 0, "unplugged"), (10, 1, "unplugged")], 600)[0] == []
