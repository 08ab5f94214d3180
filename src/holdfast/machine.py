"""This machine: its drivers, its facts, and what it can do at all."""

import os
from collections.abc import Sequence
from pathlib import Path

from holdfast import facts
from holdfast.converge import Driver
from holdfast.drivers.address import Addresses
from holdfast.drivers.file import Files
from holdfast.drivers.flows import Connections
from holdfast.drivers.handover import Handovers
from holdfast.drivers.leases import LeaseFiles
from holdfast.drivers.link import Links
from holdfast.drivers.policy_rule import PolicyRules
from holdfast.drivers.route import Routes
from holdfast.drivers.ruleset import Rulesets
from holdfast.drivers.sysctl import Sysctls
from holdfast.drivers.unit import Units, systemd_runs
from holdfast.iproute import IpRoute
from holdfast.marks import Marks
from holdfast.router import Facts


class Machine:
    """Everything with effects, behind one door.  `root` is where its files are seen from here."""

    def __init__(self, root: Path = Path("/")) -> None:
        self.root = root
        self.marks = Marks(root / "run/holdfast/marks")
        self.ip = IpRoute()
        self.runs_services = systemd_runs(root)
        manifest = root / "var/lib/holdfast/manifest.json"
        # The firewall first: nothing is reachable before it may be.  Then the peer's connections: what arrives before
        # they are known would be refused.
        self.drivers: Sequence[Driver] = (
            Rulesets(self.marks),
            Handovers(self.marks, root),
            Sysctls(),
            Links(self.ip),
            Addresses(self.ip),
            Routes(self.ip),
            Connections(self.marks),
            PolicyRules(self.ip),
            Files(manifest, root),
            LeaseFiles(root),
            Units(self.marks, root, available=self.runs_services),
        )

    def facts(self) -> Facts:
        """The nics that there are now, keepalived's last word, and what guests have acknowledged."""
        self.ip.forget()
        return Facts(facts.nics(self.ip), facts.role(self.root), facts.acknowledged(self.root))


def enter_network(name: str) -> None:
    """Move this process into a network namespace of ip-netns(8); OSError if there is none."""
    import ctypes  # noqa: PLC0415 os.setns came with Python 3.12; only --netns needs it

    libc = ctypes.CDLL(None, use_errno=True)
    handle = os.open(f"/run/netns/{name}", os.O_RDONLY)
    try:
        if libc.setns(handle, 0x40000000):  # CLONE_NEWNET
            error = ctypes.get_errno()
            raise OSError(error, os.strerror(error), name)
    finally:
        os.close(handle)
