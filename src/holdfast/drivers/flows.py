"""The kernel's memory of connections: a network that is taken away must not leave any behind."""

import re
from collections.abc import Callable, Iterable, Iterator, Sequence

import msgspec

from holdfast.addresses import inside
from holdfast.converge import Failure
from holdfast.marks import Marks
from holdfast.run import CommandFailed
from holdfast.run import run as run_program
from holdfast.state import Change, Flows, Resource, State

_MARK = "flows"
_SOURCE = re.compile(r"\bsrc=([0-9.]+) ")
_NONE = "0 flow entries have been deleted"


class Connections:
    """Notes which networks are configured; when one goes, its connections go with it (conntrack(8))."""

    kinds: tuple[type[Resource], ...] = (Flows,)

    def __init__(self, marks: Marks, run: Callable[..., str] = run_program) -> None:
        self.marks = marks
        self.run = run

    def observe(self, desired: State) -> Iterator[Flows]:  # noqa: ARG002 the note is all there is
        """Networks that were configured so far.  A reboot forgets them, and the connections too."""
        for network in self._noted():
            yield Flows(network)

    def check(self, changes: Sequence[Change]) -> Iterable[Failure]:  # noqa: ARG002 nothing can be told before
        """Nothing to ask."""
        return ()

    def apply(self, changes: Sequence[Change]) -> Iterator[Failure]:
        """Delete connections from and to the networks that go, then note."""
        noted = set(self._noted())
        for change in changes:
            resource = change.resource
            if isinstance(resource, Flows) and change.after is None:
                try:
                    self._forget(resource.network)
                except OSError as error:
                    yield Failure(change.key, str(error))
                    continue
                noted.discard(resource.network)
            elif isinstance(resource, Flows):
                noted.add(resource.network)
        self.marks.write(_MARK, msgspec.json.encode(sorted(noted)))

    def _noted(self) -> list[str]:
        try:
            return msgspec.json.decode(self.marks.read(_MARK) or b"[]", type=list[str])
        except msgspec.DecodeError:
            return []

    def _forget(self, network: str) -> None:
        for side in ("--orig-src", "--orig-dst"):
            self._delete(side, network)
        # What came by a public address has its VM in the reply alone, and there conntrack(8) takes no network.
        translated = self.run(["conntrack", "-L", "--dst-nat"]).splitlines()
        answering = {sources[1] for line in translated if len(sources := _SOURCE.findall(line)) > 1}
        for address in sorted(answering):
            if inside(address, [network]):
                self._delete("--reply-src", address)

    def _delete(self, side: str, network: str) -> None:
        try:
            self.run(["conntrack", "-D", side, network])
        except CommandFailed as error:
            if _NONE not in str(error):
                raise
