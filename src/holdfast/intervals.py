"""Rules that overlap, as pieces that do not: nft refuses overlap within one set.  Pure.

Every rule of one call has the same verdict, so the verdict of all of them is their union.  Networks are nested or
disjoint, never partly overlapping: only the ports can be.
"""

from bisect import bisect_left, bisect_right
from collections import defaultdict
from collections.abc import Iterable, Iterator, Sequence
from ipaddress import IPv6Address
from typing import Any, NamedTuple, TypeVar

ANY = -1
"""Stands for every ICMP type or code."""

Rest = TypeVar("Rest")
_Place = tuple[int, int, int]
_Levels = dict[tuple[int, int], int]
_HOST = {4: 32, 6: 128}
_MOST_RANGES = 64  # of one network that are told apart; more are taken for one, so that no list takes long


class Span(NamedTuple):
    """A network and a range of ports, both ends included; `origin` names who asked for it."""

    prefix: str
    first: int
    last: int
    origin: str = ""


class _Range(NamedTuple):
    last: int
    first: int
    origin: str


def disjoint(spans: Iterable[Span]) -> Iterator[Span]:
    """Yield pieces that cover what `spans` cover, and no point twice, sorted by network and port.

    What an enclosing network covers is taken out of the networks within; overlapping ranges of one network are joined,
    neighbouring ones are not, so one more rule is normally one more piece.  The result depends on the set of spans
    alone; a piece carries the smallest origin of the ranges that it was made of.  Networks are canonical, with or
    without the length of a single address; pieces come without it.
    """
    places: defaultdict[_Place, list[Span]] = defaultdict(list)
    for span in spans:
        places[_place(span.prefix)].append(span)
    above: list[tuple[_Place, list[_Range]]] = []
    for place in sorted(places):
        while above and not _within(place, above[-1][0]):
            above.pop()
        own = _joined(places[place])
        for _, ranges in above:
            own = [piece for wide in own for piece in _without(wide, ranges)]
        if own:
            above.append((place, own))
        text = places[place][0].prefix
        host = f"/{_HOST[place[0]]}"
        prefix = text.removesuffix(host)
        for last, first, origin in own:
            yield Span(prefix, first, last, origin)


def disjoint_within(items: Iterable[tuple[Rest, Span]]) -> Iterator[tuple[Rest, Span]]:
    """Do the same for each rest of the key by itself: `("203.0.113.5 . tcp", span)`, or for egress (source, span)."""
    groups: defaultdict[Any, list[Span]] = defaultdict(list)
    for rest, span in items:
        groups[rest].append(span)
    for rest in sorted(groups):
        for piece in disjoint(groups[rest]):
            yield rest, piece


class Guarded(NamedTuple):
    """A rule for `levels`: its verdict, what it is about, and where; protocol `all` meets every other."""

    allowed: bool
    protocol: str
    spans: tuple[Span, ...]


def levels(rules: Sequence[Guarded]) -> Iterator[int]:
    """Yield a level for each rule, so that asking level by level, all rules of one level at once, gives the verdict of
    the first rule that matches.

    A rule stands above every earlier one of the other verdict that it may share a packet with.  So of the rules that
    match a packet, those that contradict the first all stand above it, and its own level is reached before theirs.
    Rules that only might meet are kept apart as well: the result is never wrong, and never more levels than the list
    has runs of equal verdicts.
    """
    lengths = sorted({_place(span.prefix)[2] for rule in rules for span in rule.spans})
    seen = {True: _Index(lengths), False: _Index(lengths)}
    for rule in rules:
        others = seen[not rule.allowed]
        level = 1 + max((others.highest(rule.protocol, span) for span in rule.spans), default=-1)
        for span in rule.spans:
            seen[rule.allowed].add(rule.protocol, span, level)
        yield level


class _Index:
    """The highest level of what has been seen: by protocol, by network, by range of ports."""

    def __init__(self, lengths: Sequence[int]) -> None:
        self.lengths = lengths
        self.at: defaultdict[str, dict[_Place, _Levels]] = defaultdict(dict)
        self.within: defaultdict[str, dict[_Place, _Levels]] = defaultdict(dict)

    def add(self, protocol: str, span: Span, level: int) -> None:
        place = _place(span.prefix)
        _raise(self.at[protocol].setdefault(place, {}), span, level)
        for length in self.lengths[: bisect_right(self.lengths, place[2])]:
            _raise(self.within[protocol].setdefault(_above(place, length), {}), span, level)

    def highest(self, protocol: str, span: Span) -> int:
        """Return the highest level of what may share a packet with this; -1 if nothing does."""
        place = _place(span.prefix)
        enclosing = [_above(place, length) for length in self.lengths[: bisect_left(self.lengths, place[2])]]
        found = -1
        for name in self.at.keys() if protocol == "all" else {protocol, "all"} & self.at.keys():
            known = [self.within[name].get(place), *(self.at[name].get(above) for above in enclosing)]
            for ranges in filter(None, known):
                for (first, last), level in ranges.items():
                    # What a range counts depends on the protocol: those of two are not to be compared.
                    if level > found and (name != protocol or (first <= span.last and span.first <= last)):
                        found = level
        return found


def _raise(ranges: _Levels, span: Span, level: int) -> None:
    if ranges.get((span.first, span.last), -1) < level:
        ranges[span.first, span.last] = level
        if len(ranges) > _MOST_RANGES:
            highest = max(ranges.values())
            first, last = min(first for first, _ in ranges), max(last for _, last in ranges)
            ranges.clear()
            ranges[first, last] = highest


def _above(place: _Place, length: int) -> _Place:
    shift = _HOST[place[0]] - length
    return place[0], place[1] >> shift << shift, length


def prefix_length(prefix: str) -> int:
    """Return the length of a network's prefix in bits: the layer of an egress rule is that of its source."""
    return _place(prefix)[2]


def icmp_ranges(kind: int, code: int) -> Iterator[tuple[int, int]]:
    """Yield an ICMP type and code, each 0 to 255 or ANY, as ranges of `type * 256 + code`."""
    if kind == ANY and code == ANY:
        yield 0, 0xFFFF
    elif code == ANY:
        yield kind * 256, kind * 256 + 255
    else:
        for each in range(256) if kind == ANY else (kind,):
            yield each * 256 + code, each * 256 + code


def icmp_keys(first: int, last: int) -> Iterator[str]:
    """Yield such a range as nft's fields `type . code`: at most three rectangles."""
    while first <= last:
        kind, code = divmod(first, 256)
        whole = (last + 1) // 256 - kind if code == 0 else 0
        if whole > 0:
            kinds = str(kind) if whole == 1 else f"{kind}-{kind + whole - 1}"
            yield f"{kinds} . 0-255"
            first += whole * 256
        else:
            end = min(last, kind * 256 + 255)
            codes = str(code) if end == first else f"{code}-{end % 256}"
            yield f"{kind} . {codes}"
            first = end + 1


def _place(prefix: str) -> _Place:
    """Return family, first address and length: sorted, a network comes right before what it encloses."""
    address, _, length = prefix.partition("/")
    if ":" in address:
        return 6, int(IPv6Address(address)), int(length or 128)
    a, b, c, d = address.split(".")
    return 4, int(a) << 24 | int(b) << 16 | int(c) << 8 | int(d), int(length or 32)


def _within(place: _Place, network: _Place) -> bool:
    family, start, length = network
    shift = _HOST[family] - length
    return place[0] == family and place[1] >> shift == start >> shift


def _joined(spans: list[Span]) -> list[_Range]:
    if len(spans) == 1:
        _, first, last, origin = spans[0]
        return [_Range(last, first, origin)]
    joined: list[_Range] = []
    for first, last, origin in sorted(span[1:] for span in spans):
        if joined and first <= joined[-1].last:
            before = joined[-1]
            joined[-1] = _Range(max(last, before.last), before.first, min(origin, before.origin))
        else:
            joined.append(_Range(last, first, origin))
    return joined


def _without(wide: _Range, ranges: list[_Range]) -> Iterator[_Range]:
    """Yield what is left of `wide`; `ranges` are sorted and disjoint."""
    last, first, origin = wide
    for at in range(bisect_left(ranges, (first,)), len(ranges)):
        taken = ranges[at]
        if taken.first > last:
            break
        if first < taken.first:
            yield _Range(taken.first - 1, first, origin)
        first = taken.last + 1
    if first <= last:
        yield _Range(last, first, origin)
