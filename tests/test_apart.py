"""Which keys differ between two routers, told by codes."""

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from holdfast import apart, peer
from holdfast.peer import Hello

KEY = b"k" * 32
BAGS = st.dictionaries(st.text(max_size=20), st.sampled_from(("00000000", "11111111")), max_size=12)


@pytest.mark.parametrize(
    ("here", "there", "said"),
    [
        ({"7": "a", "9": "b"}, {"7": "a"}, "rules (9 only here)"),
        ({"7": "a"}, {"7": "a", "9": "b", "8": "c"}, "rules (2 only at the peer)"),
        ({"7": "a", "9": "b"}, {"7": "a", "9": "c"}, "rules (9)"),
        ({"7": "a", "9": "b"}, {"9": "c", "10": "a"}, "rules (9; 7 only here; 1 only at the peer)"),
        ({str(n): "a" for n in range(5)}, {}, "rules (0, 1, 2, 2 more only here)"),
        ({"a\x1b[31m": "a", "b": "a"}, {}, "rules (b, 1 more only here)"),
        ({"\n": "a", "n" * 65: "a"}, {}, "rules (2 keys only here)"),
        ({"7": "a"}, {"7": "a"}, "rules"),
        (None, {"7": "a"}, "rules"),
        ({"7": "a"}, None, "rules"),
    ],
)
def test_how_it_is_said(here: dict[str, str] | None, there: dict[str, str] | None, said: str) -> None:
    heard = None if there is None else apart.codes(KEY, "rules", there)

    assert apart.named(KEY, "rules", here, heard) == said


@given(BAGS, BAGS)
def test_every_difference_is_seen_from_both_sides(one: dict[str, str], two: dict[str, str]) -> None:
    told = [apart.named(KEY, "b", mine, apart.codes(KEY, "b", other)) for mine, other in ((one, two), (two, one))]

    assert ({"b"} == {*told}) == (one == two)
    assert ("only at the peer" in told[0]) == ("only here" in told[1]) == bool(two.keys() - one.keys())


def test_a_hello_tells_codes_of_what_differs_and_no_names() -> None:
    own = {"vpnusers": {"alice": "11111111"}, "rules": {str(n): "0" for n in range(63)}, "routes": {"0.0.0.0/0": "2"}}

    told = apart.told(KEY, own, ("routes", "vpnusers", "unknown", "rules"))

    assert told == {"routes": apart.codes(KEY, "routes", own["routes"]), "vpnusers": {_code("alice"): "11111111"}}
    assert "alice" not in str(told)
    assert apart.told(KEY, own, ()) is None


def test_one_packet_holds_them() -> None:
    own = {"firewallrules": {str(n): "00c0ffee" for n in range(apart.MOST)}}
    hello = Hello(name="r-71-VM", keys=apart.told(KEY, own, own))
    digests = {f"tier 10.71.{n}.0/24": "00c0ffee" for n in range(12)}

    data = peer.encode(KEY, msgspec.structs.replace(hello, digests=digests))

    assert len(data) < 3 * 1472, "it is fragmented only while something differs"
    assert peer.decode(KEY, data) == msgspec.structs.replace(hello, digests=digests)


def _code(name: str) -> str:
    (code,) = apart.codes(KEY, "vpnusers", {name: ""})
    return code
