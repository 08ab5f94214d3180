# ruff: noqa: INP001, T201 a program of the build, not a package; who builds reads where it put what
"""Makes the Debian packages from a checkout: the same bytes each time, without root and without debhelper."""

import argparse
import ast
import gzip
import hashlib
import os
import re
import subprocess
import tempfile
from collections.abc import Iterator, Mapping
from email.utils import formatdate
from pathlib import Path
from typing import NamedTuple, TypeAlias

import control
import wheels
from control import ROOT, Package

from holdfast.lab.places import LIBEXEC, UNITS, Placed, placed
from holdfast.outside import FILES, LINKS

SOURCE, SYSTEM, HERE = ROOT / "src", ROOT / "system", ROOT / "packaging"
TREE = "opt/holdfast/package"
PROGRAMS = (Path("opt/cloud/bin"), Path("usr/sbin"))
"""Where programs are called: links through the version in use."""
SCRIPTS = ("preinst", "postinst", "prerm", "postrm")
RESTARTED = (
    "holdfast-guest.socket", "holdfast-guest.service", "dnsmasq.service", "ssh.service", "haproxy.service",
    "holdfast-role.path", "holdfast-agent.service", "holdfast-health.timer", "conntrackd.service", "keepalived.service",
    "strongswan.service", "xl2tpd.service",
)  # fmt: skip
"""What may run while the package is upgraded, in the order in which it is restarted if it has changed."""


class File(NamedTuple):
    """A file's content and mode."""

    data: bytes
    mode: int = 0o644


class Link(NamedTuple):
    """Where a symbolic link points."""

    target: str


Content: TypeAlias = Mapping[str, File | Link]
"""What is in a package, by path relative to the root."""


def content(package: Package, libraries: Path, built_s: int) -> dict[str, File | Link]:
    """Every file of the package; `libraries` are the unpacked wheels, `built_s` the time that the changelog names."""
    tree = dict(_tree(libraries))
    digest = hashlib.sha256()
    for path, file in sorted(tree.items()):
        digest.update(f"{path}\0{file.mode:o}\0{hashlib.sha256(file.data).hexdigest()}\n".encode())
    tree["name"] = File(f"{package.version}-{digest.hexdigest()[:8]}\n".encode())
    return {
        **{f"{TREE}/{path}": file for path, file in tree.items()},
        "opt/holdfast/lib": Link("current/lib"),
        str(LIBEXEC): Link("current/libexec"),
        **dict(_system()),
        **dict(_documents(package, libraries, built_s)),
    }


def _tree(libraries: Path) -> Iterator[tuple[str, File]]:
    """What a version is: libraries, what the system calls by path, and which services have to hear of it."""
    lib = {}
    for top in [SOURCE / "holdfast", *(path for path in libraries.iterdir() if (path / "__init__.py").is_file())]:
        for path in sorted(top.rglob("*")):
            name = path.relative_to(top.parent)
            if path.suffix in (".py", ".so") and name.parts[:2] != ("holdfast", "lab"):
                lib[f"lib/{name}"] = File(path.read_bytes())
    yield from lib.items()
    links = []
    for one in placed(SYSTEM):
        yield inside(one), File(one.source.read_bytes(), one.mode)
        if one.to.parent in PROGRAMS:
            links.append(f"{one.to} {_through(one)}\n")
    yield LINKS, File("".join(links).encode())
    yield "libexec/holdfast-upgrade", File((HERE / "holdfast-upgrade").read_bytes(), 0o755)
    yield "parts", File("".join(f"{part(unit, lib)} {unit}\n" for unit in RESTARTED).encode())


def part(unit: str, lib: Mapping[str, File]) -> str:
    """Digest of everything that a service has read when it runs: another one means that it has to be restarted."""
    texts = [path.read_bytes() for path in (SYSTEM / unit, SYSTEM / f"{unit}.d/holdfast.conf") if path.is_file()]
    digest = hashlib.sha256(b"\0".join(texts))
    if unit == "holdfast-guest.service":
        digest.update((SYSTEM / "libexec/holdfast-guest").read_bytes())
        own = _imported("guest")
        for path in sorted(path for path in lib if not path.startswith("lib/holdfast/") or path in own):
            digest.update(lib[path].data)
    if unit == "holdfast-agent.service":  # what runs commands has read everything
        digest.update((SYSTEM / "libexec/holdfast-agent").read_bytes())
        for path in sorted(lib):
            digest.update(lib[path].data)
    return digest.hexdigest()[:16]


def _imported(room: str) -> set[str]:
    """Paths of our modules that a room imports, directly or not."""
    ahead, seen = sorted((SOURCE / "holdfast" / room).glob("*.py")), set[Path]()
    while ahead:
        module = ahead.pop()
        if module in seen or not module.is_file():
            continue
        seen.add(module)
        for node in ast.walk(ast.parse(module.read_bytes())):
            names = [node.module or ""] if isinstance(node, ast.ImportFrom) else []
            names += [f"{name}.{alias.name}" for name in names for alias in node.names]  # type: ignore[attr-defined]
            names += [alias.name for alias in node.names] if isinstance(node, ast.Import) else []
            for name in names:
                if name.split(".")[0] == "holdfast":
                    place = SOURCE.joinpath(*name.split("."))
                    ahead += [place.with_suffix(".py"), *(each / "__init__.py" for each in (place, place.parent))]
    return {f"lib/{path.relative_to(SOURCE)}" for path in seen}


def inside(one: Placed) -> str:
    """Where in a version's tree the file of a place is."""
    if one.to.parent == LIBEXEC:
        return f"libexec/{one.to.name}"
    return f"bin/{one.to.name}" if one.to.parent in PROGRAMS else f"{FILES}/{one.to}"


def _through(one: Placed) -> str:
    """What the name of a program links to.  Debian's policy: relative below one top directory, absolute to another."""
    target = f"opt/holdfast/current/{inside(one)}"
    top = one.to.parts[0] == target.partition("/")[0]
    return os.path.relpath(target, one.to.parent) if top else f"/{target}"


def _system() -> Iterator[tuple[str, File | Link]]:
    """What is found outside the trees: programs by their links, units and accounts by copies of their own."""
    for one in placed(SYSTEM):
        if one.to.parent in PROGRAMS:
            yield str(one.to), Link(_through(one))
        elif one.to.parent != LIBEXEC:
            yield str(one.to), File(one.source.read_bytes(), one.mode)


def enabled() -> list[str]:
    """Units that a start of the machine starts: those that say who wants them."""
    units = (source for to, source, _ in placed(SYSTEM) if to.parent == UNITS)
    return [unit.name for unit in units if re.search(r"^(WantedBy|RequiredBy)=", unit.read_text(), re.MULTILINE)]


def _documents(package: Package, libraries: Path, built_s: int) -> Iterator[tuple[str, File]]:
    yield "usr/share/man/man8/holdfast.8.gz", _packed((HERE / "holdfast.8").read_bytes())
    yield "usr/share/bash-completion/completions/holdfast", File((HERE / "completion").read_bytes())
    yield "usr/share/lintian/overrides/holdfast", File((HERE / "lintian-overrides").read_bytes())
    about = "usr/share/doc/holdfast"
    yield f"{about}/changelog.gz", _packed((ROOT / "CHANGELOG.md").read_bytes())
    date = formatdate(built_s)
    entry = f"holdfast ({package.version}) bookworm; urgency=medium\n\n  * What has changed is in changelog.gz.\n\n"
    yield f"{about}/changelog.Debian.gz", _packed(f"{entry} -- {control.MAINTAINER}  {date}\n".encode())
    text = (HERE / "copyright").read_text()
    for path in sorted(libraries.glob("*.dist-info/licenses/LICENSE*")):
        name = path.parts[-3].partition("-")[0]
        lines = (f" {line}" if line.strip() else " ." for line in path.read_text().strip().splitlines())
        text += f"\nLicense: {name}\n" + "\n".join(lines) + "\n"
    yield f"{about}/copyright", File(text.encode())


def _packed(data: bytes) -> File:
    return File(gzip.compress(data, 9, mtime=0))


def build(package: Package, out: Path, built_s: int) -> Path:
    """Make one package in the directory `out` and return its path; CalledProcessError if a tool fails."""
    out.mkdir(parents=True, exist_ok=True)
    files = content(package, wheels.unpacked(package.architecture), built_s)
    with tempfile.TemporaryDirectory(prefix="holdfast-deb.") as name:
        root = Path(name)
        root.chmod(0o755)
        for path, file in {**files, **_about(package, files)}.items():
            _lay(root / path, file)
        for place in [root, *root.rglob("*")]:
            if place.is_dir() and not place.is_symlink():
                place.chmod(0o755)
            os.utime(place, (built_s, built_s), follow_symlinks=False)
        argv = [
            "dpkg-deb",
            "--root-owner-group",
            "-Zxz",
            "--threads-max=1",
            "--build",
            str(root),
            str(out / package.file),
        ]
        environment = {**os.environ, "SOURCE_DATE_EPOCH": str(built_s)}
        subprocess.run(argv, check=True, stdout=subprocess.DEVNULL, env=environment)  # noqa: S603 a list, no shell
    return out / package.file


def _about(package: Package, files: Content) -> dict[str, File | Link]:
    """What dpkg is told: fields, scripts, checksums.  No file is anybody's to edit, so there are no conffiles."""
    size = sum(len(file.data) // 1024 + 1 if isinstance(file, File) else 1 for file in files.values())
    sums = "".join(
        f"{hashlib.md5(file.data, usedforsecurity=False).hexdigest()}  {path}\n"
        for path, file in sorted(files.items())
        if isinstance(file, File)
    )
    scripts = {name: (HERE / "scripts" / name).read_text().replace("@UNITS@", " ".join(enabled())) for name in SCRIPTS}
    return {
        "DEBIAN/control": File("".join(f"{line}\n" for line in control.fields(package, size)).encode()),
        "DEBIAN/md5sums": File(sums.encode()),
        **{f"DEBIAN/{name}": File(text.encode(), 0o755) for name, text in scripts.items()},
    }


def _lay(path: Path, file: File | Link) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    if isinstance(file, Link):
        path.symlink_to(file.target)
    else:
        path.write_bytes(file.data)
        path.chmod(file.mode)


def built_s() -> int:
    """The time that everything bears, seconds: SOURCE_DATE_EPOCH, or the last commit's."""
    said = os.environ.get("SOURCE_DATE_EPOCH")
    if not said:
        argv = ["git", "-C", str(ROOT), "log", "-1", "--format=%ct"]
        said = subprocess.run(argv, check=True, stdout=subprocess.PIPE, text=True).stdout  # noqa: S603 a list, no shell
    return int(said)


def main() -> None:
    """Make what the command line asks for and say where it is, a line a package."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--out", type=Path, default=ROOT / "build", help="directory for the packages")
    parser.add_argument("--version", default=control.version(), help="Debian's version; the project's by default")
    parser.add_argument("--architecture", action="append", choices=control.ARCHITECTURES, help="both by default")
    options = parser.parse_args()
    for architecture in options.architecture or control.ARCHITECTURES:
        print(build(Package(architecture, options.version), options.out, built_s()))


if __name__ == "__main__":
    main()
