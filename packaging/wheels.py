# ruff: noqa: INP001 a program of the build, not a package
"""The libraries that a router needs besides Python: the lock's wheels, checked by hash and unpacked."""

import hashlib
import os
import shutil
import subprocess
import tempfile
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
UV = ROOT / ".venv/bin/uv"
# As old a C library as the wheels are made for: Debian 12 has 2.36.
PLATFORMS = {"amd64": "x86_64-manylinux_2_28", "arm64": "aarch64-manylinux_2_28"}


def cache() -> Path:
    """Where unpacked wheels are kept between builds."""
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "holdfast" / "wheels"


def locked() -> str:
    """Name what uv.lock locks for a router, with the hashes that it allows, in pip's words."""
    argv = ["export", "--frozen", "--quiet", "--no-header", "--no-annotate", "--no-dev", "--no-emit-project"]
    return _uv([*argv, "--format", "requirements-txt"])


def unpacked(architecture: str) -> Path:
    """Return a directory with these wheels unpacked, from the network once and from the cache afterwards.

    CalledProcessError if one cannot be had, or is not what the lock says.
    """
    wanted = locked()
    digest = hashlib.sha256(f"{PLATFORMS[architecture]}\n{wanted}".encode()).hexdigest()[:16]
    target = cache() / f"{architecture}-{digest}"
    if not target.is_dir():
        cache().mkdir(parents=True, exist_ok=True)
        fresh = Path(tempfile.mkdtemp(prefix=f".{target.name}.", dir=cache()))
        try:
            _fetch(architecture, wanted, fresh)
            fresh.rename(target)
        except BaseException:
            shutil.rmtree(fresh)
            raise
    return target


def _fetch(architecture: str, wanted: str, target: Path) -> None:
    with tempfile.NamedTemporaryFile("w", suffix=".txt") as file:
        file.write(wanted)
        file.flush()
        _uv([
            "pip", "install", "--quiet", f"--target={target}", "--python=/usr/bin/python3", "--python-version=3.11",
            f"--python-platform={PLATFORMS[architecture]}", "--no-deps", "--only-binary=:all:", "--require-hashes",
            "--link-mode=copy", f"--requirements={file.name}",
        ])  # fmt: skip


def _uv(words: list[str]) -> str:
    argv = [str(UV), "--project", str(ROOT), *words]
    return subprocess.run(argv, check=True, stdout=subprocess.PIPE, text=True).stdout  # noqa: S603 a list, no shell
