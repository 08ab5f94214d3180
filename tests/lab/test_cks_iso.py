"""A disc in the router's drive and the guests who read it: put in, changed, taken out, and there again after a reboot.

This kernel has no iso9660: the discs are ext4 on a loop device, which stands for the drive, and a drop-in says so.
"""

import fcntl
import hashlib
import os
import socket
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from isolated import GUEST_GATEWAY, Isolated, isolated
from served import asks, metadata
from test_scripts import merged
from watching import socket_in

from holdfast.lab.process import must
from holdfast.scripts.cks_iso import DRIVES, PLACE, UNIT

pytestmark = [pytest.mark.lab, pytest.mark.appliance]

WEB_ADDRESS = "10.31.5.10"
LARGE = 32 << 20
CONF = "/etc/systemd/system/{}.d/lab.conf"
_LOOP_CHANGE_FD = 0x4C06  # another disc, whoever has the old one mounted


class Drive:
    """A loop device that the router may take for its drive."""

    def __init__(self, net: Isolated, home: Path) -> None:
        self.net, self.home = net, home
        self.device = ""

    def disc(self, name: str, *, large: bool = False) -> Path:
        """A disc with a directory `k8s` in it, all of one size."""
        content, image = self.home / name, self.home / f"{name}.img"
        (content / "k8s").mkdir(parents=True)
        (content / "k8s/name").write_text(name)
        (content / "outside").symlink_to("/etc/hostname")
        if large:
            (content / "large").write_bytes(os.urandom(1 << 20) * (LARGE >> 20))
        with image.open("wb") as file:
            file.truncate(LARGE + (64 << 20))
        must(["mkfs.ext4", "-q", "-O", "^has_journal", "-d", str(content), str(image)])
        return image

    def insert(self, image: Path) -> None:
        self.device = must(["losetup", "--read-only", "--find", "--show", str(image)]).strip()

    def change(self, image: Path) -> None:
        with Path(self.device).open("rb") as drive, image.open("rb") as disc:
            fcntl.ioctl(drive, _LOOP_CHANGE_FD, disc.fileno())

    def take_out(self) -> None:
        if self.device:
            must(["losetup", "--detach", self.device])
            self.device = ""

    def attach(self, name: str) -> None:
        """Let the router see it, now and after each start."""
        number = os.minor(Path(self.device).stat().st_rdev)
        for other in DRIVES:
            self.net.router.shell(["rm", "-f", f"/{other}"])
        line = f"b /{name} 0660 root root - 7:{number}\n"
        assert self.net.router.shell(["tee", "/etc/tmpfiles.d/drive.conf"], stdin=line.encode()).code == 0
        done = self.net.router.shell(["systemd-tmpfiles", "--create", "/etc/tmpfiles.d/drive.conf"])
        assert done.code == 0, done.errors


@pytest.fixture(scope="module")
def net() -> Iterator[Isolated]:
    with isolated("cksiso") as net:
        net.command("vm_metadata", metadata(WEB_ADDRESS, {"local-hostname": "web1"}))
        text = b"[Mount]\nType=ext4\nOptions=\nOptions=ro,nosuid,nodev,noexec,nofail\n"
        path = CONF.format(UNIT)
        assert net.router.shell(["mkdir", "-p", str(Path(path).parent)]).code == 0
        assert net.router.shell(["tee", path], stdin=text).code == 0
        assert net.router.shell(["systemctl", "daemon-reload"]).code == 0
        yield net


@pytest.fixture(scope="module")
def drive(net: Isolated, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Drive]:
    made = Drive(net, tmp_path_factory.mktemp("discs"))
    yield made
    net.router.run("cks_iso.sh", "false")
    made.take_out()


def named(net: Isolated) -> tuple[int, bytes]:
    answer = asks(net.web, GUEST_GATEWAY, "/cks-iso/k8s/name")
    return answer.status, answer.body


def wanted(net: Isolated, wish: str) -> tuple[int, str]:
    began = time.monotonic()
    done = merged(net.router.run("cks_iso.sh", wish))
    print(f"{wish}: {done} in {time.monotonic() - began:.2f} s")  # noqa: T201 measured
    return done


@contextmanager
def reading(net: Isolated, target: str) -> Iterator[socket.socket]:
    """A guest that has begun to read, and then takes nothing."""
    with socket_in(net.web, socket.SOCK_STREAM) as wire:
        wire.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
        wire.settimeout(20)
        wire.connect((GUEST_GATEWAY, 80))
        wire.sendall(f"GET {target} HTTP/1.0\r\n\r\n".encode())
        assert wire.recv(100).startswith(b"HTTP/1.1 200 ")
        yield wire


def test_a_disc_is_served_as_long_as_it_is_wished_for(net: Isolated, drive: Drive) -> None:
    assert wanted(net, "true") == (
        1,
        "error: the ISO is not served: there is no drive, neither /dev/cdrom nor /dev/sr0\n",
    )
    assert wanted(net, "false") == (0, "")
    first, second = drive.disc("first", large=True), drive.disc("second")
    drive.insert(first)
    drive.attach("dev/cdrom")
    assert named(net)[0] == 404

    assert wanted(net, "true") == (0, "")
    assert named(net) == (200, b"first")
    options = net.router.shell(["findmnt", "-no", "OPTIONS", f"/{PLACE}"]).text
    assert {"ro", "nosuid", "nodev", "noexec"} <= set(options.strip().split(","))
    assert b'href="./name"' in asks(net.web, GUEST_GATEWAY, "/cks-iso/k8s/").body
    assert asks(net.web, GUEST_GATEWAY, "/cks-iso/outside").status == 404
    assert asks(net.web, GUEST_GATEWAY, "/cks-iso/../../../etc/hostname").status == 404
    assert asks(net.app, GUEST_GATEWAY, "/cks-iso/k8s/name").status == 404  # the view does not know it
    assert asks(net.world, "203.0.113.21", "/cks-iso/k8s/name", timeout_s=1).status == 0
    began = time.monotonic()
    large = asks(net.web, GUEST_GATEWAY, "/cks-iso/large", timeout_s=30)
    took = time.monotonic() - began
    print(f"{LARGE / took / 1e6:.0f} MB/s to one guest")  # noqa: T201 measured
    expected = (drive.home / "first/large").read_bytes()
    assert hashlib.sha256(large.body).digest() == hashlib.sha256(expected).digest()

    with reading(net, "/cks-iso/large") as wire:  # the same again disturbs nobody
        assert wanted(net, "true") == (0, "")
        heard = 0
        while heard < 8 << 20:
            heard += len(wire.recv(1 << 20)) or LARGE * 2
        assert heard < LARGE

    drive.change(second)
    assert wanted(net, "true") == (0, "")
    assert named(net) == (200, b"second")
    drive.change(first)
    assert wanted(net, "true") == (0, "")
    assert named(net) == (200, b"first")

    with reading(net, "/cks-iso/large"):  # one that has begun and stalls does not keep the disc
        assert wanted(net, "false") == (0, "")
        assert named(net)[0] == 404
        assert net.router.shell(["findmnt", f"/{PLACE}"]).code == 1
    assert wanted(net, "false") == (0, "")
    assert not net.router.shell(["systemctl", "--failed", "--plain", "--no-legend"]).text


def test_it_is_there_again_after_a_reboot_if_the_disc_is(net: Isolated, drive: Drive) -> None:
    assert wanted(net, "true") == (0, "")
    net.router.reboot()
    net.converged()
    net.router.eventually(lambda: named(net) == (200, b"first"), "the disc is served again", timeout_s=10)
    assert wanted(net, "true") == (0, "")
    assert wanted(net, "false") == (0, "")
    drive.attach("dev/sr0")
    assert wanted(net, "true") == (0, "")
    assert named(net) == (200, b"first")
    assert wanted(net, "false") == (0, "")
    blank = drive.home / "blank"
    blank.write_bytes(bytes(1 << 20))
    drive.take_out()
    drive.insert(blank)
    drive.attach("dev/sr0")
    code, text = wanted(net, "true")
    assert (code, "the ISO is not served" in text, "journalctl" in text) == (1, True, True)
    drive.take_out()
    assert wanted(net, "true") == (1, "error: the ISO is not served: no disc in /dev/sr0\n")
    assert not net.router.shell(["systemctl", "--failed", "--plain", "--no-legend"]).text
    assert wanted(net, "false") == (0, "")
    assert named(net)[0] == 404
    left = net.router.shell(["find", "/etc/systemd/system", "-path", "*cks*", "-newer", CONF.format(UNIT)])
    assert not [path for path in left.text.split() if "lab.conf" not in path and not path.endswith(".d")]
