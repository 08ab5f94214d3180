"""The ear for the peer: hears what the other router of a pair says, says what this one is, and notes what follows."""

import os
import socket
from collections.abc import Iterable, Iterator
from pathlib import Path

from msgspec.structs import replace

from holdfast import alerts, apart, pair_files, pairing, peer, verdict
from holdfast.acknowledgements import in_networks
from holdfast.announce import announce
from holdfast.ears import Wish
from holdfast.ears.acknowledged import Passwords
from holdfast.ears.decisions import Decisions, leaving
from holdfast.ears.faces import Faces
from holdfast.ears.neighbours import Neighbours
from holdfast.ears.outer import Gateways, links
from holdfast.pair_files import Own, Watched
from holdfast.peer import Hello, Here, Kind, Pair, Talk

IDLE_S, BOOT_S = 5.0, 60.0
"""How often a router without a pair looks whether it has one; for how long it looks as often as it would speak.

A boot's first run leaves the pair before it starts keepalived: what serves on other ground is to be heard by then.
"""
ANSWER_S = 0.05
"""The shortest time between two hellos that nothing but a greeting called for."""
_ACKS, _FEWER, _FEWEST = 32, 3, 8  # fewer for each network that is spoken of: a hello fits into one packet
_THIRD_S = 60.0


class PeerEar:
    """Everything that a router hears of its peer, and what it does by itself about it.  Never raises."""

    def __init__(self, root: Path, now: float) -> None:
        self.root = root
        self.pair: Pair | None = None
        self.key = b""
        self.talk = Talk(os.urandom(8).hex())
        self.faces = Faces()
        self.gateways = Gateways()
        self.passwords = Passwords(root)
        self.decided = Decisions(root, now)
        self._asked = socket.socket(socket.AF_INET, socket.SOCK_DGRAM | socket.SOCK_CLOEXEC)
        self.neighbours = Neighbours(root, self._asked)
        self._file = Watched(root / pairing.PAIR)
        self._last: bytes = b""  # the same hello comes in by every face
        self._said = Hello()
        self._spoke, self._began = 0.0, now
        self._third = now - _THIRD_S
        self._greeted = False

    def fileno(self) -> int:
        """Return the descriptor that is readable when any face has heard something."""
        return self.faces.fileno()

    def ready(self, now: float) -> Iterable[Wish]:
        """Hear what waits; what is new is acted on at once."""
        new = [self._hear(network, data, now) for network, data in self.faces.heard()]
        return [*self._act(now)] if any(new) else ()

    def tick(self, now: float) -> Iterable[Wish]:
        """Look at files, devices and links anew, and speak where it is time to or something has changed."""
        return [*self._act(now)]

    def due(self) -> float:
        """Return when it has to speak, or to look, next."""
        if self.pair is None:
            return self._spoke + (peer.INTERVAL_S if self._spoke - self._began < BOOT_S else IDLE_S)
        return min(self._spoke + peer.INTERVAL_S, self.decided.due(), self.gateways.due(), self.passwords.due())

    def close(self) -> None:
        """Stop listening."""
        self.faces.close()
        self.gateways.close()
        self._asked.close()

    def _hear(self, network: str, data: bytes, now: float) -> bool:
        """Whether there is something new in it."""
        if data == self._last:
            self.decided.faces[network] = now
            return False
        hello = peer.decode(self.key, data) if self.pair else None
        if hello is None:
            return False
        known = self.talk.heard(now)
        kind = self.talk.hear(hello, now)
        if kind is Kind.GREETING or (kind is Kind.FRESH and known is None):
            self._greeted = True  # it waits for an answer, and has yet to hear all of this router
        if kind is Kind.FRESH:
            self._last = data
            self.decided.faces[network] = now
            assert self.pair  # noqa: S101 without one no hello is understood
            self.passwords.hear(in_networks(hello.taken, self.pair.faces), self.pair.passwords)
        elif kind is Kind.THIRD and now - self._third >= _THIRD_S:
            self._third = now
            alerts.alert(self.root, [f"a third router, {hello.name}, speaks with this pair's secret"])
        return kind in (Kind.FRESH, Kind.GREETING)

    def _act(self, now: float) -> Iterator[Wish]:
        own = pair_files.own(self.root)
        # After what a run has left: who sees that it has ended sees what it made of the pair.
        if self._file.changed():
            self.pair = pair_files.pair(self.root)
            self.key = bytes.fromhex(self.pair.key) if self.pair else b""
        self.faces.keep(self.pair.faces if self.pair else ())
        if self.pair is None:
            self._spoke = now
            self.gateways.keep(None, serving=False)
            self.neighbours.over()
            self.decided.over()
            return
        heard = self.talk.heard(now)
        serving = own.role == verdict.MASTER
        self.gateways.keep(self.pair, serving=serving)
        self.neighbours.keep(self.pair, heard, now, serving=serving)
        outer = links(self._asked, self.pair.outer, len(self.pair.missing))._replace(gateway=self.gateways.step(now))
        own = self.decided.write(own, self.pair, heard, now, outer)
        self._speak(own, self.pair, outer, now)
        yield from self.decided.tell(own, self.pair, heard, now)
        yield from self.passwords.keep(now, self.pair.passwords)
        if self.decided.announcements.step(own.role, heard, now):
            for device, addresses in self.pair.announce:
                announce(device, addresses)

    def _speak(self, own: Own, pair: Pair, outer: verdict.Links, now: float) -> None:
        nics = {network: Here(*here) for network, here in self.faces.here().items()}
        said = Hello(
            name=pair.name, role=own.role, said=own.said, term=own.term, ground=pair.ground, moving=own.moving,
            release=own.release, hold=own.hold, leaving=leaving(own, now), boost=own.boost != 0,
            able=self.decided.able(own, now), outer=outer.carrying, digests=pair.digests, nics=nics,
        )  # fmt: skip
        news, answers = said != self._said, self._greeted and now - self._spoke >= ANSWER_S
        if not news and not answers and now - self._spoke < peer.INTERVAL_S:
            return
        self._said, self._spoke, self._greeted = said, now, False
        turn = (self.talk.n + 1) % 4
        full = news or answers
        beside = full or turn in (1, 3)
        hello = replace(
            said,
            digests=pair.digests if full or turn == 1 else None,
            keys=apart.told(self.key, pair.keys, self.decided.differ) if full or turn == 1 else None,
            nics=nics if full or turn == 3 else None,  # noqa: PLR2004 the other odd one
            neighbours=self.neighbours.found if full or turn == 3 else None,  # noqa: PLR2004 the same
            flows=pair_files.flows(),
            synced_s=pair_files.synced_s(self.root),
            taken=self.passwords.next(max(_FEWEST, _ACKS - _FEWER * len(nics)) if beside else _ACKS),
        )
        self.faces.say(peer.encode(self.key, self.talk.say(hello, now)))
