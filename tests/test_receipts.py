"""Receipts: what a line says, and that a torn or foreign one says nothing."""

from hypothesis import given
from hypothesis import strategies as st

from holdfast.receipts import Event, Receipts, compacted, parse, render

KINDS: tuple[Event, ...] = ("delivered", "acknowledged")
EVENTS = st.tuples(st.sampled_from(KINDS), st.sampled_from(["10.1.1.1", "10.1.1.2"]), st.integers(0, 99))


def test_the_last_delivery_and_the_highest_acknowledgement_count() -> None:
    said = parse(
        b"delivered 10.1.1.1 4\nacknowledged 10.1.1.1 4\ndelivered 10.1.1.1 3\nacknowledged 10.1.1.1 3\n"
        b"acknowledged 10.1.1.2 1\n"
    )

    assert said == Receipts({"10.1.1.1": 3}, {"10.1.1.1": 4, "10.1.1.2": 1})


def test_a_torn_line_does_not_count() -> None:
    assert parse(b"acknowledged 10.1.1.1 1\nacknowledged 10.1.1.1 1") == Receipts({}, {"10.1.1.1": 1})
    assert parse(b"acknowledged 10.1.1.1 12") == Receipts({}, {})


def test_foreign_lines_do_not_count() -> None:
    lines = [b"", b"acknowledged", b"lost 10.1.1.1 1", b"acknowledged 10.1.1.1 -1", b"acknowledged 10.1.1.1 1 2"]
    lines += [b"acknowledged 10.1.1.1 " + b"9" * 5000, b"\xff\xfe", "acknowledged 10.1.1.1 ٣".encode(), b"\x00" * 40]

    assert parse(b"\n".join(lines) + b"\n") == Receipts({}, {})


@given(st.lists(EVENTS, max_size=20), st.integers(0, 30))
def test_cut_anywhere_it_says_what_its_whole_lines_say(events: list[tuple[Event, str, int]], cut: int) -> None:
    lines = [render(event, address, serial) for event, address, serial in events]
    whole = b"".join(lines)
    torn = whole[: max(0, len(whole) - cut)]

    assert parse(torn) == parse(torn[: torn.rfind(b"\n") + 1])
    assert parse(compacted(parse(whole))) == parse(whole)
    assert len(compacted(parse(whole))) <= len(whole)
