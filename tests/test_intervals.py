"""Disjoint pieces mean what the rules meant."""

import random
import time
from ipaddress import ip_address, ip_network

from hypothesis import given
from hypothesis import strategies as st

from holdfast.intervals import ANY, Span, disjoint, disjoint_within, icmp_keys, icmp_ranges, prefix_length


def permits(spans: list[Span], address: str, port: int) -> int:
    """Count the spans that hold the point: the reference."""
    where = ip_address(address)
    return sum(where in ip_network(span.prefix) and span.first <= port <= span.last for span in spans)


def network(bits: int, length: int) -> str:
    return str(ip_network((f"10.{bits}.0.0", length), strict=False))


PREFIXES = st.builds(network, st.integers(0, 7), st.sampled_from([0, 8, 13, 14, 15, 16, 24, 32]))
PORTS = st.tuples(st.integers(0, 20), st.integers(0, 20)).map(sorted)
SPANS = st.builds(
    lambda prefix, ends, origin: Span(prefix, ends[0], ends[1], origin), PREFIXES, PORTS, st.sampled_from("abc")
)


@given(st.lists(SPANS, max_size=12), st.randoms(use_true_random=False))
def test_pieces_mean_what_the_rules_mean(spans: list[Span], chance: random.Random) -> None:
    pieces = list(disjoint(spans))
    for address in ("10.0.0.0", "10.1.0.0", "10.3.0.0", "10.4.0.1", "10.6.1.0", "10.7.0.0", "192.0.2.1"):
        for port in range(22):
            assert permits(pieces, address, port) == (permits(spans, address, port) > 0)
    chance.shuffle(spans)
    assert list(disjoint(spans)) == pieces
    assert {piece.origin for piece in pieces} <= {span.origin for span in spans}


def test_what_a_wider_network_covers_is_taken_out() -> None:
    spans = [
        Span("10.0.0.0/8", 80, 90, "wide"),
        Span("10.1.0.0/16", 85, 100, "narrow"),
        Span("10.1.2.3/32", 80, 95, "x"),
    ]
    assert list(disjoint(spans)) == [Span("10.0.0.0/8", 80, 90, "wide"), Span("10.1.0.0/16", 91, 100, "narrow")]


def test_neighbouring_ranges_stay_apart_and_overlapping_ones_join() -> None:
    spans = [Span("10.0.0.5/32", 1, 5, "b"), Span("10.0.0.5", 6, 9, "c"), Span("10.0.0.5", 9, 12, "a")]
    assert list(disjoint(spans)) == [Span("10.0.0.5", 1, 5, "b"), Span("10.0.0.5", 6, 12, "a")]


def test_ipv6_is_kept_apart_from_ipv4() -> None:
    spans = [Span("::/0", 1, 5), Span("0.0.0.0/0", 2, 3), Span("2001:db8::/32", 4, 9)]
    assert list(disjoint(spans)) == [Span("0.0.0.0/0", 2, 3), Span("::/0", 1, 5), Span("2001:db8::/32", 6, 9)]


def test_each_rest_of_the_key_by_itself() -> None:
    items = [("b", Span("10.0.0.0/8", 1, 5)), ("a", Span("10.0.0.0/8", 2, 6)), ("a", Span("10.0.0.0/8", 1, 2))]
    assert list(disjoint_within(items)) == [("a", Span("10.0.0.0/8", 1, 6)), ("b", Span("10.0.0.0/8", 1, 5))]
    assert [prefix_length(prefix) for prefix in ("10.0.0.0/8", "10.0.0.1", "2001:db8::1")] == [8, 32, 128]


def test_icmp_types_and_codes() -> None:
    assert list(icmp_ranges(8, 0)) == [(2048, 2048)]
    assert list(icmp_ranges(3, ANY)) == [(768, 1023)]
    assert list(icmp_ranges(ANY, ANY)) == [(0, 65535)]
    assert len(list(icmp_ranges(ANY, 4))) == 256
    assert list(icmp_keys(0, 65535)) == ["0-255 . 0-255"]
    assert list(icmp_keys(2048, 2048)) == ["8 . 0"]
    assert list(icmp_keys(768, 1023)) == ["3 . 0-255"]


@given(st.tuples(st.integers(0, 0xFFFF), st.integers(0, 1200)))
def test_icmp_rectangles_cover_the_range_once(where: tuple[int, int]) -> None:
    first, last = where[0], min(0xFFFF, where[0] + where[1])
    points = []
    for text in icmp_keys(first, last):
        (a, b), (c, d) = ([int(x) for x in (part.split("-") * 2)[:2]] for part in text.split(" . "))
        points += [kind * 256 + code for kind in range(a, b + 1) for code in range(c, d + 1)]
    assert sorted(points) == list(range(first, last + 1))


def test_ten_thousand_rules_are_quick_and_one_more_is_one_piece_more() -> None:
    spans = [Span(f"10.{i % 200}.{i % 250}.0/24", i % 60000, i % 60000 + 1, str(i)) for i in range(0, 30000, 3)]
    began = time.process_time()
    pieces = set(disjoint(spans))
    assert time.process_time() - began < 0.5  # 40 ms alone on an idle machine; this bound finds the quadratic
    more = set(disjoint([*spans, Span("172.16.0.0/12", 443, 443, "new")]))
    assert (len(more - pieces), len(pieces - more)) == (1, 0)
