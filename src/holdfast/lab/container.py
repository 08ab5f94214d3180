"""A machine with systemd as its first process: systemd-nspawn on an overlay, in cgroups of its own."""

import os
import secrets
import shutil
import signal
import socket
import subprocess
import time
from collections.abc import Sequence
from pathlib import Path

from holdfast.lab.ledger import Ledger, members, remove_cgroup
from holdfast.lab.process import Process, Result, finish, gone, must, start
from holdfast.lab.sentence import LabError, eventually

BOOT_S = 60.0
STOP_S = 30.0
REBOOTED = 133  # nspawn's exit status when the container asks for a reboot and its unit is kept
_LEADER = "X_NSPAWN_LEADER_PID="


class Container:
    """One machine.  `home` holds its disk and root; its network namespace is made by the caller."""

    def __init__(self, ledger: Ledger, machine: str, hostname: str, home: Path, layers: Sequence[Path]) -> None:
        self.ledger, self.machine, self.hostname, self.home, self.layers = ledger, machine, hostname, home, layers
        self.root, self.disk, self.log = home / "root", home / "disk", home / "console"
        self.leader: Process | None = None
        self._supervisor: subprocess.Popen[bytes] | None = None
        home.mkdir(parents=True)
        self.root.mkdir()
        self.disk.mkdir()
        ledger.note("machine", name=machine)
        ledger.note("mount", path=str(self.disk))
        must(["mount", "-t", "tmpfs", "-o", "size=2g,mode=0755", "holdfast-lab", str(self.disk)])
        self.cgroups = [hierarchy / f"holdfast-lab-{machine}" for hierarchy in _hierarchies()]
        for cgroup in self.cgroups:
            ledger.note("cgroup", path=str(cgroup))
        self.format()

    def format(self) -> None:
        """Give it an empty disk over the layers; what was written before is gone."""
        if os.path.ismount(self.root):
            must(["umount", str(self.root)])
        for name in ("upper", "work"):
            shutil.rmtree(self.disk / name, ignore_errors=True)
            (self.disk / name).mkdir(mode=0o755)
        lower = ":".join(str(layer) for layer in self.layers)
        options = f"lowerdir={lower},upperdir={self.disk / 'upper'},workdir={self.disk / 'work'}"
        self.ledger.note("mount", path=str(self.root))
        must(["mount", "-t", "overlay", "holdfast-lab", "-o", options, str(self.root)])
        (self.root / "etc/machine-id").write_text(secrets.token_hex(16) + "\n")
        (self.root / "etc/hostname").write_text(self.hostname + "\n")

    @property
    def running(self) -> bool:
        """Whether its first process lives."""
        return self.leader is not None and self.leader.alive()

    def boot(self, namespace: str) -> float:
        """Start it and wait until systemd says that it is up; return seconds.  LabError with the console's end."""
        if self.running:
            raise LabError(f"{self.machine} runs already")
        for cgroup in self.cgroups:
            cgroup.mkdir(exist_ok=True)
        began = time.monotonic()
        with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as ear:
            path = self.home / "notify"
            path.unlink(missing_ok=True)
            ear.bind(str(path))
            self._supervisor = start(
                self._argv(namespace), self.log, environment=self._environment(path), cgroups=self.cgroups
            )
            self.ledger.process(self._supervisor.pid, f"supervisor of {self.machine}")
            self._wait_up(ear, began + BOOT_S)
        return time.monotonic() - began

    def _argv(self, namespace: str) -> list[str]:
        return [
            "systemd-nspawn", "--quiet", "--register=no", "--keep-unit", "--console=pipe", "--notify-ready=yes",
            "--kill-signal=SIGRTMIN+3", "--capability=all", f"--network-namespace-path=/run/netns/{namespace}",
            "--resolv-conf=off", "--timezone=off", "--link-journal=no", f"--machine={self.machine}",
            f"--hostname={self.hostname}", f"--directory={self.root}", "--boot",
        ]  # fmt: skip

    def _environment(self, notify: Path) -> dict[str, str]:
        # With a network namespace from outside nspawn gives read-only /proc/sys/net unless told otherwise.
        return {
            "SYSTEMD_NSPAWN_UNIFIED_HIERARCHY": "1",
            "SYSTEMD_NSPAWN_API_VFS_WRITABLE": "network",
            "SYSTEMD_NSPAWN_LOCK": "0",
            "NOTIFY_SOCKET": str(notify),
        }

    def _wait_up(self, ear: socket.socket, end: float) -> None:
        assert self._supervisor is not None  # noqa: S101 started by the caller
        ear.settimeout(0.2)
        while time.monotonic() < end:
            if self._supervisor.poll() is not None:
                raise LabError(f"{self.machine} did not start: {self.console()}")
            try:
                said = ear.recv(65536).decode().splitlines()
            except TimeoutError:
                continue
            for line in said:
                if line.startswith(_LEADER):
                    self.leader = self.ledger.process(int(line[len(_LEADER) :]), f"leader of {self.machine}")
            if "READY=1" in said:
                return
        raise LabError(f"{self.machine} was not up within {BOOT_S:g} s: {self.console()}")

    def enter(self, argv: Sequence[str]) -> list[str]:
        """Return the command line that runs `argv` inside; a machine that is off offers its disk alone."""
        if self.leader is not None and self.leader.alive():
            return ["nsenter", "--target", str(self.leader.pid), "--all", "--", *argv]
        return ["chroot", str(self.root), *argv]

    def execute(self, argv: Sequence[str], *, stdin: bytes | None = None, timeout_s: float = 60) -> Result:
        """Run a program inside, to its end."""
        return finish(self.enter(argv), stdin=stdin, timeout_s=timeout_s)

    def stop(self, argv: Sequence[str]) -> int:
        """Ask for an orderly stop by `argv` (systemctl reboot, poweroff) and return nspawn's exit status."""
        assert self._supervisor is not None  # noqa: S101 it runs
        self.execute(argv, timeout_s=STOP_S)
        try:
            code = self._supervisor.wait(STOP_S)
        except subprocess.TimeoutExpired as error:
            raise LabError(f"{self.machine} did not stop within {STOP_S:g} s: {self.console()}") from error
        self._forget()
        return code

    def kill(self) -> None:
        """Let all its processes die at once.  Never by the supervisor: killed, it would leave the others behind."""
        if self.leader is not None:
            self.leader.kill(signal.SIGKILL)
        if self._supervisor is not None:
            try:
                self._supervisor.wait(STOP_S)
            except subprocess.TimeoutExpired as error:
                raise LabError(f"{self.machine} would not die") from error
        self._forget()

    def freeze(self) -> None:
        """Stop all its processes where they are, in one stroke; its part of the kernel goes on."""
        self._freeze(frozen=True)

    def thaw(self) -> None:
        """Let its processes go on."""
        self._freeze(frozen=False)

    def _freeze(self, *, frozen: bool) -> None:
        switches = [cgroup / "cgroup.freeze" for cgroup in self.cgroups]
        switch = next((path for path in switches if path.exists()), None)
        if switch is None:
            raise LabError(f"{self.machine} is in no cgroup2 that could be frozen")
        switch.write_text(str(int(frozen)))
        events = switch.with_name("cgroup.events")
        sentence = f"{self.machine} {'stands still' if frozen else 'goes on'}"
        eventually(lambda: f"frozen {int(frozen)}" in events.read_text(), sentence)

    def _forget(self) -> None:
        left = [process for cgroup in self.cgroups for process in members(cgroup)]
        for process in left:
            process.kill()
        gone(left, STOP_S)
        for cgroup in self.cgroups:
            remove_cgroup(cgroup)
        self.leader = self._supervisor = None

    def reap(self) -> None:
        """Take note that the supervisor has ended; the lab ends it."""
        if self._supervisor is not None:
            self._supervisor.wait(STOP_S)

    def console(self) -> str:
        """Return the end of what nspawn printed."""
        return self.log.read_text(errors="replace")[-2000:] if self.log.exists() else "nothing on its console"


def _hierarchies() -> list[Path]:
    """Return where cgroups are made: cgroup2, and systemd's own hierarchy of cgroup 1 where there is one."""
    found = []
    for line in Path("/proc/self/mountinfo").read_text().splitlines():
        place, _, tail = line.partition(" - ")
        kind, _, options = tail.split(" ", 2)
        if kind == "cgroup2" or (kind == "cgroup" and "name=systemd" in options.split(",")):
            found.append(Path(place.split()[4]))
    if not found:
        raise LabError("there is no cgroup file system that a container could use")
    return found
