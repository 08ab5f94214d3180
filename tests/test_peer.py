"""What two routers tell each other, and what follows: by example, and over a channel that loses, delays and parts."""

import itertools
import random
from collections.abc import Callable, Iterator
from itertools import pairwise
from math import inf
from typing import Any

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule
from msgspec.structs import replace

from counts import examples
from holdfast import acknowledgements, holding, peer, verdict
from holdfast.acknowledgements import Acknowledgements
from holdfast.answers import peer as answer
from holdfast.holding import Holding
from holdfast.peer import FRESH_S, HIGHEST_TERM, INTERVAL_S, Face, Hello, Here, Kind, Peer, Sent, Talk
from holdfast.verdict import Announcements, Differences, Links, Outage, Presence, Stuck, TwoMasters, Yielding

KEY, OTHER = b"k" * 32, b"o" * 32
FULL = Hello(
    name="r-71-VM", boot="ab12", n=7, echo=(("cd34", 5),), role="MASTER", said="100 7", term=3,
    ground="10.71.1.1/24 v2 1", moving="10.71.2.1/24 v2 1", release=True, hold=True, leaving=True, boost=True,
    able=True, outer=2, digests={"firewallrules": "00c0ffee"},
    nics={"10.71.1.0/24": Here("eth2", "10.71.1.120", "02:00:47:00:00:01")},
    neighbours={"203.0.113.1": "02:00:cb:00:71:01"}, flows=10_000, taken={"10.71.1.7": 4},
)  # fmt: skip


def heard(*, answered: tuple[str, int] = ("", 0), at: float = 0.0, **said: Any) -> Peer:
    return Peer(Hello(name="r-2-VM", boot="b", **said), at, Sent(at, *answered))


# Messages.


def test_what_is_said_is_heard() -> None:
    assert peer.decode(KEY, peer.encode(KEY, FULL)) == FULL
    assert peer.decode(KEY, peer.encode(KEY, Hello())) == Hello()


def signed(text: bytes, key: bytes = KEY) -> bytes:
    import hmac  # noqa: PLC0415 said a second time, as the contract says it and not as the code does

    return hmac.new(key, text, "sha256").digest()[:16] + text


def test_the_form_on_the_wire() -> None:
    data = peer.encode(KEY, FULL)

    assert data == signed(data[16:])
    assert msgspec.json.decode(data[16:])["echo"] == [["cd34", 5]]


@given(st.binary(max_size=400))
def test_what_a_stranger_says_means_nothing(data: bytes) -> None:
    assert peer.decode(KEY, data) is None


@given(st.integers(0, len(peer.encode(KEY, FULL)) - 1), st.integers(1, 255))
def test_one_changed_byte_is_noticed(at: int, change: int) -> None:
    data = bytearray(peer.encode(KEY, FULL))
    data[at] ^= change

    assert peer.decode(KEY, bytes(data)) is None
    assert peer.decode(KEY, bytes(data[:at])) is None


def test_another_pairs_hello_means_nothing() -> None:
    assert peer.decode(OTHER, peer.encode(KEY, FULL)) is None


@pytest.mark.parametrize("length", [peer.LONGEST + 1, 60_000])
def test_what_is_too_long_is_not_even_looked_at(length: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("holdfast.peer.hmac.digest", lambda *_: pytest.fail("its proof was computed"))
    assert peer.decode(KEY, bytes(length)) is None


@given(st.binary(max_size=300) | st.recursive(st.none(), st.lists, max_leaves=9).map(msgspec.json.encode))
def test_whoever_has_the_key_cannot_harm_either(text: bytes) -> None:
    hello = peer.decode(KEY, signed(text))
    assert hello is None or isinstance(hello, Hello)


@pytest.mark.parametrize(
    "text",
    [
        b'{"v":2}', b'{"v":"1"}', b'{"term":15}', b'{"term":-1}', b'{"n":1e400}', b'{"name":"\\ud800"}', b"[]", b"null",
        b'{"boot":"\xff"}', b'{"x":' + b"[" * 4000 + b"]" * 4000 + b"}", b'{"echo":[["a"]]}', b'{"n":-1}',
        *(
            b'{"neighbours":{"192.0.2.1":"02:00:00:00:00:%s"}}' % bad
            for bad in (b"", b"1", b"0A", b"0a:0b", b"0a\\n", b"0a dev eth0")
        ),
    ],
)  # fmt: skip
def test_refused(text: bytes) -> None:
    assert peer.decode(KEY, signed(text)) is None


@pytest.mark.parametrize("bad", ["\x1b[2J", "a\nb", "a\n", "\x00", "\x7f", "\x9b31m", "é", "\u202e", "x" * 256])
@pytest.mark.parametrize(
    "said",
    [
        lambda bad: {"name": bad},
        lambda bad: {"boot": bad},
        lambda bad: {"echo": [[bad, 1]]},
        lambda bad: {"role": bad},
        lambda bad: {"said": bad},
        lambda bad: {"ground": bad},
        lambda bad: {"moving": bad},
        lambda bad: {"digests": {bad: "0"}},
        lambda bad: {"digests": {"settings": bad}},
        lambda bad: {"nics": {bad: ["eth0", "10.1.0.1", "02:00:00:00:00:01"]}},
        lambda bad: {"nics": {"10.1.0.0/24": [bad, "10.1.0.1", "02:00:00:00:00:01"]}},
        lambda bad: {"nics": {"10.1.0.0/24": ["eth0", bad, "02:00:00:00:00:01"]}},
        lambda bad: {"nics": {"10.1.0.0/24": ["eth0", "10.1.0.1", bad]}},
        lambda bad: {"neighbours": {bad: "02:00:00:00:00:01"}},
        lambda bad: {"taken": {bad: 1}},
    ],
)
def test_no_word_of_whoever_has_the_key_commands_a_terminal(said: Callable[[str], Any], bad: str) -> None:
    assert peer.decode(KEY, signed(msgspec.json.encode(said("")))) is not None, "it is the word that is refused"
    assert peer.decode(KEY, signed(msgspec.json.encode(said(bad)))) is None


@pytest.mark.parametrize("word", ["master", "MASTERS", "MASTER "])
def test_a_role_is_one_that_keepalived_says(word: str) -> None:
    assert peer.decode(KEY, signed(msgspec.json.encode({"role": word}))) is None


def test_unknown_fields_are_ignored_and_missing_ones_have_their_defaults() -> None:
    assert peer.decode(KEY, signed(b'{"v":1,"name":"r-9-VM","colour":{"a":[1]}}')) == Hello(name="r-9-VM")


def test_so_many_networks_that_no_datagram_holds_them_are_left_out() -> None:
    digests = {f"tier 10.{n // 250}.{n % 250}.0/24": "00000000" for n in range(1000)}
    data = peer.encode(KEY, replace(FULL, digests=digests))

    assert len(data) <= peer.LONGEST
    assert peer.decode(KEY, data) == replace(FULL, digests=None, nics=None, neighbours=None, taken={})


# Freshness.


def meet(one: Talk, two: Talk, now: float = 0.0) -> None:
    for speaker, listener in ((one, two), (two, one), (one, two)):
        listener.hear(speaker.say(Hello(name=speaker.boot), now), now)


def test_a_hello_is_fresh_once_it_answers() -> None:
    one, two = Talk("one"), Talk("two")

    assert two.hear(one.say(Hello(name="1"), 0), 0) is Kind.GREETING
    assert one.hear(two.say(Hello(name="2"), 0), 0) is Kind.FRESH
    assert two.peer is None
    assert two.hear(one.say(Hello(name="1"), 0), 0) is Kind.FRESH
    assert (one.heard(FRESH_S), one.heard(FRESH_S + 0.01)) == (one.peer, None)


def test_what_was_recorded_is_never_fresh() -> None:
    one, two = Talk("one"), Talk("two")
    meet(one, two)
    recorded = [two.say(Hello(name="two"), n * INTERVAL_S) for n in range(20)]
    for hello in recorded:
        one.say(Hello(name="one"), 0)
        one.hear(hello, 0.1)
    last = one.peer

    assert {one.hear(hello, 0.2) for hello in recorded} == {Kind.STALE}
    again = Talk("one again")
    for n in range(30):
        again.say(Hello(), 10.0 + n * INTERVAL_S)
    assert {again.hear(hello, 20.0) for hello in recorded} == {Kind.GREETING}
    assert again.peer is None
    assert one.peer is last


def test_its_own_words_are_known() -> None:
    one = Talk("one")
    assert one.hear(one.say(Hello(), 0), 0) is Kind.OWN


def test_an_echo_that_is_too_old_answers_nothing() -> None:
    one, two = Talk("one"), Talk("two")
    two.hear(one.say(Hello(), 0), 0)
    assert one.hear(two.say(Hello(), 0), FRESH_S + 0.1) is Kind.GREETING


def test_recordings_of_many_starts_do_not_drown_the_peers_echo() -> None:
    one, two = Talk("one"), Talk("two")
    meet(one, two)
    for number in range(50):
        one.hear(Hello(name="two", boot=f"old {number}", n=9), 0.1)
    assert ("two", two.n) in one.say(Hello(), 0.2).echo


def test_a_third_router_does_not_take_the_peers_place_while_it_is_heard() -> None:
    one, two, three = Talk("one"), Talk("two"), Talk("three")
    meet(one, two)
    one.hear(three.say(Hello(name="three"), 0), 0)
    three.hear(one.say(Hello(name="one"), 0), 0)

    assert one.hear(three.say(Hello(name="three"), 0), 0.1) is Kind.THIRD
    three.hear(one.say(Hello(name="one"), 2), 2)
    assert one.hear(three.say(Hello(name="three"), 2), 2) is Kind.FRESH


def test_what_is_said_now_and_then_is_remembered() -> None:
    one, two = Talk("one"), Talk("two")
    meet(one, two)
    two.hear(one.say(Hello(), 0), 0)
    said = Hello(name="two", digests={"a": "1"}, keys={"a": {"b": "2"}}, nics=FULL.nics, neighbours=FULL.neighbours)
    one.hear(two.say(said, 0), 0)
    one.hear(two.say(Hello(name="two"), 0), 0)

    assert one.peer
    held = one.peer.hello
    assert (held.digests, held.keys, held.nics, held.neighbours) == (
        said.digests,
        said.keys,
        said.nics,
        said.neighbours,
    )
    one.hear(two.say(Hello(name="two", neighbours={}), 0), 0)
    assert one.peer.hello.neighbours == {}, "what is said anew holds"


def test_new_acknowledgements_go_first_four_times_and_the_rest_in_turn() -> None:
    turns = Acknowledgements()
    turns.learn({f"10.1.0.{n}": 1 for n in range(200)})
    seen: dict[str, int] = {}
    for _ in range(5):
        seen |= turns.next(40)
    assert len(seen) == 200
    for _ in range(15):
        turns.next(40)
    turns.learn({f"10.1.0.{n}": 1 for n in range(200)} | {"10.1.0.7": 2})

    assert all("10.1.0.7" in turns.next(40) for _ in range(4))
    rest: dict[str, int] = {}
    for _ in range(6):
        rest |= turns.next(40)
    assert len(rest) == 200
    turns.learn({})
    assert turns.next(40) == {}


def test_only_guests_of_these_networks_acknowledge_anything() -> None:
    faces = [Face(f"10.71.{n}.0/24", f"eth{n}", f"10.71.{n}.1", 24) for n in (1, 2)]
    told = {"10.71.1.7": 1, "10.71.2.254": 2, "10.71.3.7": 3, "8.8.8.8": 4, "none": 5}

    assert acknowledgements.in_networks(told, faces) == {"10.71.1.7": 1, "10.71.2.254": 2}
    assert acknowledgements.in_networks(told, ()) == {}
    assert acknowledgements.merged({"10.71.1.7": 1}, {"10.71.1.7": peer.HIGHEST_TAKEN + 1}) == {"10.71.1.7": 1}
    assert peer.decode(KEY, peer.encode(KEY, Hello(taken={"10.71.1.7": peer.HIGHEST_TAKEN + 1}))) is None


@given(st.dictionaries(st.sampled_from(["10.1.0.1", "10.1.0.2", "::1", "x"]), st.integers(0, 9)), st.integers(0, 9))
def test_what_was_acknowledged_only_grows(told: dict[str, int], known: int) -> None:
    merged = acknowledgements.merged({"10.1.0.1": known}, told)

    assert merged["10.1.0.1"] == max(known, told.get("10.1.0.1", 0))
    assert merged.keys() <= {"10.1.0.1", "10.1.0.2"}


# Terms.


@pytest.mark.parametrize(
    ("role", "term", "peer_term", "other", "expected"),
    [
        pytest.param("BACKUP", 6, 3, heard(role="MASTER", term=3, answered=("BACKUP", 6)), 0, id="backup agrees"),
        pytest.param("BACKUP", 6, 3, heard(role="MASTER", term=3, answered=("MASTER", 6)), 6, id="not known yet"),
        pytest.param("BACKUP", 6, 3, None, 6, id="nothing heard"),
        pytest.param("MASTER", 6, 0, heard(role="BACKUP", answered=("MASTER", 6)), 1, id="master agrees"),
        pytest.param("MASTER", 6, 0, heard(role="BACKUP", answered=("BACKUP", 6)), 6, id="said before the promotion"),
        pytest.param("MASTER", 6, 2, heard(role="BACKUP", term=2, answered=("MASTER", 6)), 6, id="backup first"),
        pytest.param("MASTER", 6, 7, heard(role="MASTER", term=7, answered=("MASTER", 6)), 6, id="two masters"),
        pytest.param("MASTER", 0, 5, None, 6, id="not counted"),
        pytest.param("MASTER", 0, 5, heard(role="MASTER", term=5, answered=("MASTER", 0)), 0, id="not over a master"),
        pytest.param("MASTER", 0, 14, None, 14, id="no further"),
        pytest.param("FAULT", 6, 3, heard(role="MASTER", term=3, answered=("FAULT", 6)), 6, id="fault"),
    ],
)
def test_terms(role: str, term: int, peer_term: int, other: Peer | None, expected: int) -> None:
    assert verdict.normal_term(role, term, peer_term, other) == expected


@pytest.mark.parametrize(
    ("moving", "held_s", "silent_s", "other", "expected"),
    [
        pytest.param("", 1, 0, heard(ground="a"), False, id="it is not there yet"),
        pytest.param("", 1, 0, heard(ground="b"), True, id="it is there, or never left"),
        pytest.param("", 1, 0, heard(ground="a", release=True), True, id="it says so"),
        pytest.param("", 1, 0, heard(ground=""), True, id="it elects nowhere"),
        pytest.param("", 1, 0, heard(ground="", role="MASTER"), False, id="it serves, and has not said where"),
        pytest.param("", 9, 4.9, None, False, id="its agent is started anew"),
        pytest.param("", 9, 5.0, None, True, id="alone"),
        pytest.param("c", 1, 0, heard(ground="b"), False, id="still moving"),
        pytest.param("c", 120, 0, heard(ground="b"), True, id="for too long"),
        pytest.param("", 999, 0, heard(ground="a", role="MASTER"), False, id="never while it serves elsewhere"),
        pytest.param("c", 9, 9, None, False, id="still moving, alone"),
    ],
)
def test_holding_back(*, moving: str, held_s: float, silent_s: float, other: Peer | None, expected: bool) -> None:
    own = Hello(name="r-1-VM", ground="b", moving=moving, hold=True)
    assert holding.released(own, held_s, silent_s, other) is expected


def sides(*names: str) -> Iterator[list[Hello]]:
    """Every two routers, as far as it matters for holding back."""
    said = [
        [
            Hello(name=name, role=role, ground=ground, moving=moving, term=term, hold=hold)
            for role in ("", "MASTER", "BACKUP", "FAULT")
            for ground in ("", "a", "b")
            for moving in ("", "a", "c")
            for term in (0, 1, 2)
            for hold in (False, True)
        ]
        for name in names
    ]
    return map(list, itertools.product(*said))


def holds(own: Hello, other: Hello, after_s: float = 0.0) -> bool:
    """What one makes of the other after they have been like this for a while."""
    holding = Holding(0.0)
    first = holding.step(own, Peer(other, 0.0, Sent(0.0, "", 0)), 10.0)
    return holding.step(own, Peer(other, after_s, Sent(0.0, "", 0)), 10.0 + after_s) if after_s else first


@pytest.mark.parametrize("after_s", [0.0, 0.5, 60.0])
def test_of_two_that_know_each_other_never_both_hold_back(after_s: float) -> None:
    """Whatever they are: but for a run that moves, which has said why, and ends."""
    for one, two in sides("r-1-VM", "r-2-VM"):
        after = [holds(one, two, after_s), holds(two, one, after_s)]
        if not (one.hold and two.hold) or (not one.moving and not two.moving):
            assert after != [True, True], (one, two)
        if one.hold and two.hold and holding.apart(one, two):
            assert after == [one.term <= two.term, two.term < one.term], (one, two)
        for own, other, held in ((one, two, after[0]), (two, one, after[1])):
            if own.ground == other.ground and not own.moving:
                assert not held, (own, other)
            if own.role == "MASTER" != other.role and not own.hold:
                assert not held, (own, other)


def test_who_serves_on_other_ground_serves_alone() -> None:
    """Of two masters one stays, after half a second; beside one master nobody else stands for election."""
    still = [(one, two) for one, two in sides("r-1-VM", "r-2-VM") if not (one.hold or two.hold)]
    seen = 0
    for one, two in still:
        if not one.ground or not two.ground or one.ground == two.ground or one.moving or two.moving:
            assert not holds(one, two, 60.0), (one, two)
        elif one.role == "MASTER" == two.role:
            assert not holds(one, two)
            assert not holds(one, two, 0.4)
            assert [holds(one, two, 0.5), holds(two, one, 0.5)] == [one.term <= two.term, two.term < one.term]
            seen += 1
        else:
            assert holds(one, two) is (two.role == "MASTER")
            seen += 1
    assert seen == 3 * 3 * 16 * 2


def test_a_promotion_that_passes_by_holds_nobody_back() -> None:
    holding = Holding(0.0)
    own, other = Hello(name="1", role="MASTER", ground="a"), Hello(name="2", role="MASTER", ground="b", term=5)
    assert not holding.step(own, Peer(other, 0, Sent(0, "", 0)), 1.0)
    assert not holding.step(own, Peer(replace(other, role="BACKUP"), 0, Sent(0, "", 0)), 1.4)
    assert not holding.step(own, Peer(other, 0, Sent(0, "", 0)), 1.6)
    assert not holding.step(own, Peer(other, 0, Sent(0, "", 0)), 2.0)
    assert holding.step(own, Peer(other, 0, Sent(0, "", 0)), 2.1)


def test_who_is_asked_to_take_over_gets_ready() -> None:
    asked = heard(role="MASTER", leaving=True)

    assert verdict.boosted("BACKUP", asked, able=True, hold=False)
    assert not verdict.boosted("BACKUP", asked, able=False, hold=False)
    assert not verdict.boosted("BACKUP", asked, able=True, hold=True)
    assert not verdict.boosted("FAULT", asked, able=True, hold=False)
    assert not verdict.boosted("BACKUP", heard(role="MASTER"), able=True, hold=False)
    assert not verdict.boosted("BACKUP", None, able=True, hold=False)


# Faults.

HELP = heard(role="BACKUP", able=True)


def test_a_link_that_had_a_carrier_may_miss_it_for_50_ms_and_a_new_one_for_seconds() -> None:
    outage = Outage()
    assert not outage.step("MASTER", Links(0, 1), 0)
    assert not outage.step("MASTER", Links(0, 1), 2.9)
    assert outage.due() == 3.0
    assert not outage.step("MASTER", Links(1, 0), 2.95)
    assert not outage.step("MASTER", Links(0, 1), 4)
    assert outage.due() == 4.05
    assert outage.step("MASTER", Links(0, 1), 4.05)
    assert outage.due() == inf, "it is one: there is nothing to wait for"
    assert not outage.step("BACKUP", Links(0, 1), 5)


@pytest.mark.parametrize(
    "other",
    [
        None,
        heard(role="BACKUP"),
        heard(role="MASTER", able=True),
        heard(role="FAULT", able=True),
        heard(role="BACKUP", able=True, hold=True),
    ],
)
def test_alone_it_serves_on_as_well_as_it_can(other: Peer | None) -> None:
    yielding = Yielding()
    assert not yielding.step("MASTER", other, 0, broken=True, sound=False)
    assert yielding.able(0)


def test_it_yields_until_the_other_serves_and_is_no_help_for_a_minute() -> None:
    yielding = Yielding()
    assert yielding.step("MASTER", HELP, 10, broken=True, sound=False)
    assert yielding.step("FAULT", HELP, 11, broken=False, sound=False)
    assert not yielding.step("FAULT", heard(role="MASTER"), 11.2, broken=False, sound=False)
    assert (yielding.able(69.9), yielding.able(70)) == (False, True)


def test_a_carrier_that_is_back_makes_it_able_again() -> None:
    yielding = Yielding()
    yielding.step("MASTER", HELP, 10, broken=True, sound=False)
    yielding.step("FAULT", heard(role="MASTER"), 11, broken=False, sound=False)
    yielding.step("BACKUP", heard(role="MASTER"), 12, broken=False, sound=True)
    assert yielding.able(12)


def test_a_peer_that_does_not_take_over_is_not_waited_for() -> None:
    yielding = Yielding()
    yielding.step("MASTER", HELP, 10, broken=True, sound=False)
    assert not yielding.step("FAULT", HELP, 13.1, broken=False, sound=False)
    assert not yielding.step("MASTER", HELP, 13.2, broken=True, sound=False), "not at once again"


def test_a_fault_on_both_sides_is_passed_on_ever_more_seldom() -> None:
    """Two models: whoever serves is broken, and the other serves as soon as it has yielded."""
    sides = [Yielding(), Yielding()]
    now, serving, turns = 0.0, 0, []
    while now < 4 * 3600:
        other = 1 - serving
        if sides[serving].step(
            "MASTER", heard(role="BACKUP", able=sides[other].able(now)), now, broken=True, sound=False
        ):
            turns.append(now)
            sides[serving].step("FAULT", heard(role="MASTER"), now, broken=False, sound=False)
            serving = other
        now += 0.25
    assert 5 < len(turns) < 20
    assert turns[-1] - turns[-2] > 1000


def test_a_run_that_the_next_one_mends_is_no_reason_to_yield() -> None:
    stuck = Stuck()
    assert stuck.step("MASTER", 1.0, unable=True) == (False, False)
    assert stuck.step("MASTER", 3.9, unable=True) == (False, False)
    assert stuck.step("MASTER", 4.0, unable=True) == (True, False)
    assert stuck.step("MASTER", 5.0, unable=False) == (False, False)
    assert stuck.step("MASTER", 64.9, unable=False) == (False, False)
    assert stuck.step("MASTER", 65.0, unable=False) == (False, True)
    assert stuck.step("BACKUP", 66.0, unable=True) == (False, False)
    assert stuck.step("BACKUP", 99.0, unable=True) == (False, False), "who does not serve has nothing to yield"


# What is worth a word.


def test_two_masters_are_said_once_when_it_begins_and_once_when_it_ends() -> None:
    two = TwoMasters()
    both = heard(role="MASTER", term=2)
    said = [(now, two.step("MASTER", both, now)) for now in (1.0, 1.25, 1.5, 1.75, 9.0)]
    assert [(now, bool(text)) for now, text in said if text] == [(1.5, True)]
    assert two.due() == inf
    assert "no longer" in two.step("BACKUP", both, 10.0)
    assert two.step("BACKUP", both, 10.1) == ""


def test_a_promotion_is_not_two_masters() -> None:
    two = TwoMasters()
    assert two.step("MASTER", heard(role="MASTER"), 1.0) == ""
    assert two.since == 1.0
    assert two.due() == 1.5
    assert two.step("MASTER", heard(role="BACKUP"), 1.3) == ""
    assert (two.since, two.due()) == (0.0, inf)


def test_what_differs_for_long_is_named() -> None:
    differences, own, told = Differences(), {"a": "1", "b": "1", "c": "1"}, {"a": "1", "b": "2", "d": "1"}
    differences.step(own, told, 0, heard=True)
    assert differences.lasting(3.0) == ()
    assert differences.lasting(3.1) == ("b", "c", "d")
    assert differences.step(own, told, 29.9, heard=True) == ([], [])
    assert differences.step(own, told, 30, heard=True) == (["b", "c", "d"], [])
    assert differences.step(own, told, 31, heard=True) == ([], [])
    assert differences.step(own, own, 32, heard=True) == ([], ["b", "c", "d"])
    assert differences.lasting(99) == ()


def test_two_that_are_told_one_after_the_other_do_not_differ() -> None:
    differences = Differences()
    for second in range(100):
        here, there = str(second), str(second - second % 2)
        assert differences.step({"a": here}, {"a": there}, float(second), heard=True) == ([], [])
        assert differences.lasting(float(second)) == ()


def test_nothing_is_known_of_a_silent_peer() -> None:
    differences = Differences()
    differences.step({"a": "1"}, {"a": "2"}, 0, heard=True)
    differences.step({"a": "1"}, None, 5, heard=False)
    assert differences.lasting(6) == ()
    differences.step({"a": "1"}, {"a": "2"}, 7, heard=True)
    differences.step({"a": "1"}, None, 11, heard=True)  # a new start of it, which has not said yet
    assert differences.lasting(11) == ("a",)


def test_a_peer_that_comes_and_goes() -> None:
    presence = Presence()
    assert presence.step(None) == ("", "")
    assert presence.step(heard(role="BACKUP")) == ("", "the peer r-2-VM is heard: BACKUP")
    assert presence.step(heard(role="MASTER")) == ("", "")
    assert presence.step(None) == ("the peer r-2-VM is not heard any more", "")


@pytest.mark.parametrize(
    ("before", "after"),
    [
        pytest.param(("BACKUP", heard(role="MASTER")), ("MASTER", heard(role="BACKUP")), id="promoted"),
        pytest.param(("MASTER", heard(role="MASTER")), ("MASTER", heard(role="BACKUP")), id="the other steps back"),
        pytest.param(("MASTER", None), ("MASTER", heard(role="BACKUP")), id="the other is back"),
        pytest.param(("MASTER", heard(role="BACKUP", outer=2)), ("MASTER", heard(role="BACKUP", outer=1)), id="links"),
    ],
)
def test_when_to_announce(before: tuple[str, Peer | None], after: tuple[str, Peer | None]) -> None:
    announcements = Announcements()
    announcements.step(*before, 0.0)
    announcements.step(*before, 1.0)
    announcements.step(*before, 2.0)
    times = [now for now in (10.0, 10.1, 10.3, 10.5, 10.9, 11.0, 12.0) if announcements.step(*after, now)]

    assert times == [10.0, 10.3, 10.9]
    assert announcements.due() == inf


def test_beside_a_silent_peer_it_announces_each_second_for_a_while() -> None:
    announcements = Announcements()
    announcements.step("BACKUP", heard(role="MASTER"), 0.0)
    seconds = [number / 10 for number in range(30, 2000)]
    times = [now for now in seconds if announcements.step("MASTER", None, now)]

    gaps = [round(later - before, 1) for before, later in pairwise(times)]
    assert times[0] == 3.0
    assert max(gaps) < 1.0, "who wakes up with the same addresses is outdone within a second"
    assert 120 <= times[-1] < 125
    assert announcements.due() == inf


def test_a_backup_announces_nothing() -> None:
    announcements = Announcements()
    assert announcements.step("MASTER", None, 0.0)
    assert not announcements.step("BACKUP", heard(role="MASTER"), 0.3)
    assert announcements.due() == inf


# What `holdfast status` says.

DOCUMENT: dict[str, Any] = {
    "heard": 100.0, "name": "r-71-VM", "role": "BACKUP", "able": True, "differs": ["tier 10.71.2.0/24"],
    "two_masters_since": 0, "unheard": [],
}  # fmt: skip


def test_status() -> None:
    assert answer.lines({}, 1.0) == ["no peer heard"]
    assert answer.lines(DOCUMENT, 100.2) == [
        "peer r-71-VM: BACKUP, heard 0.2 s ago",
        "differs from the peer: tier 10.71.2.0/24",
    ]
    both = DOCUMENT | {"role": "MASTER", "two_masters_since": 97.1, "differs": []}
    assert answer.lines(both, 100.1) == ["peer r-71-VM: MASTER, heard 0.1 s ago", "two masters for 3 s"]
    assert answer.lines(DOCUMENT, 160.0) == ["no peer heard for 60 s; the last was r-71-VM: BACKUP"]
    assert answer.lines(DOCUMENT | {"able": False, "differs": []}, 100.0)[1:] == ["r-71-VM could not take over"]
    assert answer.data(DOCUMENT, 100.2)["fresh"] is True
    assert answer.data({}, 1.0) == {"fresh": False, "synced_here_s": None}
    assert answer.data(DOCUMENT, 100.2, 4)["synced_here_s"] == 4
    synced = answer.lines(DOCUMENT | {"synced_s": 31, "differs": []}, 100.2, 4)
    assert synced[1:] == ["connections synced: here 4 s ago, at r-71-VM 31 s ago"]
    assert answer.lines(DOCUMENT | {"differs": []}, 100.2, 4)[1:] == [
        "connections synced: here 4 s ago, at r-71-VM not yet"
    ]


# Two models over a channel.


class Model:
    """One router: its files, its agent's talk, and keepalived's hook."""

    def __init__(self, name: str) -> None:
        self.name, self.talk = name, Talk(name)
        self.role, self.term, self.peer_term = "BACKUP", 0, 0
        self.hold, self.ground = False, "a"
        self.holding = Holding(0.0)

    def said(self) -> Hello:
        return Hello(name=self.name, role=self.role, term=self.term, ground=self.ground, hold=self.hold)

    def say(self, now: float) -> Hello:
        return self.talk.say(self.said(), now)

    def look(self, now: float) -> None:
        other = self.talk.heard(now)
        if other:
            self.peer_term = other.hello.term
        self.term = verdict.normal_term(self.role, self.term, self.peer_term, other)
        self.hold = self.holding.step(self.said(), other, now)
        if self.hold:
            self.role = "FAULT"
        elif self.role == "FAULT":
            self.role = "BACKUP"

    def promote(self) -> None:
        self.term, self.role = verdict.raised(self.term, self.peer_term), "MASTER"


class Channel(RuleBasedStateMachine):
    """Two routers and what is under way between them; any order of promotions, losses, delays and partitions."""

    def __init__(self) -> None:
        super().__init__()
        self.now = 0.0
        self.routers = [Model("one"), Model("two")]
        self.flying: list[tuple[int, Hello]] = []
        self.recorded: list[tuple[int, Hello]] = []

    @rule(who=st.integers(0, 1), lost=st.booleans())
    def say(self, who: int, *, lost: bool) -> None:
        hello = self.routers[who].say(self.now)
        self.recorded.append((1 - who, hello))
        if not lost:
            self.flying.append((1 - who, hello))

    def deliver(self, at: int) -> None:
        who, hello = self.flying.pop(at % len(self.flying))
        self.hear(who, hello)

    def hear(self, who: int, hello: Hello) -> None:
        router, other = self.routers[who], self.routers[1 - who]
        router.talk.hear(hello, self.now)
        before = router.term
        router.look(self.now)
        if router.role == "MASTER" and before > other.term:
            assert router.term > other.term, "normalisation puts no serving router behind its peer"

    @precondition(lambda self: self.flying)
    @rule(at=st.integers(0, 1000))
    def arrives(self, at: int) -> None:
        self.deliver(at)

    @rule()
    def all_arrive(self) -> None:
        while self.flying:
            self.deliver(0)

    @rule(lost=st.sampled_from([(), (), (0,), (1,)]))
    def all_is_said(self, lost: tuple[int, ...]) -> None:
        """What takes half a second on a sound line, or on one that carries one way only."""
        self.all_arrive()
        for who in (0, 1, 0, 1):
            self.say(who, lost=who in lost)
            self.all_arrive()

    @precondition(lambda self: self.recorded)
    @rule(at=st.integers(0, 1000))
    def somebody_repeats(self, at: int) -> None:
        self.hear(*self.recorded[at % len(self.recorded)])

    @rule(step=st.sampled_from([0.01, 0.25, 0.7, 1.6]))
    def time_passes(self, step: float) -> None:
        self.now += step
        for router in self.routers:
            router.look(self.now)

    @rule(who=st.integers(0, 1))
    def promoted(self, who: int) -> None:
        router, other = self.routers[who], self.routers[1 - who]
        if router.role == "MASTER" or router.hold:
            return
        knew = router.talk.peer is not None and router.peer_term == other.term
        before = other.term
        router.promote()
        if other.role == "MASTER" and knew and before < HIGHEST_TERM:
            assert router.term > other.term, "who was promoted last outranks who served before"

    @rule(who=st.integers(0, 1))
    def demoted(self, who: int) -> None:
        self.routers[who].role = "BACKUP"

    @rule(who=st.integers(0, 1))
    def agent_restarts(self, who: int) -> None:
        self.routers[who].talk = Talk(f"{self.routers[who].name} {len(self.recorded)} {self.now}")

    @rule(who=st.integers(0, 1), to=st.sampled_from(["a", "b"]))
    def moves(self, who: int, to: str) -> None:
        router = self.routers[who]
        if router.ground != to and router.role != "MASTER":
            router.hold, router.role, router.ground = True, "FAULT", to

    @rule(who=st.integers(0, 1))
    def boots_on_other_ground(self, who: int) -> None:
        """Its /run is empty: it knows nothing of having held back."""
        name, router = self.routers[who].name, Model(f"{who}")
        router.name, router.ground, router.holding = name, "ab"[self.routers[1 - who].ground == "a"], Holding(self.now)
        router.talk = Talk(f"{name} {len(self.recorded)} {self.now}")
        self.routers[who] = router

    @invariant()
    def terms_stay_in_their_range(self) -> None:
        assert all(0 <= router.term <= HIGHEST_TERM for router in self.routers)

    def teardown(self) -> None:
        """The channel heals: keepalived leaves one of two masters, the higher, and the rest follows by itself.  On
        different ground no keepalived hears the other's.
        """
        self.flying.clear()
        common = self.routers[0].ground == self.routers[1].ground
        serving = [router for router in self.routers if router.role == "MASTER"]
        if len(serving) == 2 and common:
            min(serving, key=lambda router: router.term).role = "BACKUP"
        for _ in range(12):
            self.now += INTERVAL_S
            for who, router in enumerate(self.routers):
                self.routers[1 - who].talk.hear(router.say(self.now), self.now)
                for one in self.routers:
                    one.look(self.now)
        assert [router.role for router in self.routers].count("MASTER") == bool(serving), "one serves, on any ground"
        assert not all(router.hold for router in self.routers), "and nobody waits for who waits for it"
        if serving and common:
            master = next(router for router in self.routers if router.role == "MASTER")
            backup = next(router for router in self.routers if router is not master)
            assert (master.term, backup.term) == (1, 0) or (master.term, backup.term, backup.peer_term) == (1, 0, 1)
            assert backup.peer_term == 1
        if serving and not common:
            assert sorted(router.hold for router in self.routers) == [False, True]
        if common:
            assert not any(router.hold for router in self.routers), "nobody holds back on common ground"
        self.now += holding.HOLD_S
        for router in self.routers:
            router.look(self.now)
        assert not any(router.hold for router in self.routers), "nor for ever on any"


Channel.TestCase.settings = settings(examples(150), stateful_step_count=40)
TestChannel = Channel.TestCase


def crowd(loss: float, seed: int) -> float:
    """Seconds until two routers, of which one is promoted every so often, agree after the last promotion."""
    chance = random.Random(seed)  # noqa: S311 a model of a bad line
    one, two = routers = (Model("one"), Model("two"))
    now, last = 0.0, 0.0
    while now - last < 30:
        now += INTERVAL_S
        if now < 20 and chance.random() < 0.05:
            new, old = routers if chance.random() < 0.5 else routers[::-1]
            old.role, last = "BACKUP", now
            new.promote()
        for speaker, listener in ((one, two), (two, one)):
            hello = speaker.say(now)
            if chance.random() >= loss:
                listener.talk.hear(hello, now)
            listener.look(now)
        if now > 20 and sorted((router.role, router.term) for router in routers) == [("BACKUP", 0), ("MASTER", 1)]:
            return now - last
    return inf


@pytest.mark.parametrize("loss", [0.0, 0.3, 0.6])
def test_terms_come_down_on_a_bad_line_too(loss: float) -> None:
    assert max(crowd(loss, seed) for seed in range(20)) < inf


def test_the_models_cover_what_they_claim() -> None:
    """A law that holds because nothing ever happens would be none: without the echo's knowledge it does not hold."""
    hasty: Callable[..., int] = lambda role, term, _peer_term, other: (  # noqa: E731 the rule, less its condition
        term
        if other is None
        else 1
        if role == "MASTER" and other.hello.role == "BACKUP" and not other.hello.term
        else term
    )
    one, two = Model("one"), Model("two")
    meet(one.talk, two.talk)
    one.term, one.role = 5, "MASTER"
    two.talk.hear(one.say(0), 0)
    two.look(0)
    late = two.say(0)  # BACKUP, 0: under way for a while
    assert (two.term, two.peer_term) == (0, 5)
    one.role = "BACKUP"
    two.promote()
    two.talk = Talk("two, its agent started anew")
    one.talk.hear(two.say(0.1), 0.1)
    two.talk.hear(one.say(0.1), 0.1)
    one.talk.hear(two.say(0.1), 0.1)
    one.look(0.1)
    assert (two.term, one.peer_term) == (6, 6)
    two.role = "BACKUP"
    one.promote()
    assert one.term == 7
    assert one.talk.hear(late, 0.5) is Kind.FRESH
    assert hasty(one.role, one.term, one.peer_term, one.talk.heard(0.5)) == 1 < two.term
    one.look(0.5)
    assert one.term == 7
