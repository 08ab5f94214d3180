"""The router's root file system: a base built once, and a layer over it with Holdfast as it is installed."""

import compileall
import contextlib
import fcntl
import hashlib
import importlib.util
import os
import shutil
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path

from holdfast.lab.places import UNITS, Placed, placed
from holdfast.lab.process import must
from holdfast.lab.sentence import LabError

SUITE = "bookworm"
PACKAGES = (
    "charon-systemd", "conntrack", "conntrackd", "dbus", "dnsmasq-base", "dnsmasq-utils", "haproxy", "iproute2",
    "iputils-arping", "iputils-ping", "keepalived", "libcap2-bin", "libcharon-extra-plugins",
    "libstrongswan-standard-plugins", "netbase", "nftables", "openssh-server", "openssl", "ppp", "procps", "python3",
    "strongswan-swanctl", "systemd", "systemd-sysv", "traceroute", "xl2tpd",
)  # fmt: skip
RECIPE = 2  # counts changes to how the base is made that the lists here do not show

_DISABLED = (
    "ssh.service", "ssh.socket", "haproxy.service", "nftables.service", "systemd-timesyncd.service",
    "keepalived.service", "conntrackd.service", "strongswan.service", "xl2tpd.service",
)  # fmt: skip
_MASKED = (
    "systemd-networkd.service", "systemd-networkd.socket", "systemd-resolved.service", "systemd-logind.service",
    "console-getty.service", "getty.target", "apt-daily.timer", "apt-daily-upgrade.timer", "dpkg-db-backup.timer",
    "e2scrub_all.timer", "e2scrub_reap.service", "fstrim.timer", "systemd-firstboot.service", "motd-news.timer",
)  # fmt: skip
_MIRROR_OPTIONS = (
    "--variant=minbase",
    '--aptopt=Acquire::Languages "none"',
    "--dpkgopt=path-exclude=/usr/share/man/*",
    "--dpkgopt=path-exclude=/usr/share/doc/*",
    "--dpkgopt=path-exclude=/usr/share/locale/*",
)
_KEPT_INSTALLS = 5
_KEPT_S = 3600

DEPENDENCIES = ("h11", "msgspec")

CHECKOUT = Path(__file__).parents[3]
_SYSTEM = CHECKOUT / "system"
_USERS = _SYSTEM / "holdfast.sysusers"


def cache() -> Path:
    """Return where images are kept between runs."""
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "holdfast" / "lab"


def base() -> Path:
    """Return the base root file system, building it if it is not there; LabError if that fails."""
    recipe = (SUITE, PACKAGES, RECIPE, _DISABLED, _MASKED, _MIRROR_OPTIONS, _USERS.read_text())
    digest = hashlib.sha256(repr(recipe).encode()).hexdigest()
    home = cache() / digest[:16]
    return made(home / "base", _build_base)


def install() -> Path:
    """Return the layer with Holdfast itself, made again if a source of it has changed."""
    files = sorted(_sources())
    stamp = [
        (str(to), str(source), source.stat().st_mtime_ns, source.stat().st_size, mode) for to, source, mode in files
    ]
    digest = hashlib.sha256(repr((RECIPE, stamp)).encode()).hexdigest()
    installs = cache() / "install"
    layer = made(installs / digest[:16], lambda folder: _build_install(folder, files))
    os.utime(layer)  # when it was last used
    _prune(installs)
    return layer


def made(target: Path, build: Callable[[Path], None]) -> Path:
    """Make a directory whole or not at all, once, however many ask at a time."""
    if target.is_dir():
        return target
    target.parent.mkdir(parents=True, exist_ok=True)
    with (target.parent / f".{target.name}.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if not target.is_dir():
            fresh = Path(tempfile.mkdtemp(prefix=f".{target.name}.", dir=target.parent))
            try:
                fresh.chmod(0o755)
                build(fresh)
                fresh.rename(target)
            except BaseException:
                shutil.rmtree(fresh, ignore_errors=True)
                raise
    return target


def _build_base(root: Path) -> None:
    began = time.monotonic()
    _say(f"building the router's root file system ({SUITE}, {len(PACKAGES)} packages), about half a minute")
    include = f"--include={','.join(PACKAGES)}"
    must(["mmdebstrap", *_MIRROR_OPTIONS, include, SUITE, str(root)], timeout_s=900)
    units = root / "etc/systemd/system"
    # Listed, not matched by name: seen from outside the links point nowhere.
    for link in [link for wants in units.glob("*.wants") for link in wants.iterdir() if link.name in _DISABLED]:
        link.unlink()
    for unit in _MASKED:
        (units / unit).unlink(missing_ok=True)
        (units / unit).symlink_to("/dev/null")
    for name in ("etc/resolv.conf", "etc/hostname", "var/lib/dbus/machine-id"):
        (root / name).unlink(missing_ok=True)
    (root / "etc/hosts").write_text("127.0.0.1 localhost\n")
    (root / "var/log/journal").mkdir(exist_ok=True)  # the journal survives, as on a disk
    (root / "var/cache/cloud").mkdir(exist_ok=True)
    _add_users(root)
    _say(f"built in {time.monotonic() - began:.0f} s: {root.parent}")


def _add_users(root: Path) -> None:
    """Do what installing the package would, where the accounts are written: the layer above holds no passwd."""
    name = "holdfast.conf"
    shutil.copyfile(_USERS, root / "usr/lib/sysusers.d" / name)
    must(["chroot", str(root), "systemd-sysusers", name])


def _sources() -> Iterator[Placed]:
    """Every file of the install layer."""
    library = Path("opt/holdfast/lib")
    package = CHECKOUT / "src/holdfast"
    for name, top in [("holdfast", package), *((name, _installed(name)) for name in DEPENDENCIES)]:
        for source in top.rglob("*"):
            inside = source.relative_to(top)
            if (
                source.is_file()
                and "__pycache__" not in inside.parts
                and not (top == package and inside.parts[0] == "lab")
            ):
                yield Placed(library / name / inside, source)
    yield from placed(_SYSTEM)


def _installed(name: str) -> Path:
    """Directory of a package that Holdfast needs."""
    spec = importlib.util.find_spec(name)
    if spec is None or spec.origin is None:
        raise LabError(f"{name} is not installed beside Holdfast")
    return Path(spec.origin).parent


def _build_install(root: Path, files: list[Placed]) -> None:
    for to, source, mode in files:
        target = root / to
        target.parent.mkdir(parents=True, exist_ok=True)
        shutil.copy2(source, target)
        target.chmod(mode)
        if to.parent == UNITS:
            _enable(root, target)
    library = root / "opt/holdfast/lib"
    # The router's python is of this process's minor version, so is its byte code.
    if not compileall.compile_dir(library, quiet=2, stripdir=str(root), prependdir="/", workers=1):
        raise LabError(f"{library} does not compile")


def _enable(root: Path, unit: Path) -> None:
    """Do what installing the package would: a link for each target that the unit's [Install] names."""
    for line in unit.read_text().splitlines():
        name, _, targets = line.partition("=")
        if name in ("WantedBy", "RequiredBy"):
            for target in targets.split():
                wants = root / "etc/systemd/system" / f"{target}.{'wants' if name == 'WantedBy' else 'requires'}"
                wants.mkdir(parents=True, exist_ok=True)
                (wants / unit.name).symlink_to(f"/lib/systemd/system/{unit.name}")


def _prune(installs: Path) -> None:
    """Forget layers of older sources that no router stands on; one at a time, since tests start side by side."""
    with (installs / ".prune.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        mounted = Path("/proc/self/mountinfo").read_text()
        layers = [path for path in installs.iterdir() if path.is_dir() and path.name[0] != "."]
        layers.sort(key=lambda path: path.stat().st_mtime)
        for layer in layers[:-_KEPT_INSTALLS]:
            # One that was asked for just now may be about to be mounted.
            if str(layer) not in mounted and time.time() - layer.stat().st_mtime > _KEPT_S:
                with contextlib.suppress(OSError):
                    shutil.rmtree(layer)
                (installs / f".{layer.name}.lock").unlink(missing_ok=True)


def _say(line: str) -> None:
    print(f"lab: {line}", file=sys.stderr, flush=True)  # noqa: T201 its reader is at a terminal
