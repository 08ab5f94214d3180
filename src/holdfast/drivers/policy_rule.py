"""Routing policy rules: ours are those in our range of priorities."""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any

import msgspec

from holdfast.converge import Failure
from holdfast.iproute import IpRoute, Order, as_wanted
from holdfast.state import Change, Key, PolicyRule, Resource, State

FIRST, LAST = 1000, 1999
"""Our priorities, both included."""

_EXACT = 0xFFFFFFFF
_KNOWN = frozenset({"priority", "src", "srclen", "fwmark", "fwmask", "table", "protocol"})


def parse_rules(text: str, desired: Mapping[Key, Resource]) -> Iterator[PolicyRule]:
    """Understand what `ip -N -j rule` printed, our range alone.

    A rule that selects or does what we never ask for gets that into its `source`, after a blank, so that it
    equals nothing wanted.
    """
    for item in msgspec.json.decode(text or "[]", type=list[dict[str, Any]]):
        if FIRST <= item["priority"] <= LAST:
            yield as_wanted(list(_spellings(item)), desired)


def _spellings(item: Mapping[str, Any]) -> Iterator[PolicyRule]:
    source = "" if item["src"] == "all" else f"{item['src']}/{item.get('srclen', 32)}"
    odd = "".join(
        f" {name}" if value is None else f" {name} {value}" for name, value in item.items() if name not in _KNOWN
    )
    mark = int(item.get("fwmark", "0"), 0)
    mask = int(item["fwmask"], 0) if "fwmask" in item else _EXACT if "fwmark" in item else 0
    table = int(item["table"]) if item.get("table", "").isdigit() else 0
    for one in (source, source.removesuffix("/32")):
        yield PolicyRule(item["priority"], table, one + odd, mark, mask)
        if mask == _EXACT:
            yield PolicyRule(item["priority"], table, one + odd, mark, 0)  # a mark without a mask is compared whole


class PolicyRules:
    """Keeps the rules of priority 1000 to 1999.  A wanted mark without a mask is compared whole."""

    kinds: tuple[type[Resource], ...] = (PolicyRule,)

    def __init__(self, ip: IpRoute) -> None:
        self.ip = ip

    def observe(self, desired: State) -> Iterator[PolicyRule]:
        """Read all rules of ours; CommandFailed if ip(8) cannot tell."""
        yield from parse_rules(self.ip.run(["ip", "-N", "-j", "rule", "show"]), desired)

    def check(self, changes: Sequence[Change]) -> Iterable[Failure]:
        """Refuse a priority that is not ours: it would be added and never seen again."""
        for change in changes:
            if isinstance(change.after, PolicyRule) and not FIRST <= change.after.priority <= LAST:
                yield Failure(change.key, f"priority is not within {FIRST}-{LAST}")

    def apply(self, changes: Sequence[Change]) -> Iterable[Failure]:
        """Take and give in bulk."""
        return self.ip.change([_order(change) for change in changes])


def _order(change: Change) -> Order:
    rule = change.resource
    assert isinstance(rule, PolicyRule)  # noqa: S101 the spine sends each driver its own kinds
    verb, fine = ("add", ("File exists",)) if change.after else ("del", ("No such file or directory",))
    words = ("rule", verb, "pref", str(rule.priority))
    if " " in rule.source:
        # Not of our making: taken by its priority. Should that hit a wanted one instead, the next look gives it again.
        return Order(rule.key, words, fine)
    source = ("from", rule.source) if rule.source else ()
    mask = f"/{rule.mask:#x}" if rule.mask else ""
    mark = ("fwmark", f"{rule.mark:#x}{mask}") if rule.mark or rule.mask else ()
    return Order(rule.key, (*words, *source, *mark, "table", str(rule.table)), fine)
