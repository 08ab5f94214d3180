"""What the checks of site-to-site tunnels print: whether each is up, and why not.  Pure.

A management server splits the batch's answer at `&`, and each item at `:` into peer, code and text; an item of another
form ends its reading.  So no text here has either character.
"""

import re
from collections.abc import Iterable, Mapping, Sequence
from typing import NamedTuple, TypeAlias

from holdfast.swanctl import peer_of

CONNECTED, UNKNOWN, NOT_CONNECTED = 0, 1, 11
"""0: up; 11: not up; 1: nothing is known of a tunnel to this peer."""

_REASONS = (
    # A peer of IKEv1 whose key differs answers what cannot be read, and hears nothing but repetitions.
    (r"AUTH(ENTICATION)?_FAILED|MAC mismatched|decrypt|message parsing failed|malformed", "the keys differ"),
    (r"NO_PROPOSAL_CHOSEN|no acceptable proposal|no matching proposal", "no policy is common to both sides"),
    (r"TS_UNACCEPTABLE|INVALID_ID_INFORMATION|no matching CHILD_SA", "the networks differ on the two sides"),
    (r"no shared key found", "there is no key for this peer"),
    (r"giving up after|peer not responding|retransmit \d", "the peer does not answer"),
)
"""What charon says of an attempt, and what that means; the first that is found counts."""
_KNOWN = [(re.compile(pattern), words) for pattern, words in _REASONS]
_ATTEMPT = "initiating"
_SEPARATORS = str.maketrans({":": " ", "&": " ", "\n": " "})


Log: TypeAlias = Mapping[str, Sequence[str]]
"""What charon has said of each connection by name, oldest line first."""


class Tunnel(NamedTuple):
    """A connection that charon has: its exchanges of keys by state, how many of its networks are joined, and how many
    there are.
    """

    name: str
    ike: tuple[str, ...]
    joined: int
    wanted: int


class Found(NamedTuple):
    """What is to be said of one peer."""

    code: int
    text: str


SILENT = Found(NOT_CONNECTED, "IPsec SA not found;charon does not answer in time, so nothing is known of its tunnels")
"""Of any peer, where charon runs and cannot be asked."""
NAMELESS = Found(NOT_CONNECTED, "IPsec SA not found;the peer is known by a name that no resolver has an address for")
_CARRIES_KEYS = frozenset({"ESTABLISHED", "REKEYING"})
_CARRIES = frozenset({"INSTALLED", "REKEYING", "UPDATING"})
"""States of charon's in which an exchange of keys, and one of networks, are up: those that are being replaced are."""


def tunnels(connections: Iterable[Mapping[str, object]], associations: Iterable[Mapping[str, object]]) -> list[Tunnel]:
    """From charon's lists of what it has loaded and of what is up."""
    ike: dict[str, list[str]] = {}
    joined: dict[str, set[str]] = {}
    for listed in associations:
        for name, sa in _sections(listed):
            ike.setdefault(name, []).append(str(sa.get("state", "")))
            for _, child in _sections(sa.get("child-sas", {})):
                if child.get("state") in _CARRIES:
                    joined.setdefault(name, set()).add(str(child.get("name", "")))
    return [
        Tunnel(name, tuple(ike.get(name, ())), len(joined.get(name, ())), len([*_sections(held.get("children", {}))]))
        for listed in connections
        for name, held in _sections(listed)
    ]


def _sections(listed: object) -> list[tuple[str, Mapping[str, object]]]:
    if not isinstance(listed, Mapping):
        return []
    return [(str(name), held) for name, held in listed.items() if isinstance(held, Mapping)]


def found(peer: str, known: Sequence[Tunnel] | None, log: Log | None = None) -> Found:
    """Of one peer.  `known` None: charon does not run; `log`: what it has said lately."""
    if known is None:
        return Found(NOT_CONNECTED, "IPsec SA not found;no VPN runs on this router")
    mine = [tunnel for tunnel in known if peer_of(tunnel.name) == peer.lower()]
    if not mine:
        return Found(UNKNOWN, "IPsec SA not found;there is no VPN to this peer")
    # Of several, from several addresses of ours, the worst is what matters.
    return max((_of(tunnel, log or {}) for tunnel in mine), key=lambda one: one.code)


def _of(tunnel: Tunnel, log: Log) -> Found:
    if _CARRIES_KEYS.intersection(tunnel.ike) and tunnel.joined >= tunnel.wanted:
        return Found(CONNECTED, "IPsec SA found;Site-to-site VPN have connected")
    if tunnel.joined:
        text = f"IPsec SA found;{tunnel.joined} of {tunnel.wanted} networks have connected"
        return Found(NOT_CONNECTED, _with(text, tunnel, log))
    return Found(NOT_CONNECTED, _with("IPsec SA not found;Site-to-site VPN have not connected", tunnel, log))


def _with(text: str, tunnel: Tunnel, log: Log) -> str:
    why = reason(tunnel.name, log)
    return f"{text};{why}" if why else text


def reason(name: str, log: Log) -> str:
    """Why a connection is not up, by the latest attempt of which anything tells; empty if none does."""
    attempt: list[str] = []
    for line in (*reversed(log.get(name, ())), _ATTEMPT):
        attempt.append(line)
        if _ATTEMPT in line:
            for pattern, words in _KNOWN:
                if any(pattern.search(said) for said in attempt):
                    return words
            attempt.clear()
    return ""


def item(peer: str, one: Found) -> str:
    """One item of the batch's answer."""
    return f"{peer}:{one.code}:{one.text.translate(_SEPARATORS)}&"
