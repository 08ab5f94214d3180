"""This machine: its drivers, its facts, and what it can do at all."""

import os
from collections.abc import Sequence
from contextlib import AbstractContextManager
from pathlib import Path

import msgspec

from holdfast import facts, ground, names, pair_files, pairing, wishes
from holdfast.converge import Driver
from holdfast.drivers.address import Addresses
from holdfast.drivers.announcement import Announcements
from holdfast.drivers.file import Files
from holdfast.drivers.flows import Connections
from holdfast.drivers.handover import Handovers
from holdfast.drivers.leases import LeaseFiles
from holdfast.drivers.link import Links
from holdfast.drivers.login import Logins
from holdfast.drivers.policy_rule import PolicyRules
from holdfast.drivers.ppp import PppSessions
from holdfast.drivers.route import Routes
from holdfast.drivers.ruleset import Rulesets
from holdfast.drivers.sysctl import Sysctls
from holdfast.drivers.unit import Units, systemd_runs
from holdfast.drivers.usage import Usages
from holdfast.drivers.vpn import Tunnels
from holdfast.iproute import IpRoute
from holdfast.marks import Marks
from holdfast.router import Facts
from holdfast.state import File, State


class Machine:
    """Everything with effects, behind one door.  `root` is where its files are seen from here; `reading`: without the
    lock, so nothing that was seen may be noted.
    """

    def __init__(self, root: Path = Path("/"), *, reading: bool = False) -> None:
        self.root = root
        self.marks = Marks(root / "run/holdfast/marks", sealed=reading)
        self.ip = IpRoute()
        self.runs_services = systemd_runs(root)
        self.complaint = ""  # what is wrong with the operator's settings
        manifest = root / "var/lib/holdfast/manifest.json"
        # The firewall first: nothing is reachable before it may be.  Then the peer's connections: what arrives before
        # they are known would be refused.
        self.drivers: Sequence[Driver] = (
            Rulesets(self.marks),
            Handovers(self.marks, root),
            Usages(self.marks, root),
            Sysctls(whole=root == Path("/")),
            Links(self.ip),
            Addresses(self.ip),
            Routes(self.ip),
            Announcements(self.marks, root),
            Connections(self.marks),
            PolicyRules(self.ip),
            Files(manifest, root),
            LeaseFiles(root),
            Logins(root, whole=root == Path("/")),
            Units(self.marks, root, available=self.runs_services),
            Tunnels(self.marks, root),
            PppSessions(root),
        )

    def facts(self) -> Facts:
        """The nics that there are now, keepalived's last word, what guests have acknowledged, what operators want."""
        self.ip.forget()
        chosen, self.complaint = facts.settings(self.root, self.marks)
        return Facts(
            facts.nics(self.ip),
            facts.role(self.root),
            pair_files.acknowledged_here(self.root),
            acknowledged_there=pair_files.acknowledged_there(self.root),
            stopped=wishes.stopped(self.root),
            settings=chosen,
            peer=facts.peer(self.root),
            ppp=(self.root / "dev/ppp").exists(),
            names=names.found(self.root),
        )

    def agreed(self, wanted: State) -> AbstractContextManager[None]:
        """Agree with the peer where this run takes the router to other ground."""
        file = wanted.get(("File", f"/{pairing.PAIR}"))
        return ground.agreed(self.root, msgspec.json.decode(file.text)["ground"] if isinstance(file, File) else "")


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
