"""What the DHCP server remembers of VMs that are no longer known."""

import os
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from pathlib import Path

from holdfast.addresses import inside
from holdfast.converge import Failure
from holdfast.run import run as run_program
from holdfast.state import Change, Leases, Resource, State

DHCP_PORT = ":0043"
"""67, as /proc/net/udp writes it."""
WRITTEN_S = 2.0
PAUSE_S = 0.01


class LeaseFiles:
    """Releases stale leases: through the server where it runs and serves the network, else out of its file."""

    kinds: tuple[type[Resource], ...] = (Leases,)

    def __init__(
        self, root: Path = Path("/"), run: Callable[..., str] = run_program, sockets: Path = Path("/proc/net/udp")
    ) -> None:
        self.root = root
        self.run = run
        self.sockets = sockets

    def observe(self, desired: State) -> Iterator[Leases]:
        """The wanted ones as they are wanted, with the stale ones that are there as well."""
        for wanted in desired.values():
            if isinstance(wanted, Leases):
                stale = tuple(sorted(f"{mac} {address}" for mac, address in self._stale(wanted)))
                yield Leases(wanted.path, (*wanted.allowed, *stale), wanted.networks)

    def check(self, changes: Sequence[Change]) -> Iterable[Failure]:  # noqa: ARG002 nothing can be told before
        """Nothing to ask."""
        return ()

    def apply(self, changes: Sequence[Change]) -> Iterator[Failure]:
        """Release each stale lease; those of networks that are gone are taken out of the file at once."""
        for change in changes:
            if not isinstance(change.after, Leases):
                continue
            try:
                self._release(change.after)
            except OSError as error:
                yield Failure(change.key, str(error))

    def _release(self, wanted: Leases) -> None:
        running = self._running()
        asked = {lease for lease in self._stale(wanted) if running and _device(wanted, lease[1])}
        for mac, address in sorted(asked):
            # dnsmasq(8) forgets at once, whoever asks; its own helper speaks for the VM that is gone.
            self.run(["dhcp_release", _device(wanted, address), address, mac])
        deadline = time.monotonic() + WRITTEN_S
        while asked & {*self._stale(wanted)}:  # it writes its file a moment later
            if time.monotonic() > deadline:
                raise OSError(f"dnsmasq has not released {', '.join(sorted(address for _, address in asked))}")
            time.sleep(PAUSE_S)
        self._take_out(wanted)

    def _take_out(self, wanted: Leases) -> None:
        """What nobody serves any more goes out of the file: there is nobody to ask."""
        gone = tuple(f" {mac} {address} " for mac, address in self._stale(wanted))
        if not gone:
            return
        path = self._path(wanted)
        kept = [
            line for line in path.read_text().splitlines(keepends=True) if not any(one in line.lower() for one in gone)
        ]
        fresh = path.with_name(f".{path.name}.new")
        with fresh.open("w") as file:
            file.writelines(kept)
            file.flush()
            os.fsync(file.fileno())
        held = path.stat()
        os.chown(fresh, held.st_uid, held.st_gid)
        fresh.chmod(held.st_mode & 0o7777)
        fresh.replace(path)

    def _running(self) -> bool:
        """Whether anybody listens at the DHCP server's port here."""
        return any(line.split()[1].endswith(DHCP_PORT) for line in self.sockets.read_text().splitlines()[1:])

    def _path(self, wanted: Leases) -> Path:
        return self.root / wanted.path.lstrip("/")

    def _stale(self, wanted: Leases) -> list[tuple[str, str]]:
        try:
            lines = self._path(wanted).read_text().splitlines()
        except FileNotFoundError:
            return []
        held = [(words[1].lower(), words[2]) for line in lines if len(words := line.split()) >= 4]  # noqa: PLR2004 dnsmasq's
        allowed = set(wanted.allowed)
        return [(mac, address) for mac, address in held if f"{mac} {address}" not in allowed]


def _device(wanted: Leases, address: str) -> str:
    """The device on whose network this address is served; empty if on none."""
    return next((device for net, device, _ in wanted.networks if inside(address, [net])), "")
