"""Connections of charon: each loaded, replaced and taken back by itself, so that no other one notices."""

from collections.abc import Iterable, Iterator, Sequence
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING

import msgspec
from msgspec import Struct

from holdfast import swanctl
from holdfast.converge import Failure
from holdfast.marks import Marks
from holdfast.state import Change, Key, Resource, State, Unit
from holdfast.swanctl import Connection

if TYPE_CHECKING:
    from holdfast.vici import Value, Vici

_MARK = "vpn"
_UNSURE = "?"
"""Noted of a connection while it is being changed: who dies meanwhile leaves word that nobody knows its text."""
_END_MS = "2000"
"""How long a tunnel's end may wait for the peer to hear of it."""


class Note(Struct, frozen=True):
    """The mark: what the present run of charon, by invocation id, was told: digests by name."""

    daemon: str = ""
    told: dict[str, str] = {}


class Tunnels:
    """Tells charon of connections over its socket.  Texts come from the files that it also reads when it starts."""

    kinds: tuple[type[Resource], ...] = (Connection,)

    def __init__(self, marks: Marks, root: Path = Path("/")) -> None:
        self.marks = marks
        self.root = root

    def observe(self, desired: State) -> Iterator[Connection]:
        """Connections of ours that charon has, each with the digest that it was told; empty for one that it has read by
        itself.  A charon that is to end takes its connections along, and tells the peers.
        """
        unit = desired.get(("Unit", swanctl.UNIT))
        if not (isinstance(unit, Unit) and unit.running and self._daemon()):
            return
        told = self._told()
        names, keys = self._names()
        for name in sorted(names):
            yield Connection(name, told.get(name, ""), swanctl.path_of(name))
        for name in sorted(keys - names):
            # What a kill amid its end has left: of one that is wanted the connection is missing, and that is told anew.
            if ("Connection", name) not in desired:
                yield Connection(name, _UNSURE, swanctl.path_of(name))

    def check(self, changes: Sequence[Change]) -> Iterable[Failure]:  # noqa: ARG002 charon tells when it is told
        """Nothing to ask."""
        return ()

    def apply(self, changes: Sequence[Change]) -> Iterator[Failure]:
        """Tell charon of one after the other, and note."""
        from holdfast.vici import Refused, Vici  # noqa: PLC0415 only a router with a VPN pays for it

        told = self._told() | {change.key[1]: _UNSURE for change in changes}
        self._note(told)
        failed: dict[Key, str] = {}
        try:
            with Vici(self.root) as vici:
                for change in changes:
                    try:
                        self._carry_out(vici, change)
                    except (Refused, ValueError) as error:
                        failed[change.key] = str(error)
                    else:
                        told[change.key[1]] = change.after.digest if isinstance(change.after, Connection) else ""
        except OSError as error:
            unasked = (change.key for change in changes if told[change.key[1]] == _UNSURE)
            failed = dict.fromkeys(unasked, str(error)) | failed
        self._note({name: digest for name, digest in told.items() if digest})
        for key, reason in failed.items():
            yield Failure(key, f"charon: {reason}")

    def _carry_out(self, vici: "Vici", change: Change) -> None:
        before, after = change.before, change.after
        # One that charon has read by itself is most likely this very text: told again, it goes on undisturbed.
        if after is None or (isinstance(before, Connection) and before.digest):
            _end(vici, change.key[1])
        if isinstance(after, Connection):
            self._load(vici, after)

    def _load(self, vici: "Vici", wanted: Connection) -> None:
        """The keys first: a connection that begins at once needs them.  What charon has already stays undisturbed."""
        path = self.root / wanted.path.lstrip("/")
        held = swanctl.parse(path.read_text())
        secrets, connections = held["secrets"], held["connections"]
        assert isinstance(secrets, dict)  # noqa: S101 as swanctl.py writes them
        assert isinstance(connections, dict)  # noqa: S101 as swanctl.py writes them
        for identity, secret in secrets.items():
            assert isinstance(secret, dict)  # noqa: S101 as swanctl.py writes them
            data, owners = swanctl.shared(secret)
            vici.ask("load-shared", {"id": identity, "type": "IKE", "data": data, "owners": owners})
        vici.ask("load-conn", {wanted.name: _spoken(connections[wanted.name])})

    def _names(self) -> tuple[set[str], set[str]]:
        """Which connections of ours charon has, and of which it has the key."""
        from holdfast.vici import Vici  # noqa: PLC0415 only a router with a VPN pays for it

        try:
            with Vici(self.root) as vici:
                names = {str(name) for name in vici.ask("get-conns").get("conns", ())}
                keys = {str(key).removeprefix(swanctl.KEY) for key in vici.ask("get-shared").get("keys", ())}
        except OSError:
            return set(), set()  # `apply` says why
        return {*filter(swanctl.is_ours, names)}, {*filter(swanctl.is_ours, keys)}

    def _daemon(self) -> str:
        """Invocation id of the running unit, empty if it does not run: the link that systemd keeps for its journal."""
        try:
            return str((self.root / "run/systemd/units" / f"invocation:{swanctl.UNIT}").readlink())
        except OSError:
            return ""

    def _told(self) -> dict[str, str]:
        """What the present run was told, as noted."""
        try:
            note = msgspec.json.decode(self.marks.read(_MARK) or b"{}", type=Note)
        except msgspec.DecodeError:
            return {}
        return dict(note.told) if note.daemon == self._daemon() else {}

    def _note(self, told: dict[str, str]) -> None:
        self.marks.write(_MARK, msgspec.json.encode(Note(self._daemon(), told)))


def _end(vici: "Vici", name: str) -> None:
    """Take a connection back, with its keys and whatever of it is up."""
    from holdfast.vici import Refused  # noqa: PLC0415 only a router with a VPN pays for it

    asked: tuple[tuple[str, dict[str, Value]], ...] = (
        ("unload-conn", {"name": name}),
        ("unload-shared", {"id": f"{swanctl.KEY}{name}"}),
        ("terminate", {"ike": name, "force": "yes", "timeout": _END_MS, "loglevel": "-1"}),
    )
    for request, message in asked:
        with suppress(Refused):  # it was not there, or nothing of it was up
            vici.ask(request, message)


def _spoken(settings: "str | swanctl.Section") -> "Value":
    """Settings as charon's socket takes them: what is several is a list there."""
    if isinstance(settings, str):
        return settings
    return {
        name: value.split(",") if isinstance(value, str) and name in swanctl.LISTS else _spoken(value)
        for name, value in settings.items()
    }
