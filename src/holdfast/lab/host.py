"""A host of the lab, and the sentences that can be said about it: what it reaches and what it is refused."""

import itertools
import json
import re
import selectors
import socket
import subprocess
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from holdfast.lab.inside import __file__ as inside_file
from holdfast.lab.ledger import Ledger
from holdfast.lab.network import Port, Segment, Switch, batch, make_namespace
from holdfast.lab.process import Process, Result, finish, look_up, start_piped
from holdfast.lab.sentence import LabError, NotSo, eventually

START_S = 20.0
REFUSED_S = 0.5
_SPARE_S = 30.0
_SAID = re.compile(r"(?P<name>\S+) (?P<address>[0-9.]+):(?P<port>\d+)\s*")


class Reply(NamedTuple):
    """What a server answered: its name, and the address and port from which it saw the question come."""

    name: str
    address: str
    port: int
    text: str


class Place(NamedTuple):
    """What hosts share: records, switch, prefix of names, and `background`, which a failed sentence ends with."""

    ledger: Ledger
    switch: Switch
    prefix: str
    stay: bool
    background: Callable[[], str]

    def wait(self, check: Callable[[], object], sentence: str, timeout_s: float) -> None:
        """Wait until something is so; NotSo with the background otherwise."""
        try:
            eventually(check, sentence, timeout_s)
        except NotSo as error:
            raise NotSo(f"{error}{self.background()}") from error


class Host:
    """A network namespace with a resident helper in it."""

    def __init__(self, place: Place, name: str) -> None:
        self.place, self.name = place, name
        self.namespace = make_namespace(place.ledger, f"{place.prefix}-{name}")
        self.ports: dict[str, Port] = {}
        self.addresses: list[str] = []
        self._macs = itertools.count(1)
        self._home = place.ledger.directory / name
        self._home.mkdir()
        self._door = self._home / "door"
        self._starter = self._start()
        self._process: Process | None = None

    def _start(self) -> subprocess.Popen[bytes]:
        source = str(Path(inside_file).parents[2])
        program = f"import sys; sys.path.insert(0, {source!r}); from holdfast.lab.inside import main; main()"
        life = "stay" if self.place.stay else "go"
        argv = ["nsenter", f"--net=/run/netns/{self.namespace}", "unshare", "--mount", "--uts", "--pid", "--fork"]
        argv += [
            "--kill-child",
            "--propagation",
            "private",
            "--mount-proc",
            "/usr/bin/python3",
            "-I",
            "-S",
            "-c",
            program,
        ]
        with (self._home / "errors").open("wb") as errors:
            starter = start_piped([*argv, self.name, str(self._home), str(self._door), life], errors)
        self.place.ledger.process(starter.pid, f"helper of {self.name}")
        return starter

    @property
    def process(self) -> Process:
        """The helper, once it is ready; its namespaces are the host's.  LabError if it did not start."""
        if self._process is None:
            said = self._starter.stdout
            assert said is not None  # noqa: S101 started with pipes
            with selectors.DefaultSelector() as waiting:  # select() itself knows no descriptor above 1023
                waiting.register(said, selectors.EVENT_READ)
                came = waiting.select(START_S)
            if not came or said.readline() != b"ready\n":
                raise LabError(f"{self.name} did not start: {(self._home / 'errors').read_text()}")
            with socket.socket(socket.AF_UNIX) as door:
                door.connect(str(self._door))
                credentials = door.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, 12)
            found = look_up(int.from_bytes(credentials[:4], "little"))
            if found is None:
                raise LabError(f"{self.name}'s helper ended at once")
            self.place.ledger.note("host", name=self.name, pid=found.pid, start=found.start)
            self._process = found
        return self._process

    def ask(self, action: str, **request: Any) -> Any:
        """Let the helper do something and return its answer; OSError with its reason if it could not."""
        assert self.process  # noqa: S101 waits until it is ready
        with socket.socket(socket.AF_UNIX) as door:
            door.settimeout(request.get("timeout_s", 0) + _SPARE_S)
            door.connect(str(self._door))
            door.sendall(json.dumps({"do": action, **request}).encode() + b"\n")
            with door.makefile("rb") as lines:
                line = lines.readline()
        if not line:
            raise LabError(f"{self.name}'s helper broke: {(self._home / 'errors').read_text()[-2000:]}")
        answer = json.loads(line)
        if "failed" in answer:
            raise OSError(answer["failed"])
        return answer["value"]

    def so(self, sentence: str, action: str, **request: Any) -> Any:
        """Let the helper do something that must work; NotSo otherwise, `<name> could not <sentence>: …`."""
        try:
            return self.ask(action, **request)
        except OSError as error:
            raise NotSo(f"{self.name} could not {sentence}: {error}{self.place.background()}") from error

    def not_so(self, sentence: str, action: str, **request: Any) -> None:
        """Let the helper try something that must not work; NotSo if it does."""
        try:
            answer = self.ask(action, **request)
        except OSError:
            return
        raise NotSo(f"{self.name} could {sentence}, and should not: {answer!r}{self.place.background()}")

    def plug(self, segment: Segment, mac: str, nic: str = "") -> str:
        """Give it a nic on a segment, up; return its name."""
        nic = nic or f"eth{next(n for n in itertools.count() if f'eth{n}' not in self.ports)}"
        self.ports[nic] = self.place.switch.connect(segment, self.namespace, nic, mac, up=True)
        return nic

    def unplug(self, nic: str) -> None:
        """Take a nic away."""
        self.place.switch.disconnect([self.ports.pop(nic)])

    def address(self, nic: str, interface: str) -> None:
        """Give a nic an address, as `10.0.0.5/24`."""
        batch(self.namespace, [f"address replace {interface} dev {nic}"])
        self.addresses.append(interface.partition("/")[0])

    def route(self, destination: str, via: str) -> None:
        """Set a route, as `default` or a network, by a gateway."""
        batch(self.namespace, [f"route replace {destination} via {via}"])

    def where(self, target: "Host | str") -> str:
        """Return the address that a target means."""
        if isinstance(target, str):
            return target
        if not target.addresses:
            raise LabError(f"{target.name} has no address yet: gets_lease() or address() first")
        return target.addresses[0]

    def serve(self, port: int, proto: str = "tcp") -> None:
        """Answer on every address at a port: `<name> <peer address>:<peer port>`, or a page that says so."""
        self.so(f"listen at {proto} port {port}", "serve", port=port, proto=proto)

    def can_fetch(  # noqa: PLR0913 a sentence with its adverbs
        self,
        target: "Host | str",
        port: int = 80,
        *,
        path: str = "/",
        source: str = "",
        headers: Mapping[str, str] | None = None,
        timeout_s: float = 5,
    ) -> Reply:
        """Get a page over HTTP, trying again until it works."""
        address = self.where(target)
        request = {"address": address, "port": port, "path": path, "source": source, "timeout_s": timeout_s}
        request["headers"] = dict(headers or {})
        return _reply(self.so(f"fetch http://{address}:{port}{path}", "fetch", **request))

    def reaches(  # noqa: PLR0913 a sentence with its adverbs
        self,
        target: "Host | str",
        port: int,
        proto: str = "tcp",
        *,
        source: str = "",
        source_port: int = 0,
        timeout_s: float = 5,
    ) -> Reply:
        """Get an answer from a port, trying again until it works."""
        asked = {"address": self.where(target), "port": port, "proto": proto, "source": source}
        asked |= {"source_port": source_port, "timeout_s": timeout_s}
        sentence = f"reach {asked['address']} at {proto} port {port}"
        return _reply(self.so(sentence, "reach", once=False, **asked))

    def cannot_reach(  # noqa: PLR0913 a sentence with its adverbs
        self,
        target: "Host | str",
        port: int,
        proto: str = "tcp",
        *,
        on: "Host | None" = None,
        source: str = "",
        timeout_s: float = REFUSED_S,
    ) -> None:
        """Be refused at a port, or hear nothing.  The target, or `on`, is made to listen first."""
        listener = on or (target if isinstance(target, Host) else None)
        if listener is not None:
            listener.serve(port, proto)
        asked = {"address": self.where(target), "port": port, "proto": proto, "source": source, "source_port": 0}
        self.not_so(
            f"reach {asked['address']} at {proto} port {port}", "reach", timeout_s=timeout_s, once=True, **asked
        )

    def pings(self, target: "Host | str", *, timeout_s: float = 5) -> None:
        """Get an echo."""
        address = self.where(target)
        self.so(f"ping {address}", "ping", address=address, timeout_s=timeout_s, once=False)

    def cannot_ping(self, target: "Host | str", *, timeout_s: float = REFUSED_S) -> None:
        """Get no echo."""
        address = self.where(target)
        self.not_so(f"ping {address}", "ping", address=address, timeout_s=timeout_s, once=True)

    def resolves(self, name: str, *, server: str = "", kind: str = "A", timeout_s: float = 5) -> tuple[str, ...]:
        """Get addresses (`A`, `AAAA`) or names (`PTR`) for a name."""
        request = {"name": name, "kind": kind, "server": server, "timeout_s": timeout_s, "once": False}
        return tuple(self.so(f"resolve {name} ({kind})", "resolve", **request))

    def cannot_resolve(self, name: str, *, server: str = "", kind: str = "A") -> None:
        """Get no answer for a name, or one that says there is none."""
        request = {"name": name, "kind": kind, "server": server, "timeout_s": REFUSED_S, "once": True}
        self.not_so(f"resolve {name} ({kind})", "resolve", **request)

    def connects(
        self, target: "Host | str", port: int, proto: str = "tcp", *, source: str = "", timeout_s: float = 5
    ) -> "Connection":
        """Open a connection that stays open."""
        asked = {"address": self.where(target), "port": port, "proto": proto, "source": source, "timeout_s": timeout_s}
        number, text = self.so(f"connect to {asked['address']} at {proto} port {port}", "connect", **asked)
        return Connection(self, number, f"{proto} {asked['address']}:{port}", _reply(text))

    def reap(self) -> None:
        """Take note that the helper has ended; the lab ends it."""
        self._starter.communicate(timeout=_SPARE_S)

    def run(self, argv: Sequence[str], *, timeout_s: float = 60) -> Result:
        """Run any program inside, to its end."""
        inside = ["nsenter", f"--target={self.process.pid}", "--net", "--mount", "--uts", "--pid", "--"]
        return finish([*inside, *argv], timeout_s=timeout_s)


class Connection:
    """A connection of a host that stays open; `reply` is its first answer."""

    def __init__(self, host: Host, number: int, what: str, reply: Reply) -> None:
        self.host, self.number, self.what, self.reply = host, number, what, reply

    def works(self, timeout_s: float = 3) -> None:
        """It is still answered."""
        try:
            self.host.ask("check", number=self.number, timeout_s=timeout_s)
        except OSError as error:
            text = f"{self.host.name}'s connection {self.what} does not work any more: {error}"
            raise NotSo(text + self.host.place.background()) from error

    def is_cut(self, timeout_s: float = REFUSED_S) -> None:
        """It is not answered any more."""
        try:
            answer = self.host.ask("check", number=self.number, timeout_s=timeout_s)
        except OSError:
            return
        text = f"{self.host.name}'s connection {self.what} still works, and should not: {answer!r}"
        raise NotSo(text + self.host.place.background())

    def close(self) -> None:
        """Close it."""
        self.host.ask("close", number=self.number)


def _reply(text: str) -> Reply:
    said = _SAID.fullmatch(text)
    return Reply(said["name"], said["address"], int(said["port"]), text) if said else Reply("", "", 0, text)
