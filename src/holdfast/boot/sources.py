"""One source of the boot line each: what every hypervisor hands over, and where."""

import os
import select
import time
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path
from typing import NamedTuple, Self

from holdfast.boot.line import is_boot_line
from holdfast.run import CommandFailed

WAIT_S = 60.0
"""How long a line that comes late is waited for: KVM's agent writes it about five seconds after the start."""
LONGEST = 1 << 20
"""Bytes of a boot line, user data and all: nobody can make the agent read for ever."""
KVP_KEY = 512
KVP_VALUE = 2048
KVP_NAME = "cloudstack-vm-userdata"
PATIENCE_S = 10.0
"""How long a hypervisor's program may take to answer."""
_AGAIN_S = 2.0  # a program is not asked more often than that: each time is a process
_STILL_S = 1.0
_LOOKS = 30
_OTHERS_PORTS = ("org.", "com.")  # qemu's and spice's own agents; CloudStack's port is called after the router


class Place:
    """The machine that is asked: its files below `root`, its programs by `run`, for at most `patience_s` each time.

    `troubles`: what could not be read and why.  `written_s`: when the file that was read last was written, seconds of
    the wall clock; None if it was no file.
    """

    def __init__(self, root: Path, run: Callable[..., str], patience_s: float = PATIENCE_S) -> None:
        self.root = root
        self.run = run
        self.patience_s = patience_s
        self.kept = root / "var/cache/cloud/cmdline"
        self.troubles: set[str] = set()
        self.written_s: float | None = None
        self._wires: dict[Path, int] = {}
        self._heard: dict[Path, bytes] = {}
        self._said: dict[tuple[str, ...], tuple[float, str]] = {}

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        for descriptor in self._wires.values():
            os.close(descriptor)

    def file(self, path: Path) -> str:
        """Text of a file, empty if there is none."""
        try:
            with path.open("rb") as file:
                self.written_s = os.fstat(file.fileno()).st_mtime
                return file.read(LONGEST).decode("utf-8", "replace")
        except (FileNotFoundError, NotADirectoryError):
            return ""
        except OSError as error:
            self.troubles.add(f"{path}: {error.strerror}")
            return ""

    def said(self, *argv: str) -> str:
        """What a program printed, now or a moment ago; empty if it failed or is not there."""
        self.written_s = None
        at, answer = self._said.get(argv, (0.0, ""))
        if argv not in self._said or time.monotonic() - at >= _AGAIN_S:
            answer = self._asked(*argv)
            self._said[argv] = time.monotonic(), answer
        return answer

    def _asked(self, *argv: str) -> str:
        try:
            return self.run(argv, timeout_s=self.patience_s)
        except CommandFailed as error:
            self.troubles.add(str(error))
        except OSError as error:
            self.troubles.add(f"{argv[0]}: {error.strerror}")
        return ""

    def heard(self, port: Path) -> str:
        """What came through a wire so far, without waiting for more than there is now.

        It stays open: what is sent while nobody has it open is lost.
        """
        self.written_s = None
        try:
            if port not in self._wires:
                self._wires[port] = os.open(port, os.O_RDONLY | os.O_NONBLOCK | os.O_NOCTTY | os.O_CLOEXEC)
            self._heard[port] = self._heard.get(port, b"") + _drained(self._wires[port])
        except OSError as error:
            self.troubles.add(f"{port}: {error.strerror}")
        return self._heard.get(port, b"")[:LONGEST].decode("utf-8", "replace")


class Source(NamedTuple):
    """Where a boot line may be.  `name` for people; `late`: it comes some time after the start, and is waited for.

    `told`: it is written at a start by a management server, never at a plain reboot.
    """

    name: str
    read: Callable[[Place], str]
    late: bool = False
    told: bool = False


def override(place: Place) -> str:
    """An operator's own line, in place of whatever the hypervisor says."""
    return place.file(place.root / "mnt/cmdline").strip()


def kept(place: Place) -> str:
    """What qemu's guest agent has written, now or at an earlier start; elsewhere what an earlier agent has kept.

    The guest agent opens it for everybody to write and fills it afterwards: it is closed to others first, and taken
    when its line has ended or when it has not changed for a second.
    """
    with suppress(OSError):
        if place.kept.stat().st_mode & 0o077:
            place.kept.chmod(0o600)
    text = place.file(place.kept)
    for _ in range(_LOOKS):
        if not text or text.endswith("\n") or not 0 <= time.time() - (place.written_s or 0) < _STILL_S:
            break
        time.sleep(_STILL_S / 10)
        text = place.file(place.kept)
    return text if text.strip() else ""


def virtio_serial(place: Place) -> str:
    """KVM before 4.16: two lines through a port of the router's own, which nobody writes to at a plain reboot."""
    for port in _ports(place.root):
        text = place.heard(port)
        if any(line.startswith("cmdline:") and line.endswith("\n") for line in text.splitlines(keepends=True)):
            return text
    return ""


def kernel(place: Place) -> str:
    """The kernel's own command line.  Xen puts the boot line there, `%` for blanks: what has none is the kernel's."""
    words = place.file(place.root / "proc/cmdline").split()
    ours = [word for word in words if "%" in word]
    text = " ".join(ours or words).replace("%", " ").strip()
    return text if is_boot_line(text) else ""


def xenstore(place: Place) -> str:
    """Xen's machines with hardware support."""
    return place.said("xenstore-read", "vm-data/cloudstack/init").replace("%", " ").strip()


def vmware(place: Place) -> str:
    """VMware's machine id."""
    text = place.said("vmtoolsd", "--cmd", "machine.id.get").strip()
    return text if is_boot_line(text) else ""


def hyper_v(place: Place) -> str:
    """Hyper-V's key-value pairs: records of 512 and 2048 bytes, filled up with NUL.  The newest of our key counts.

    It is not emptied: a line that was read and not stored yet would be lost with the power.
    """
    for folder in ("var/opt/hyperv", "var/lib/hyperv"):
        with suppress(OSError):
            pairs = [*_pairs((place.root / folder / ".kvp_pool_0").read_bytes()[:LONGEST])]
            ours = [value for name, value in pairs if name == KVP_NAME]
            for value in (*reversed(ours), *(value for _, value in pairs)):
                if is_boot_line(value):
                    return value
    return ""


def virtual_box(place: Place) -> str:
    """VirtualBox' DMI strings, one of which says `cmdline:`."""
    for line in place.said("dmidecode").splitlines():
        _, marked, text = line.partition("cmdline:")
        if marked and is_boot_line(text):
            return text.strip()
    return ""


def _ports(root: Path) -> list[Path]:
    """The virtio ports that are no other agent's: who reads there takes away what was meant for them."""
    found = []
    for port in sorted((root / "dev").glob("vport*p*")):
        name = root / "sys/class/virtio-ports" / port.name / "name"
        with suppress(OSError):
            if name.read_text().startswith(_OTHERS_PORTS):
                continue
        found.append(port)
    return found


def _drained(wire: int) -> bytes:
    """What is there to read now: a port without anybody behind it says nothing, and must stop nobody."""
    found = b""
    while len(found) < LONGEST and select.select([wire], [], [], 0)[0]:
        try:
            more = os.read(wire, 65536)
        except BlockingIOError:
            break
        if not more:
            break
        found += more
    return found


def _pairs(pool: bytes) -> Iterator[tuple[str, str]]:
    size = KVP_KEY + KVP_VALUE
    for at in range(0, len(pool) - size + 1, size):
        fields = (pool[at : at + KVP_KEY], pool[at + KVP_KEY : at + size])
        name, value = (field.partition(b"\0")[0].decode("utf-8", "replace") for field in fields)
        yield name, value


OVERRIDE = Source("/mnt/cmdline", override)
_KEPT = Source("/var/cache/cloud/cmdline", kept, late=True, told=True)
_SERIAL = Source("the virtio serial port", virtio_serial, late=True, told=True)
_KERNEL = Source("the kernel command line", kernel)
_XENSTORE = Source("xenstore vm-data/cloudstack/init", xenstore)
_KVM = (_SERIAL, _KEPT, _KERNEL)
_XEN = (_KERNEL, _XENSTORE)
# What a program says may be late as well: the program may come up later than this one.
_VMWARE = (Source("VMware's machine id", vmware, late=True), _KERNEL)
# With its Viridian extensions Xen looks like Hyper-V.
_HYPER_V = (_KERNEL, Source("Hyper-V's key-value pairs", hyper_v, late=True), _XENSTORE)
_VIRTUAL_BOX = (Source("VirtualBox' DMI strings", virtual_box), _KERNEL)
DEFAULT = (_KEPT._replace(late=False), _KERNEL)
"""For a hypervisor that nobody knows: what somebody has put there, else the kernel command line; nothing is awaited."""

TABLE = {
    "kvm": _KVM,
    "qemu": _KVM,
    "xen": _XEN,
    "vmware": _VMWARE,
    "microsoft": _HYPER_V,
    "oracle": _VIRTUAL_BOX,
}
"""Sources by systemd-detect-virt's word, in the order in which they are asked."""
