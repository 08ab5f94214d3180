"""A router of the lab: a machine with systemd and nics, that can be booted, crashed, cut from power and plugged."""

import json
import posixpath
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from holdfast.lab import image
from holdfast.lab.container import REBOOTED, Container
from holdfast.lab.host import Place
from holdfast.lab.network import Port, Segment, delete_namespace, make_namespace
from holdfast.lab.process import Result
from holdfast.lab.sentence import LabError, NotSo

CACHE = "/var/cache/cloud"
BIN = "/opt/cloud/bin"
_LAST_PID = "/proc/sys/kernel/ns_last_pid"


class Router:
    """One router.  Made with its disk, its network namespace and its nics; switched on by `boot`."""

    def __init__(self, place: Place, name: str, nics: Sequence[tuple[Segment, str]]) -> None:
        self.place, self.name = place, name
        self.namespace = make_namespace(place.ledger, f"{place.prefix}-{name}")
        self.ports: dict[str, Port] = {}
        layers = [image.install(), image.base()]
        machine, home = f"{place.prefix}-{name}", place.ledger.directory / f"router-{name}"
        self.container = Container(place.ledger, machine, name, home, layers)
        for number, (segment, mac) in enumerate(nics):
            self._connect(f"eth{number}", segment, mac)

    @property
    def running(self) -> bool:
        """Whether it is on."""
        return self.container.running

    def boot(self) -> float:
        """Switch it on and wait until it is up; return seconds.  LabError if it does not come up."""
        seconds = self.container.boot(self.namespace)
        leader = self.container.leader
        assert leader is not None  # noqa: S101 it is up
        self.place.ledger.note("host", name=self.name, pid=leader.pid, start=leader.start)
        return seconds

    def shutdown(self) -> None:
        """Switch it off in good order; the kernel forgets."""
        self._stop("poweroff")
        self._forget()

    def reboot(self, *, kernel: bool = False) -> float:
        """Reboot in good order; return the seconds until it is up again.

        The kernel forgets, as on a real machine.  `kernel`: it does not, only the processes start again.
        """
        if self._stop("reboot") != REBOOTED:
            raise LabError(f"{self.name} was asked to reboot and stopped: {self.container.console()}")
        if not kernel:
            self._forget()
        return self.boot()

    def crash(self) -> None:
        """All processes die at once; addresses, rules, connections and forwarding in the kernel go on."""
        self.container.kill()

    def power_cut(self, *, keep_disk: bool = True) -> None:
        """Everything goes at once, the kernel's state too.  `keep_disk`: what was written stays."""
        self.place.switch.carry(list(self.ports.values()), up=False)
        self.container.kill()
        self._forget()
        if not keep_disk:
            self.container.format()

    def stun(self) -> None:
        """Stop it amid everything, as a hypervisor that pauses it: silent, its cables in; `wake` ends it.

        Such a machine's clock stands still as well.  That can't be had here, so nothing may notice that time has
        passed: systemd's watchdogs, which would, are off meanwhile.
        """
        self._watchdogs(on=False)
        self.place.switch.block(list(self.ports.values()), blocked=True)
        self.container.freeze()

    def wake(self) -> None:
        """Let it go on where it was stunned; it does not know that time has passed."""
        self.container.thaw()
        self.place.switch.block(list(self.ports.values()), blocked=False)
        # systemd takes what fell due meanwhile before it takes this word.
        self._watchdogs(on=True)

    def hang(self) -> None:
        """Stop all its processes where they are; its kernel goes on: it forwards and answers.  `resume` ends it."""
        self.container.freeze()

    def resume(self) -> None:
        """Let its processes go on."""
        self.container.thaw()

    def _watchdogs(self, *, on: bool) -> None:
        done = self.shell(["systemctl", "service-watchdogs", "yes" if on else "no"])
        if done.code:
            raise LabError(f"{self.name}: systemd's watchdogs: {done.errors}")

    def _stop(self, verb: str) -> int:
        if not self.running:
            raise LabError(f"{self.name} is off")
        return self.container.stop(["systemctl", verb])

    def _forget(self) -> None:
        """A fresh namespace with the same nics: nothing in the kernel is left."""
        old = self.ports
        self.place.switch.disconnect(list(old.values()))
        delete_namespace(self.namespace)
        make_namespace(self.place.ledger, self.namespace)
        self.ports = {}
        for nic, port in old.items():
            self._connect(nic, port.segment, port.mac)

    def _connect(self, nic: str, segment: Segment, mac: str) -> None:
        self.ports[nic] = self.place.switch.connect(segment, self.namespace, nic, mac)

    def plug(self, segment: Segment, mac: str) -> str:
        """Plug a nic in, while it runs or not; return its name, the first free `eth<n>`."""
        nic = next(f"eth{n}" for n in range(len(self.ports) + 1) if f"eth{n}" not in self.ports)
        self._connect(nic, segment, mac)
        return nic

    def unplug(self, nic: str) -> None:
        """Take a nic away."""
        self.place.switch.disconnect([self.ports.pop(nic)])

    def carrier(self, nic: str, *, up: bool) -> None:
        """Pull a nic's cable out, or put it back in; the nic itself stays."""
        self.place.switch.carry([self.ports[nic]], up=up)

    def shell(self, argv: Sequence[str], *, stdin: bytes | None = None, timeout_s: float = 60) -> Result:
        """Run a program inside, to its end; while it is off, on its disk alone."""
        return self.container.execute(argv, stdin=stdin, timeout_s=timeout_s)

    def run(self, script: str, *arguments: str, timeout_s: float = 60, count_children: bool = False) -> Result:
        """Run `/opt/cloud/bin/<script>`, as ssh would.  `count_children`: also how many processes it started.

        The count is of all processes and threads that the router started meanwhile, so it needs a quiet router.
        """
        argv = [posixpath.join(BIN, script), *arguments]
        if not self.running:
            raise LabError(f"{self.name} is off")
        if not count_children:
            return self.shell(argv, timeout_s=timeout_s)
        before = int(self.read(_LAST_PID))
        result = self.shell(argv, timeout_s=timeout_s)
        # Between the two readings: the script itself, and the reader of the second one.
        return result._replace(children=int(self.read(_LAST_PID)) - before - 2)

    def send(self, payload: Path | bytes, name: str) -> None:
        """Put a message where the management server puts it."""
        data = payload if isinstance(payload, bytes) else payload.read_bytes()
        self.write(posixpath.join(CACHE, name), data)

    def command(self, name: str, payload: Path | bytes | dict[str, Any], *, timeout_s: float = 60) -> Result:
        """Send a message and let it be taken in: `update_config.py <name>`."""
        self.send(json.dumps(payload).encode() if isinstance(payload, dict) else payload, name)
        return self.run("update_config.py", name, timeout_s=timeout_s)

    def read(self, path: str) -> str:
        """Return a file's text; NotSo if there is none."""
        done = self.shell(["cat", path])
        if done.code:
            raise NotSo(f"{self.name}: {done.errors.strip()}")
        return done.text

    def write(self, path: str, text: str | bytes, mode: int = 0o644) -> None:
        """Write a file, with the directories above it."""
        data = text.encode() if isinstance(text, str) else text
        for argv, stdin in (
            (["mkdir", "-p", posixpath.dirname(path)], b""),
            (["tee", path], data),
            (["chmod", f"{mode:o}", path], b""),
        ):
            done = self.shell(argv, stdin=stdin)
            if done.code:
                raise LabError(f"{self.name}: {done.errors.strip()}")

    def active(self, unit: str) -> bool:
        """Whether a unit runs."""
        return self.shell(["systemctl", "is-active", "--quiet", unit]).code == 0

    def journal(self, lines: int = 20, *, boot: int = 0) -> str:
        """Return the end of the journal of this boot (`boot=-1`: the one before); while it is off, of all boots."""
        which = [f"--boot={boot}"] if self.running else []
        argv = ["journalctl", "--no-pager", "--quiet", "--output=short-monotonic", f"--lines={lines}", *which]
        return self.shell(argv).text

    def eventually(self, check: Callable[[], object], sentence: str, timeout_s: float = 10) -> None:
        """Wait until something is so; NotSo with the journal's end otherwise."""
        self.place.wait(check, f"{self.name}: {sentence}", timeout_s)
