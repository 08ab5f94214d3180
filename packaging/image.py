# ruff: noqa: INP001, T201 a program of the build, not a package; who builds reads where it put what
"""Makes the router VM's image: Debian with the package installed, as a root file system and as a disk that boots."""

import argparse
import hashlib
import os
import re
import shutil
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple
from uuid import NAMESPACE_URL, uuid5

import build
import control
import image_disk

from holdfast.lab.image import SUITE, cache, made
from holdfast.lab.process import must

RECIPE = 3  # counts changes to how the root is made that the lists here do not show
ARCHITECTURE = "amd64"
KERNEL = "linux-image-cloud-amd64"
RELEASE = "4.22.0"
MIRROR = "http://deb.debian.org/debian"
MACHINE = (
    "dbus", "e2fsprogs", "initramfs-tools", "kmod", "libpam-systemd", "logrotate", "systemd-sysv", "udev",
)  # fmt: skip
"""What a virtual machine needs beside what the router needs."""
HYPERVISORS = ("dmidecode", "hyperv-daemons", "open-vm-tools", "xenstore-utils")
"""What the boot line is asked of where it is not KVM: one disk is for all of them.  Their services start on their own
hypervisor alone."""
TOOLS = ("iputils-arping", "iputils-ping", "iputils-tracepath", "less", "procps", "tcpdump", "traceroute")
"""What servers' diagnostics and people look around with."""
QUIET = (
    "apt-daily.timer", "apt-daily-upgrade.timer", "dpkg-db-backup.timer", "e2scrub_all.timer", "e2scrub_reap.service",
    "fstrim.timer", "man-db.timer",
)  # fmt: skip
"""What Debian does by itself at times: a router is replaced or upgraded, never changed behind its back."""
_OPTIONS = (
    "--variant=minbase",
    '--aptopt=Acquire::Languages "none"',
    "--dpkgopt=path-exclude=/usr/share/man/*",
    "--dpkgopt=path-exclude=/usr/share/doc/*",
    "--dpkgopt=path-include=/usr/share/doc/*/copyright",
    "--dpkgopt=path-exclude=/usr/share/locale/*",
)
_KEPT_S = 3600
_BUILT_HERE = (
    "etc/resolv.conf", "etc/hostname", "var/lib/dbus/machine-id", "var/cache/ldconfig/aux-cache",
    "var/lib/systemd/random-seed", "etc/passwd-", "etc/group-", "etc/shadow-", "etc/gshadow-",
)  # fmt: skip


class Recipe(NamedTuple):
    """What a root is made of: `mirror` as a URL, `kernel` as a package, `built_s` the time that everything bears.

    `release`: the newest CloudStack whose servers take this template for one of theirs; they refuse an older one.
    """

    mirror: str = MIRROR
    kernel: str = KERNEL
    built_s: int = 0
    release: str = RELEASE

    @property
    def version(self) -> str:
        """What distinguishes one disk from another."""
        return f"{control.version()}-{self.built_s}"


def packages(deb: Path, recipe: Recipe) -> list[str]:
    """Every Debian package that is asked for by name: the machine's own, and what the deb says that it needs."""
    fields = must(["dpkg-deb", "--field", str(deb), "Depends", "Recommends"])
    needed = re.findall(r"(?:^\w+: |, )([a-z0-9][a-z0-9+.-]+)", fields, re.MULTILINE)
    return sorted({recipe.kernel, *MACHINE, *HYPERVISORS, *TOOLS, *needed})


def root(deb: Path, recipe: Recipe) -> Path:
    """The root file system with the package installed, from the cache if it is there; LabError if a tool fails."""
    system = debian(packages(deb, recipe), recipe)
    digest = hashlib.sha256(deb.read_bytes() + repr((system.name, recipe, RECIPE, QUIET)).encode())
    return _cached("root", digest.hexdigest(), lambda fresh: _install(fresh, system, deb, recipe))


def debian(names: list[str], recipe: Recipe) -> Path:
    """Debian alone with these packages, from the cache if it is there."""
    digest = hashlib.sha256(repr((SUITE, names, recipe.mirror, _OPTIONS, RECIPE)).encode()).hexdigest()
    environment = ["env", f"SOURCE_DATE_EPOCH={recipe.built_s}", f"PATH={os.defpath}:/usr/sbin:/sbin"]
    argv = [*_OPTIONS, f"--include={','.join(names)}", SUITE]

    def bootstrap(fresh: Path) -> None:
        print(f"Debian {SUITE} with {len(names)} packages and what they need, about a minute", flush=True)
        must([*environment, "mmdebstrap", *argv, str(fresh), recipe.mirror], timeout_s=1800)
        # There is no fstab that would tell: a root that lost its power is looked at before it is mounted.
        (fresh / "etc/initramfs-tools/conf.d/router").write_text("export FSTYPE=ext4\n")
        must([*environment, "chroot", str(fresh), "update-initramfs", "-u"], timeout_s=600)

    return _cached("debian", digest, bootstrap)


def _cached(kind: str, digest: str, make: Callable[[Path], None]) -> Path:
    """Make one of a kind and forget those of older sources that no router stands on: each is hundreds of megabytes."""
    home = cache() / "machine" / kind
    path = made(home / digest[:16], make)
    (home / f".{path.name}.lock").touch()  # when it was last used
    mounted = Path("/proc/self/mountinfo").read_text()
    for lock in home.glob(".*.lock"):
        other = home / lock.name[1 : -len(".lock")]
        if other.is_dir() and str(other) not in mounted and time.time() - lock.stat().st_mtime > _KEPT_S:
            shutil.rmtree(other)
            lock.unlink()
    return path


def _install(fresh: Path, system: Path, deb: Path, recipe: Recipe) -> None:
    """Install as an operator would on a disk that nothing runs on, then take away what only this copy would have."""
    must(["cp", "--archive", "--reflink=auto", f"{system}/.", str(fresh)], timeout_s=600)
    shutil.copyfile(deb, fresh / deb.name)
    chroot = ["env", f"SOURCE_DATE_EPOCH={recipe.built_s}", "chroot", str(fresh)]
    # Offline: what the package needs and the list above lacks would be an error, not a download.
    must([*chroot, "dpkg", "--install", f"/{deb.name}"], timeout_s=300)
    (fresh / deb.name).unlink()
    units = fresh / "etc/systemd/system"
    for name in QUIET:
        (units / name).unlink(missing_ok=True)
        (units / name).symlink_to("/dev/null")
    (fresh / "etc/cloudstack-release").write_text(f"Cloudstack Release {recipe.release}\n")
    (fresh / "etc/default/locale").write_text("LANG=C.UTF-8\n")  # without it every login leaves an error in the journal
    menu = fresh / image_disk.MENU
    menu.parent.mkdir(parents=True, exist_ok=True)
    menu.write_text(image_disk.menu(disk(recipe)))
    _impersonal(fresh)
    _dated(fresh, recipe.built_s)


def _impersonal(fresh: Path) -> None:
    """Leave nothing that two routers of one image must not share, or that tells of the machine that made it."""
    for key in (fresh / "etc/ssh").glob("ssh_host_*"):
        key.unlink()  # made at the first start of sshd
    for name in _BUILT_HERE:
        (fresh / name).unlink(missing_ok=True)
    # Empty, not absent: an absent one is a first boot to systemd, which then enables every unit that there is.
    (fresh / "etc/machine-id").write_text("")
    (fresh / "etc/hosts").write_text("127.0.0.1 localhost\n")
    (fresh / "var/log/journal").mkdir(exist_ok=True)  # the journal survives
    for log in (fresh / "var/log").rglob("*"):
        if log.is_file():
            log.unlink()
    for listed in (fresh / "var/lib/apt/lists").glob("*_*"):
        listed.unlink()
    for archive in (fresh / "var/cache/apt").glob("**/*.[bd]*"):
        archive.unlink()


def _dated(fresh: Path, built_s: int) -> None:
    """Nothing is younger than the sources."""
    for path in [fresh, *fresh.rglob("*")]:
        if path.lstat().st_mtime > built_s:
            os.utime(path, (built_s, built_s), follow_symlinks=False)


def archive(top: Path, out: Path, recipe: Recipe) -> Path:
    """Pack a root file system; rights and owners by number, in the order of names."""
    kept = ["--numeric-owner", "--xattrs", "--xattrs-include=*", "--sort=name", "--format=posix"]
    kept += ["--pax-option=exthdr.name=%d/PaxHeaders/%f,delete=atime,delete=ctime"]
    kept += [f"--mtime=@{recipe.built_s}", "--clamp-mtime"]
    must(["tar", "--create", f"--file={out}", *kept, f"--directory={top}", "."], timeout_s=600)
    return out


def make(out: Path, recipe: Recipe) -> list[Path]:
    """Make the package, the root file system and the disk in `out`; LabError or CalledProcessError if a tool fails."""
    out.mkdir(parents=True, exist_ok=True)
    package = control.Package(ARCHITECTURE, control.version())
    deb = build.build(package, out, recipe.built_s)
    top = root(deb, recipe)
    name = out / f"holdfast_{package.version}_{ARCHITECTURE}"
    packed = archive(top, Path(f"{name}.tar"), recipe)
    with tempfile.TemporaryDirectory(prefix="holdfast-image.", dir=out) as scratch:
        return [deb, packed, image_disk.qcow2(top, Path(f"{name}.qcow2"), Path(scratch), disk(recipe))]


def main() -> None:
    """Make the images and say where they are, a line each."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--out", type=Path, default=control.ROOT / "build", help="directory for the images")
    parser.add_argument("--mirror", default=MIRROR, help="a snapshot's URL gives the same packages again")
    parser.add_argument("--kernel", default=KERNEL, help="linux-image-amd64 has every driver; the default is small")
    parser.add_argument("--release", default=RELEASE, help="CloudStack's release that the template tells its server")
    options = parser.parse_args()
    recipe = Recipe(options.mirror, options.kernel, build.built_s(), options.release)
    for path in make(options.out, recipe):
        print(path)


def disk(recipe: Recipe) -> image_disk.Disk:
    """What the disk of this recipe is called by, and when it was made."""
    return image_disk.Disk(uuid5(NAMESPACE_URL, f"holdfast:{recipe.version}"), recipe.built_s)


if __name__ == "__main__":
    main()
