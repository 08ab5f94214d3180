"""Messages into bags, each with its own refusals.  Pure."""

from collections.abc import Sequence
from typing import NamedTuple

from holdfast import config as bags
from holdfast.config import Config
from holdfast.errors import Rejected
from holdfast.router import Facts


class Event(NamedTuple):
    """A message and the name of the file that it came in."""

    name: str
    document: bytes


class Taken(NamedTuple):
    """Bags after some events, and what was said of them.  `fresh`: refusals that were not answered before."""

    config: Config
    refused: tuple[str, ...] = ()
    fresh: tuple[str, ...] = ()
    unknown: tuple[str, ...] = ()
    kinds: tuple[str, ...] = ()
    warnings: tuple[str, ...] = ()
    accepted: bool = True


def take(config: Config, events: Sequence[Event], facts: Facts) -> Taken:
    """Merge all events, each with its own refusals."""
    taken = Taken(config, accepted=not events)
    for name, document in events:
        try:
            decoded = bags.decode(document)
            merged = bags.merge(taken.config, decoded, facts, name)
        except Rejected as why:
            text = f"{name}: {why}"
            taken = taken._replace(refused=(*taken.refused, text), fresh=(*taken.fresh, text))
            continue
        kind = bags.kind(decoded.command)
        taken = Taken(
            merged.config,
            (*taken.refused, *(f"{name}: {text}" for text in merged.refused)),
            (*taken.fresh, *(f"{name}: {text}" for text in merged.fresh)),
            (*taken.unknown, *(f"{kind}.{field}" for field in bags.unknown_fields(decoded, document))),
            (*taken.kinds, kind),
            (*taken.warnings, *(f"{name}: {text}" for text in merged.warnings)),
            accepted=True,
        )
    return taken
