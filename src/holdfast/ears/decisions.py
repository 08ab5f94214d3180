"""What follows from the peer's hellos on this router: numbers for keepalived, peer.json, alerts, and wishes."""

from collections.abc import Iterable, Iterator
from contextlib import suppress
from math import inf
from pathlib import Path
from typing import Any

import msgspec

from holdfast import alerts, apart, pair_files, pairing, verdict
from holdfast.ears import Wish
from holdfast.holding import Holding
from holdfast.pair_files import Own
from holdfast.peer import Hello, Pair, Peer
from holdfast.verdict import Links

WRITE_S = 0.2
"""How often peer.json is written where it says nothing new but the time: less than the interval of hellos."""
DEAF_S = 3.0
"""How long the peer may be heard elsewhere and not by one of the networks that it is on."""
_BOOST = 14
_LINK, _GATEWAY = "an outer link has no carrier, is down or is missing", "its gateway is silent"
_STUCK = "what guests need is not as wanted"


class Decisions:
    """Carries out what `verdict` decides.  What cannot be written is tried again at the next look."""

    def __init__(self, root: Path, now: float) -> None:
        self.root = root
        self.faces: dict[str, float] = {}
        self.announcements = verdict.Announcements()
        self._holding = Holding(now)
        self._outage = verdict.Outage()
        self._stuck = verdict.Stuck()
        self._yielding = verdict.Yielding()
        self._why = ""
        self._missing = False
        self._two = verdict.TwoMasters()
        self._differences = verdict.Differences()
        self._presence = verdict.Presence()
        before = pairing.peer(root, inf)
        self._known = (str(before.get("address", "")), str(before.get("mac", "")))
        self._written: tuple[dict[str, Any], float] = ({}, -inf)

    def due(self) -> float:
        """When something will follow from what is known already."""
        return min(self._outage.due(), self._two.due(), self.announcements.due())

    @property
    def differ(self) -> tuple[str, ...]:
        """Names of what the two know differently now."""
        return self._differences.names

    def able(self, own: Own, now: float) -> bool:
        """Whether this router would be a help to its peer."""
        return (
            own.role in (verdict.MASTER, verdict.BACKUP)
            and not (own.unable or self._missing)
            and self._yielding.able(now)
        )

    def write(self, own: Own, pair: Pair, heard: Peer | None, now: float, outer: Links) -> Own:
        """Write keepalived's numbers, and return this router as it is then."""
        self._missing = outer.missing > 0
        own = self._hold(own, pair, heard, now)
        own = self._fault(own, heard, now, outer)
        boost = _BOOST * verdict.boosted(own.role, heard, able=self.able(own, now), hold=own.hold)
        if boost != own.boost and self._track("boost", boost):
            own = own._replace(boost=boost)
        if heard and heard.hello.term != own.peer_term and self._track(pair_files.PEER_TERM, heard.hello.term):
            own = own._replace(peer_term=heard.hello.term)
        return self._term(own, heard)

    def _hold(self, own: Own, pair: Pair, heard: Peer | None, now: float) -> Own:
        said = Hello(name=pair.name, role=own.role, term=own.term, ground=pair.ground, moving=own.moving, hold=own.hold)
        hold = self._holding.step(said, heard, now)
        if hold == own.hold or not self._track("hold", int(hold)):
            return own
        if hold and heard:
            alerts.alert(self.root, [f"this router holds itself back: {heard.hello.name} serves on other ground"])
        return own._replace(hold=hold)

    def _fault(self, own: Own, heard: Peer | None, now: float, outer: Links) -> Own:
        dark, silent = self._outage.step(own.role, outer, now), outer.gateway is False
        stuck, well = self._stuck.step(own.role, now, unable=own.unable)
        # Who does not serve asks no gateway, and needs less: what made it yield to the peer may still be so.
        seen = {_GATEWAY: own.role == verdict.MASTER and outer.gateway is True, _STUCK: well}.get(self._why, True)
        sound = outer.sound and seen
        before = self._yielding.active
        fault = self._yielding.step(own.role, heard, now, broken=dark or silent or stuck, sound=sound)
        if begun := fault and not before:
            self._why = _LINK if dark else _GATEWAY if silent else _STUCK
        wanted = fault != own.fault and (fault or not (leaving(own, now) or own.moving))
        if wanted and self._track("fault", int(fault)):
            own = own._replace(fault=fault)
        if begun:
            alerts.alert(self.root, [f"this router yields to its peer: {self._why}"])
        return own

    def _term(self, own: Own, heard: Peer | None) -> Own:
        if verdict.normal_term(own.role, own.term, own.peer_term, heard) == own.term:
            return own
        # The hook may be raising it at this very moment: what it writes holds.
        with suppress(OSError), pair_files.role_held(self.root) as held:
            if held:
                now = pair_files.own(self.root)
                term = verdict.normal_term(now.role, now.term, now.peer_term, heard)
                if term != now.term and self._track("term", term):
                    return own._replace(role=now.role, said=now.said, term=term)
        return own

    def _track(self, name: str, number: int) -> bool:
        try:
            pairing.track(self.root, name, number)
        except OSError as error:
            alerts.note(f"{pairing.VRRP}/{name} cannot be written: {error}", urgent=True)
            return False
        return True

    def tell(self, own: Own, pair: Pair, heard: Peer | None, now: float) -> Iterator[Wish]:
        """Say what is worth a word, leave peer.json, and wish for a run where the peer has become another."""
        said = [self._two.step(own.role, heard, now)]
        told = heard.hello.digests if heard else None
        known = None if heard is None or told is None else {**told, "ground": heard.hello.ground}
        new, over = self._differences.step({**pair.digests, "ground": pair.ground}, known, now, heard=heard is not None)
        said += [f"differs from the peer: {', '.join(_named(pair, heard, new))}"] if heard and new else []
        gone, back = self._presence.step(heard)
        # Before anything is said of it: who reads the alert and looks sees what it speaks of.
        another = heard is not None and self._leave(pair, heard, now)
        if texts := [text for text in (*said, gone) if text]:
            alerts.alert(self.root, texts)
        for text in (back, f"no longer differs from the peer: {', '.join(over)}" if over else ""):
            if text:
                alerts.note(text)
        if heard and another:
            yield Wish(f"the peer is {heard.hello.name} at {self._known[0] or 'no address'}")

    def _leave(self, pair: Pair, heard: Peer, now: float) -> bool:
        """Leave peer.json where it says something new; whether the peer's address or MAC is another."""
        hello, segment = heard.hello, next((f.network for f in pair.faces if f.device == pair.segment), "")
        known = self._known
        if hello.nics is not None:
            there = hello.nics.get(segment)
            # One that has left the segment says nothing there: nobody else may in its stead.
            known = (there.address, there.mac) if there else known
        document = {
            "name": hello.name, "address": known[0], "mac": known[1], "device": pair.segment, "role": hello.role,
            "term": hello.term, "ground": hello.ground, "moving": hello.moving, "release": hello.release,
            "hold": hello.hold, "leaving": hello.leaving, "boost": hello.boost, "able": hello.able,
            "outer": hello.outer, "two_masters_since": self._two.since,
            "differs": _named(pair, heard, self._differences.lasting(now)),
            "unheard": self._unheard(pair, heard, now),
        }  # fmt: skip
        before, at = self._written
        if document == before and heard.heard - at < WRITE_S:
            return False
        text = msgspec.json.encode(
            {
                "heard": heard.heard,
                **document,
                "flows": hello.flows,
                "synced_s": hello.synced_s,
            }
        ).decode()
        try:
            pairing.leave(self.root, pairing.PEER, text)
        except OSError as error:
            alerts.note(f"{pairing.PEER} cannot be written: {error}", urgent=True)
            return False
        self._written = (document, heard.heard)
        changed, self._known = known != self._known, known
        return changed

    def _unheard(self, pair: Pair, heard: Peer, now: float) -> tuple[str, ...]:
        """Networks that both are on, and by which the peer is not heard."""
        networks = [face.network for face in pair.faces if heard.hello.nics and face.network in heard.hello.nics]
        self.faces = {network: self.faces.get(network, now) for network in networks}
        return tuple(network for network, at in self.faces.items() if now - at > DEAF_S)

    def over(self) -> None:
        """There is no pair: nothing that was about one stays."""
        self.announcements = verdict.Announcements()
        self._known, self._written = ("", ""), ({}, -inf)
        for name in ("boost", "fault"):
            if pairing.tracked(self.root, name):
                self._track(name, 0)
        with suppress(OSError):
            (self.root / pairing.PEER).unlink(missing_ok=True)


def _named(pair: Pair, heard: Peer, names: Iterable[str]) -> tuple[str, ...]:
    """What differs, with the keys within it where both have told them; what one of the two has not, has no keys."""
    key, digests, keys = bytes.fromhex(pair.key), heard.hello.digests or {}, heard.hello.keys or {}
    return tuple(
        apart.named(
            key,
            name,
            pair.keys.get(name) if name in pair.digests else {},
            keys.get(name) if name in digests else {},
        )
        for name in names
    )


def leaving(own: Own, now: float) -> bool:
    """Whether this router is handing over."""
    return bool(own.leaving_since) and 0 <= now - own.leaving_since < verdict.LEAVE_S
