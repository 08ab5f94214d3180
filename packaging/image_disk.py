# ruff: noqa: INP001 a program of the build, not a package
"""Makes a disk that boots from a directory: one partition, ext4, GRUB for a BIOS; nothing is mounted."""

import struct
from pathlib import Path
from typing import NamedTuple
from uuid import UUID

from holdfast.lab.process import must

SIZE = 4 << 30  # bytes, as the machine sees it; the file is as large as what is in it
START = 1 << 20  # where the partition begins: GRUB lies between the first sector and it
_SECTOR = 512
_CODE, _SIGNATURE = 440, 0xAA55  # bytes of code in the first sector; its last two bytes
_LINUX, _ACTIVE = 0x83, 0x80
_NO_CHS = b"\xfe\xff\xff"  # beyond what cylinders can say: the numbers of sectors count
_GRUB = Path("/usr/lib/grub/i386-pc")
_GRUB_MODULES = ("biosdisk", "part_msdos", "ext2", "linux", "normal", "configfile", "serial", "terminal", "echo")
MENU = "boot/grub/grub.cfg"
_MENU = """serial --unit=0 --speed=115200
terminal_output console serial
set timeout=0
menuentry "router" {{
  linux /vmlinuz root=UUID={uuid} rw net.ifnames=0 console=tty0 console=ttyS0,115200n8
  initrd /initrd.img
}}
"""


class Disk(NamedTuple):
    """A disk's identity, and its time in seconds of the wall clock."""

    uuid: UUID
    built_s: int


def qcow2(root: Path, out: Path, scratch: Path, disk: Disk) -> Path:
    """Make a compressed qcow2 of a root file system, by way of a sparse file in `scratch`; LabError if a tool fails."""
    raw = scratch / "disk"
    with raw.open("wb") as file:
        file.truncate(SIZE)
    _file_system(root, raw, disk)
    _boot_loader(raw, scratch, disk)
    must(["qemu-img", "convert", "-c", "-f", "raw", "-O", "qcow2", str(raw), str(out)], timeout_s=1800)
    return out


def menu(disk: Disk) -> str:
    """What GRUB reads from `MENU`: the newest kernel, and where its root is."""
    return _MENU.format(uuid=disk.uuid)


def _file_system(root: Path, raw: Path, disk: Disk) -> None:
    when = ["env", f"SOURCE_DATE_EPOCH={disk.built_s}", f"E2FSPROGS_FAKE_TIME={disk.built_s}"]
    argv = ["mke2fs", "-q", "-F", "-t", "ext4", "-U", str(disk.uuid), "-L", "router", "-e", "remount-ro"]
    argv += ["-E", f"offset={START},hash_seed={disk.uuid},lazy_itable_init=0,lazy_journal_init=0", "-d", str(root)]
    must([*when, *argv, str(raw), f"{(SIZE - START) >> 10}k"], timeout_s=900)


def _boot_loader(raw: Path, scratch: Path, disk: Disk) -> None:
    core = scratch / "core"
    argv = ["grub-mkimage", f"--directory={_GRUB}", "--format=i386-pc", "--prefix=(hd0,msdos1)/boot/grub"]
    must([*argv, f"--output={core}", *_GRUB_MODULES])
    code = (_GRUB / "boot.img").read_bytes()[:_CODE]
    # GRUB's own two parts expect each other here: the first loads sector 1, which loads what follows it.
    with raw.open("r+b") as file:
        file.write(first_sector(code, disk))
        loader = core.read_bytes()
        if _SECTOR + len(loader) > START:
            raise ValueError("the boot loader does not fit before the partition")
        file.write(loader)


def first_sector(code: bytes, disk: Disk) -> bytes:
    """A master boot record with one active partition that goes from `START` to the end."""
    entry = struct.pack("<B3sB3sII", _ACTIVE, _NO_CHS, _LINUX, _NO_CHS, START // _SECTOR, (SIZE - START) // _SECTOR)
    return struct.pack("<440s4s2s16s48sH", code, disk.uuid.bytes[:4], b"", entry, b"", _SIGNATURE)
