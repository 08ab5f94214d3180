"""Where each hypervisor leaves the boot line, byte for byte, and how long anybody waits for it."""

import os
import struct
import threading
import time
from collections.abc import Callable, Sequence
from pathlib import Path

import pytest

from holdfast import boot
from holdfast.boot import Found, sources
from holdfast.boot.line import parse
from holdfast.run import CommandFailed

LINE = "template=domP name=r-31-VM type=router authorized_key=c3NoLXJzYQ== eth0ip=10.31.0.1 eth0mask=255.255.255.0"
SECOND = LINE.replace("r-31-VM", "r-32-VM")
KEY = "ssh-rsa AAAAB3NzaC1yc2E= cloud@management"
SOON_S = 0.3
FILE = "/var/cache/cloud/cmdline"


class Host:
    """A hypervisor: what its programs print (None: there is no such program; an error's text begins with `!`)."""

    def __init__(self, root: Path, kind: str, **programs: str) -> None:
        self.root, self.kind, self.programs = root, kind, programs
        self.said: list[str] = []
        self.asked: list[Sequence[str]] = []
        self.patience: list[float] = []

    def run(self, argv: Sequence[str], *, timeout_s: float) -> str:
        self.patience.append(timeout_s)
        if argv[0] == "systemd-detect-virt":
            if self.kind == "none":
                raise CommandFailed("systemd-detect-virt: none")
            return f"{self.kind}\n"
        self.asked.append(argv)
        told = self.programs.get(argv[0].replace("-", "_"))
        if told is None:
            raise FileNotFoundError(2, "No such file or directory", argv[0])
        if told.startswith("!"):
            raise CommandFailed(told[1:])
        return told

    def write(self, path: str, content: str | bytes, mode: int = 0o644) -> Path:
        target = self.root / path
        target.parent.mkdir(parents=True, exist_ok=True)
        target.write_bytes(content.encode() if isinstance(content, str) else content)
        target.chmod(mode)
        return target

    def find(self, wait_s: float = 0, *, late: Callable[[str], bool] | None = None) -> Found | None:
        return boot.find(self.root, wait_s=wait_s, late=late, run=self.run, say=self.said.append)

    def finds(self, wait_s: float = 0) -> Found:
        found = self.find(wait_s)
        assert found, self.said
        return found


Make = Callable[..., Host]


@pytest.fixture
def host(tmp_path: Path) -> Make:
    def make(kind: str, **programs: str) -> Host:
        return Host(tmp_path, kind, **programs)

    return make


def later(act: Callable[[], object]) -> threading.Thread:
    thread = threading.Timer(SOON_S, act)
    thread.start()
    return thread


def another(text: str) -> bool:
    """Whether it is not the one that is stored."""
    return parse(text) != parse(LINE)


def pool(*pairs: tuple[str, str]) -> bytes:
    return b"".join(struct.pack("512s2048s", key.encode(), value.encode()) for key, value in pairs)


@pytest.mark.parametrize("kind", ["kvm", "qemu"])
def test_kvm_the_file_of_the_guest_agent(host: Make, kind: str) -> None:
    there = host(kind)
    there.write("var/cache/cloud/cmdline", f"{LINE}\n")

    found = there.finds()

    assert parse(found.text) == parse(LINE)
    assert found.source == "/var/cache/cloud/cmdline"
    assert there.said == []


def test_kvm_the_file_comes_late(host: Make) -> None:
    there = host("kvm")
    thread = later(lambda: there.write("var/cache/cloud/cmdline", f"{LINE}\n"))
    began = time.monotonic()
    found = there.finds(wait_s=20)
    thread.join()

    assert parse(found.text) == parse(LINE)
    assert SOON_S <= time.monotonic() - began < 5
    assert there.said == [
        f"holdfast: no boot line yet (kvm): waiting for it at most 20 s: the virtio serial port, {FILE}\n",
        "holdfast: the boot line has come: /var/cache/cloud/cmdline\n",
    ]


def test_kvm_nothing_comes_and_nobody_waits_for_ever(host: Make) -> None:
    there = host("kvm")
    began = time.monotonic()

    assert there.find(wait_s=SOON_S) is None
    assert SOON_S <= time.monotonic() - began < 5
    assert len([text for text in there.said if "waiting" in text]) == 1
    assert there.said[-1].startswith("holdfast: no boot line (kvm): looked at /mnt/cmdline, the virtio serial port, ")


def test_kvm_opened_and_not_yet_written_is_nothing(host: Make) -> None:
    there = host("kvm")
    path = there.write("var/cache/cloud/cmdline", "")
    thread = later(lambda: path.write_text(f"{LINE}\n"))
    found = there.finds(wait_s=20)
    thread.join()

    assert parse(found.text) == parse(LINE)


def test_kvm_half_a_line_is_not_taken_for_the_whole(host: Make) -> None:
    there = host("kvm")
    path = there.write("var/cache/cloud/cmdline", LINE[:40])
    thread = later(lambda: path.write_text(f"{LINE}\n"))
    found = there.finds()
    thread.join()

    assert parse(found.text) == parse(LINE)


def test_kvm_a_line_without_an_end_counts_once_it_is_still(host: Make) -> None:
    there = host("kvm")
    there.write("var/cache/cloud/cmdline", LINE)

    assert parse(there.finds().text) == parse(LINE)


def test_kvm_what_the_agent_leaves_open_for_everybody_is_closed(host: Make) -> None:
    there = host("kvm")
    path = there.write("var/cache/cloud/cmdline", f"{LINE}\n", mode=0o666)
    there.finds()

    assert path.stat().st_mode & 0o777 == 0o600


def test_kvm_of_4_6_two_lines_through_a_port(host: Make) -> None:
    there = host("kvm")
    port = _port(there, "vport0p1", "r-31-VM.vport")

    def speak() -> None:
        with port.open("wb", buffering=0) as wire:  # waits for the reader, as qemu's end does
            wire.write(f"pubkey:{KEY}\n".encode())
            time.sleep(SOON_S)
            wire.write(f"cmdline:%{LINE.replace(' ', '%')}\n".encode())

    thread = threading.Thread(target=speak)
    thread.start()
    found = there.finds(wait_s=20)
    thread.join()

    assert found.source == "the virtio serial port"
    assert found.fresh
    assert parse(found.text) == parse(LINE)


def test_kvm_of_4_6_nobody_speaks_and_the_old_file_counts(host: Make) -> None:
    there = host("kvm")
    _port(there, "vport0p1", "r-31-VM.vport")
    there.write("var/cache/cloud/cmdline", f"{LINE}\n")
    began = time.monotonic()

    assert there.finds(wait_s=20).source == "/var/cache/cloud/cmdline"
    assert time.monotonic() - began < 2


def test_kvm_the_guest_agents_own_port_is_not_read(host: Make) -> None:
    there = host("kvm")
    port = _port(there, "vport0p1", "org.qemu.guest_agent.0")
    handle = os.open(port, os.O_RDWR)  # as the agent itself
    try:
        os.write(handle, f"cmdline:{LINE}\n".encode())

        assert there.find() is None
        assert os.read(handle, 8) == b"cmdline:"
    finally:
        os.close(handle)


def _port(there: Host, name: str, meaning: str) -> Path:
    there.write(f"sys/class/virtio-ports/{name}/name", f"{meaning}\n")
    port = there.root / "dev" / name
    port.parent.mkdir(exist_ok=True)
    os.mkfifo(port)
    return port


def _starts(there: Host, seconds_ago: float) -> None:
    """The first process began so long ago, ten seconds after the kernel did."""
    ticks = 10 * os.sysconf("SC_CLK_TCK")
    there.write("proc/1/stat", f"1 (a ) b) S {'0 ' * 18}{ticks} 0 0\n")
    there.write("proc/uptime", f"{10 + seconds_ago:.2f} 0.00\n")


def test_a_file_written_since_the_start_is_fresh(host: Make) -> None:
    there = host("kvm")
    there.write("var/cache/cloud/cmdline", f"{LINE}\n")
    _starts(there, seconds_ago=5)

    assert there.finds().fresh


def test_a_file_of_an_earlier_start_is_not(host: Make) -> None:
    there = host("kvm")
    path = there.write("var/cache/cloud/cmdline", f"{LINE}\n")
    os.utime(path, (time.time() - 6, time.time() - 6))
    _starts(there, seconds_ago=5)

    assert not there.finds().fresh
    assert there.find(late=another) is None
    assert there.said == []


def test_a_fresh_line_is_waited_for_behind_an_old_one(host: Make) -> None:
    there = host("kvm")
    path = there.write("var/cache/cloud/cmdline", f"{LINE}\n")
    os.utime(path, (time.time() - 6, time.time() - 6))
    _starts(there, seconds_ago=5)
    thread = later(lambda: path.write_text(f"{LINE}\n"))
    found = there.find(wait_s=20, late=another)
    thread.join()

    assert found is not None
    assert found.fresh
    assert parse(found.text) == parse(LINE)


def test_vmware_another_line_comes_late_and_its_program_is_not_asked_all_the_time(host: Make) -> None:
    there = host("vmware", vmtoolsd=LINE)
    thread = later(lambda: there.programs.update(vmtoolsd=SECOND))
    found = there.find(wait_s=20, late=another)
    thread.join()

    assert found is not None
    assert not found.fresh
    assert parse(found.text) == parse(SECOND)
    assert len(there.asked) == 2


def test_hyper_v_another_pair_comes_late(host: Make) -> None:
    there = host("microsoft")
    path = there.write("var/lib/hyperv/.kvp_pool_0", pool(("cloudstack-vm-userdata", LINE)))
    assert there.find(late=another) is None
    path.write_bytes(pool(("cloudstack-vm-userdata", LINE), ("cloudstack-vm-userdata", SECOND)))
    found = there.find(late=another)

    assert found is not None
    assert parse(found.text) == parse(SECOND)


@pytest.mark.parametrize("kind", ["kvm", "vmware"])
def test_nothing_that_comes_late_overrules_an_operators_line(host: Make, kind: str) -> None:
    there = host(kind, vmtoolsd=SECOND)
    _starts(there, seconds_ago=5)
    there.write("mnt/cmdline", LINE)
    there.write("var/cache/cloud/cmdline", f"{SECOND}\n")

    assert there.find(late=another) is None
    assert parse(there.finds().text) == parse(LINE)


def test_where_something_is_stored_no_program_is_waited_for(host: Make) -> None:
    there = host("vmware", vmtoolsd=LINE)
    there.finds(wait_s=1)
    there.finds(wait_s=0)
    assert there.patience == [10, 10, 1, 1]


def test_xen_paravirtual_the_kernel_command_line(host: Make) -> None:
    there = host("xen")
    there.write("proc/cmdline", f"root=/dev/xvda1 ro console=hvc0 %{LINE.replace(' ', '%')} quiet\n")

    found = there.finds()

    assert parse(found.text) == parse(LINE)
    assert found.source == "the kernel command line"
    assert there.asked == []


def test_xen_with_hardware_support_the_xenstore(host: Make) -> None:
    there = host("xen", xenstore_read=f"%{LINE.replace(' ', '%')}\n")
    there.write("proc/cmdline", "BOOT_IMAGE=/vmlinuz root=/dev/xvda1 ro quiet\n")

    found = there.finds()

    assert parse(found.text) == parse(LINE)
    assert there.asked == [("xenstore-read", "vm-data/cloudstack/init")]


@pytest.mark.parametrize(
    ("kind", "programs", "what"),
    [
        ("xen", {}, "xenstore-read: No such file or directory"),
        ("xen", {"xenstore_read": "!xenstore-read: couldn't read path"}, "xenstore-read: couldn't read path"),
        ("vmware", {}, "vmtoolsd: No such file or directory"),
        ("oracle", {}, "dmidecode: No such file or directory"),
    ],
)
def test_what_could_not_be_asked_is_said_and_what_was_kept_counts(
    host: Make, kind: str, programs: dict[str, str], what: str
) -> None:
    there = host(kind, **programs)
    there.write("var/cache/cloud/cmdline", f"{LINE}\n")

    found = there.finds()

    assert found.source.endswith("/var/cache/cloud/cmdline of an earlier start")
    assert parse(found.text) == parse(LINE)
    assert there.said == [f"holdfast: {what}\n"]


def test_vmware_the_machine_id(host: Make) -> None:
    there = host("vmware", vmtoolsd=f" {LINE}\n")

    found = there.finds()

    assert parse(found.text) == parse(LINE)
    assert there.asked == [("vmtoolsd", "--cmd", "machine.id.get")]


@pytest.mark.parametrize("folder", ["var/opt/hyperv", "var/lib/hyperv"])
def test_hyper_v_the_newest_pair_of_that_name(host: Make, folder: str) -> None:
    there = host("microsoft")
    pairs = pool(("other", "x"), ("cloudstack-vm-userdata", LINE), ("cloudstack-vm-userdata", f" {SECOND}"))
    path = there.write(f"{folder}/.kvp_pool_0", pairs)

    assert parse(there.finds().text) == parse(SECOND)
    assert path.read_bytes() == pairs


def test_hyper_v_the_pool_fills_late_and_a_torn_record_is_none(host: Make) -> None:
    there = host("microsoft")
    whole = pool(("cloudstack-vm-userdata", LINE))
    path = there.write("var/opt/hyperv/.kvp_pool_0", whole[:1000])
    thread = later(lambda: path.write_bytes(whole))
    found = there.finds(wait_s=20)
    thread.join()

    assert parse(found.text) == parse(LINE)


def test_hyper_v_a_value_that_fills_its_record(host: Make) -> None:
    there = host("microsoft")
    value = f"{LINE} userdata="
    value += "A" * (2048 - len(value))
    there.write("var/opt/hyperv/.kvp_pool_0", pool(("cloudstack-vm-userdata", value), ("next", "type=dhcpsrvr")))

    assert parse(there.finds().text) == parse(value)


def test_xen_that_looks_like_hyper_v(host: Make) -> None:
    there = host("microsoft", xenstore_read=LINE.replace(" ", "%"))

    assert parse(there.finds().text) == parse(LINE)


def test_virtual_box_a_dmi_string(host: Make) -> None:
    text = (
        "# dmidecode 3.4\nHandle 0x0001, DMI type 1, 27 bytes\nSystem Information\n"
        f"\tManufacturer: innotek GmbH\n\tProduct Name: cmdline:{LINE}\n\tSerial Number: 0\n"
    )
    there = host("oracle", dmidecode=text)

    assert parse(there.finds().text) == parse(LINE)


@pytest.mark.parametrize("kind", ["none", "systemd-nspawn", "bhyve", "unheard-of"])
def test_anything_else_the_kernel_command_line_and_no_waiting(host: Make, kind: str) -> None:
    there = host(kind)
    there.write("proc/cmdline", f"console=ttyS0 quiet {LINE}\n")
    began = time.monotonic()

    found = there.finds(wait_s=20)

    assert parse(found.text) == {"console": "ttyS0", "quiet": "quiet", **parse(LINE)}
    assert time.monotonic() - began < 1


def test_anything_else_without_a_line(host: Make) -> None:
    there = host("none")
    there.write("proc/cmdline", "BOOT_IMAGE=/vmlinuz root=UUID=1-2 ro quiet\n")
    began = time.monotonic()

    assert there.find(wait_s=20) is None
    assert time.monotonic() - began < 1
    assert there.said == [
        "holdfast: no boot line (unknown): looked at /mnt/cmdline, /var/cache/cloud/cmdline, the kernel command line\n"
    ]


@pytest.mark.parametrize("kind", [*sources.TABLE, "none"])
def test_an_override_goes_before_everything(host: Make, kind: str) -> None:
    there = host(kind, xenstore_read=LINE, vmtoolsd=LINE, dmidecode=f"cmdline:{LINE}")
    for path, content in (
        ("mnt/cmdline", f"{SECOND}\r\n"),
        ("proc/cmdline", LINE),
        ("var/cache/cloud/cmdline", f"{LINE}\n"),
        ("var/opt/hyperv/.kvp_pool_0", pool(("cloudstack-vm-userdata", LINE))),
    ):
        there.write(path, content)

    found = there.finds()

    assert parse(found.text) == parse(SECOND)
    assert found.source == "/mnt/cmdline"
    assert there.asked == []


def test_bytes_that_are_no_text_stop_nobody(host: Make) -> None:
    there = host("kvm")
    there.write("var/cache/cloud/cmdline", b"name=\xff\xfe type=router \x00\x00\n")

    assert parse(there.finds().text)["type"] == "router"


def test_a_directory_in_the_place_of_the_file_is_said(host: Make) -> None:
    there = host("kvm")
    (there.root / "var/cache/cloud/cmdline").mkdir(parents=True)

    assert there.find() is None
    assert any("Is a directory" in text for text in there.said)
