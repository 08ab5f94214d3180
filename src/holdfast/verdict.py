"""What follows from what the two routers of a pair say: decisions alone, with the time handed in.  Pure.

Roles are keepalived's words.  Times are the monotonic clock's, in seconds.  Nothing here elects anybody: keepalived
does, from the numbers that are decided on here.
"""

from collections.abc import Mapping
from math import inf
from typing import NamedTuple

from holdfast.peer import HIGHEST_TERM, Peer

MASTER, BACKUP = "MASTER", "BACKUP"
LEAVE_S = 5.0
"""How long a wish to hand over lives; who died over it is no longer leaving."""
TWO_MASTERS_S = 0.5
"""How long two may say that they serve before it is worth a word: at every promotion they do for a moment."""
DIFFERS_S = 3.0
"""How long they may know different things: a command reaches them at different moments."""
DIVERGED_S = 30.0
"""When a difference is worth an alert."""
LOST_S, NEVER_SEEN_S = 0.05, 3.0
"""How long an outer link may be without carrier: where it had one in this role, and where it is still coming up; and
how long it may be down, or its nic gone: another hand may be at it."""
LATE_S = 20.0
"""How long a nic that has not been there may keep this router waiting: longer than its command waits for it, since the
peer may not have been told yet."""
YIELD_S = 3.0
"""How long the peer has to take over before a router that yielded serves on."""
STUCK_S = 3.0
"""How long what guests need may not be as wanted on the router that serves: the next run may mend it."""
UNABLE_S, LONGEST_UNABLE_S = 60.0, 3600.0
"""How long a router that yielded is no help; doubled each time, for where the fault is on both sides."""
ANNOUNCE_S = (0.0, 0.3, 0.9)
HANGS_S, BESIDE_SILENT_S = 120.0, 0.8
"""For how long after a promotion a silent peer may merely hang, and how often it is announced meanwhile: its kernel has
the addresses, answers for them, and may be heard of only when all of it goes on."""


def normal_term(role: str, term: int, peer_term: int, heard: Peer | None) -> int:
    """Return what this router's term should be, given its own and the last that it knows of its peer.

    Terms come down by agreement alone: the peer has to have said its part in the knowledge of ours.
    `heard`: the peer, None where nothing fresh was heard.
    """
    if role == MASTER and term == 0 and (heard is None or heard.hello.role != MASTER):
        return raised(term, peer_term)  # it serves and has not been counted, as where the file was lost
    if heard is None or (heard.answered.role, heard.answered.term) != (role, term):
        return term
    if role == BACKUP and heard.hello.role == MASTER:
        return 0
    if role == MASTER and heard.hello.role == BACKUP and heard.hello.term == 0:
        return 1
    return term


def raised(term: int, peer_term: int) -> int:
    """The term of a router that is promoted."""
    return min(HIGHEST_TERM, max(term, peer_term) + 1)


def boosted(role: str, heard: Peer | None, *, able: bool, hold: bool) -> bool:
    """Whether this router is to be ready to take over within milliseconds: its peer has asked for it."""
    return able and not hold and role in (BACKUP, MASTER) and heard is not None and heard.hello.leaving


class Links(NamedTuple):
    """The outer links: how many are up and carry, and how many are up and do not.

    `down`: how many are not up, as all of a backup are on purpose; `missing`: how many nics are wanted and absent.
    `gateway`: whether the gateways behind them speak; None where nobody asks them, or none has spoken yet.
    """

    carrying: int
    lost: int
    gateway: bool | None = None
    down: int = 0
    missing: int = 0

    @property
    def sound(self) -> bool:
        """Whether there are any, and all of them carry."""
        return self.carrying > 0 and not (self.lost or self.down or self.missing)


class Outage:
    """How long this router has served with an outer link that does not carry, is down, or is not there."""

    def __init__(self) -> None:
        self._seen = False
        self._there = 0
        self._dark = inf
        self._gone = inf
        self._late = inf
        self._told = False

    def step(self, role: str, links: Links, now: float) -> bool:
        """Whether it is one by now."""
        serves = role == MASTER
        there = links.carrying + links.lost + links.down
        self._there = max(there, self._there if links.missing else 0) if serves else 0
        gone = links.down > 0 or there < self._there
        self._seen = serves and (self._seen or (links.carrying > 0 and not links.lost))
        self._dark = min(self._dark, now) if serves and links.lost else inf
        self._gone = min(self._gone, now) if serves and gone else inf
        self._late = min(self._late, now) if serves and links.missing else inf
        self._told = now >= self._until()
        return self._told

    def _until(self) -> float:
        dark_s = LOST_S if self._seen else NEVER_SEEN_S
        return min(self._dark + dark_s, self._gone + NEVER_SEEN_S, self._late + LATE_S)

    def due(self) -> float:
        """When it will be one; infinity where it is one already, or nothing is wrong."""
        return inf if self._told else self._until()


class Stuck:
    """For how long what guests need has not been as wanted on the router that serves, and for how long it has."""

    def __init__(self) -> None:
        self._state: bool | None = None
        self._since = 0.0

    def step(self, role: str, now: float, *, unable: bool) -> tuple[bool, bool]:
        """Whether that is reason to yield; whether it has served well for long.  `unable`: as its last run left it."""
        state = unable if role == MASTER else None
        if state is not self._state:
            self._state, self._since = state, now
        lasted = now - self._since
        return state is True and lasted >= STUCK_S, state is False and lasted >= UNABLE_S


class Yielding:
    """Giving way to a peer that is better off.  `able`: whether this router would be a help to its peer."""

    def __init__(self) -> None:
        self._since = 0.0
        self._unable_until = 0.0
        self._pause_s = UNABLE_S

    @property
    def active(self) -> bool:
        """Whether it gives way now."""
        return self._since > 0

    def step(self, role: str, heard: Peer | None, now: float, *, broken: bool, sound: bool) -> bool:
        """Whether it is to be in fault.  `broken`: it serves badly; `sound`: it has seen that it could serve well."""
        if self._since:
            if heard is None or heard.hello.role == MASTER or now - self._since > YIELD_S:
                self._since = 0.0
            return self.active
        if sound and not broken:
            self._unable_until, self._pause_s = 0.0, UNABLE_S
        helpful = heard is not None and heard.hello.role == BACKUP and heard.hello.able and not heard.hello.hold
        if role == MASTER and broken and helpful and now >= self._unable_until:
            self._since, self._unable_until = now, now + self._pause_s
            self._pause_s = min(self._pause_s * 2, LONGEST_UNABLE_S)
        return self.active

    def able(self, now: float) -> bool:
        """Whether it could serve, as far as its outer links tell."""
        return now >= self._unable_until


class TwoMasters:
    """Both say that they serve."""

    def __init__(self) -> None:
        self.since = 0.0
        self._said = False

    def step(self, role: str, heard: Peer | None, now: float) -> str:
        """What is worth saying, once when it begins and once when it ends; else empty."""
        if role == MASTER and heard and heard.hello.role == MASTER:
            self.since = self.since or now
            if not self._said and now - self.since >= TWO_MASTERS_S:
                self._said = True
                return f"two masters: this router and {heard.hello.name} both serve"
            return ""
        lasted, self.since = now - self.since, 0.0
        if not self._said:
            return ""
        self._said = False
        why = f"{heard.hello.name} is {heard.hello.role}" if heard else "the other is not heard any more"
        return f"two masters no longer, after {lasted:.1f} s: this router is {role or 'in no role'}, {why}"

    def due(self) -> float:
        """When it will be worth a word."""
        return self.since + TWO_MASTERS_S if self.since and not self._said else inf


class Differences:
    """What the two know differently, and for how long."""

    def __init__(self) -> None:
        self._since: dict[str, float] = {}
        self._said: set[str] = set()

    def step(
        self, own: Mapping[str, str], told: Mapping[str, str] | None, now: float, *, heard: bool
    ) -> tuple[list[str], list[str]]:
        """What is worth an alert, and what is good news.  Both are digests by name; None: the peer has not said yet."""
        if told is None or not heard:
            self._since = self._since if heard else {}  # nothing is known of a silent peer, so nothing has ended either
            return [], []
        names = {name for name in own.keys() | told.keys() if own.get(name) != told.get(name)}
        self._since = {name: self._since.get(name, now) for name in sorted(names)}
        new = [n for n, since in self._since.items() if now - since >= DIVERGED_S and n not in self._said]
        over = sorted(self._said - names)
        self._said = self._said & names | {*new}
        return new, over

    @property
    def names(self) -> tuple[str, ...]:
        """The names of what differs now."""
        return tuple(self._since)

    def lasting(self, now: float) -> tuple[str, ...]:
        """The names of what differs for longer than a command takes."""
        return tuple(name for name, since in self._since.items() if now - since > DIFFERS_S)


class Presence:
    """Whether the peer is heard."""

    def __init__(self) -> None:
        self._name = ""

    def step(self, heard: Peer | None) -> tuple[str, str]:
        """(Alert, note): what is worth saying, empty for nothing."""
        if heard is None:
            gone, self._name = self._name, ""
            return (f"the peer {gone} is not heard any more" if gone else ""), ""
        if heard.hello.name == self._name:
            return "", ""
        self._name = heard.hello.name
        return "", f"the peer {self._name} is heard: {heard.hello.role or 'in no role yet'}"


class Announcements:
    """When the serving router tells its neighbours again where its addresses live."""

    def __init__(self) -> None:
        self._times: list[float] = []
        self._role = ""
        self._peer = ("", 0)
        self._since = 0.0

    def step(self, role: str, heard: Peer | None, now: float) -> bool:
        """Whether it is to announce them now."""
        before, self._role = self._role, role
        was, self._peer = self._peer, (heard.hello.role, heard.hello.outer) if heard else ("", 0)
        if role != MASTER:
            self._times = []
            return False
        moved = before != MASTER
        # Whoever it was that spoke in the peer's name may have turned the neighbours' heads.
        left = was[0] == MASTER and self._peer[0] != MASTER
        back = not was[0] and bool(self._peer[0])
        if moved or left or back or self._peer[1] < was[1]:
            self._times = [now + delay for delay in ANNOUNCE_S]
        self._since = now if moved else self._since
        due = bool(self._times) and self._times[0] <= now
        self._times = [at for at in self._times if at > now]
        if not self._times and heard is None and now - self._since < HANGS_S:
            self._times = [now + BESIDE_SILENT_S]
        return due

    def due(self) -> float:
        """When the next one is."""
        return self._times[0] if self._times else inf
