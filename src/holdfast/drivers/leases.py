"""What the DHCP server remembers of VMs that are no longer known."""

from collections.abc import Callable, Iterable, Iterator, Sequence
from pathlib import Path

from holdfast.addresses import inside
from holdfast.converge import Failure
from holdfast.run import run as run_program
from holdfast.state import Change, Leases, Resource, State


class LeaseFiles:
    """Releases stale leases: through the server where it still serves the network, else out of its file."""

    kinds: tuple[type[Resource], ...] = (Leases,)

    def __init__(self, root: Path = Path("/"), run: Callable[..., str] = run_program) -> None:
        self.root = root
        self.run = run

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
        gone = []
        for mac, address in self._stale(wanted):
            served = next(((device, server) for net, device, server in wanted.networks if inside(address, [net])), None)
            if served:
                # dnsmasq(8) forgets at once, whoever asks; its own helper speaks for the VM that is gone.
                self.run(["dhcp_release", served[0], address, mac])
            else:
                gone.append(f" {mac} {address} ")
        if gone:
            path = self._path(wanted)
            kept = [line for line in path.read_text().splitlines(keepends=True) if not any(one in line for one in gone)]
            fresh = path.with_name(f".{path.name}.new")
            fresh.write_text("".join(kept))
            fresh.replace(path)

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
