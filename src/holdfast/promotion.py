"""What makes a backup forward, or end it, worked out ahead, so that keepalived's hook has it in milliseconds.  Pure.

It holds what the kernel can only take once the router serves: links up and routes through them; on the way back links
down, with which their routes go.  Everything else of a change of roles is the ordinary convergence, which also does all
of this where no batch is left or it is refused.
"""

import re
from collections.abc import Iterable, Mapping

from holdfast import ip_words
from holdfast.state import Link, Resource, Route, State, diff

PATH = "/run/holdfast/promotion"
"""Where the batch is left: one text, put there by rename; none is there on a router without a pair."""
BACK = "/run/holdfast/demotion"
"""The same for the way back, which the hook takes where the peer serves already."""

_WORD = re.compile(r"[A-Za-z0-9_.:/@+][A-Za-z0-9_.:/@+-]*")


def batch(now: State, then: State, generation: int, macs: Mapping[str, str]) -> str:
    """Return the text for `ip -force -batch` that makes a router of one role into one of another.

    Its head is comments to ip(8), for the hook: which generation (the end of the link `current`) and which nics (name
    and MAC, from `macs`) it was made for.  A stale one is refused there; a nic that is gone only costs its own lines.
    """
    wanted = [change.after for change in diff(now, then) if change.after is not None]
    lines = [words for one in _ordered(wanted) if all(map(_WORD.fullmatch, words := _words(one)))]
    devices = {one.device for one in wanted if isinstance(one, Link | Route)}
    nics = [f"nic {device} {mac}" for device, mac in sorted(macs.items()) if device in devices]
    head = [f"generation {generation:06d}", *nics]
    return "".join(f"{line}\n" for line in (*(f"# {said}" for said in head), *(" ".join(words) for words in lines)))


def _ordered(wanted: Iterable[Resource]) -> list[Link | Route]:
    """Links before routes, and routes without a gateway first: a gateway may be reached by one of them."""
    chosen = [one for one in wanted if isinstance(one, Link | Route)]
    return sorted(chosen, key=lambda one: (isinstance(one, Route), bool(getattr(one, "gateway", ""))))


def _words(one: Link | Route) -> tuple[str, ...]:
    return ip_words.link(one) if isinstance(one, Link) else ip_words.route(one)
