"""Packages of this checkout, or of one that differs from it, for routers that have Debian alone on their disks."""

import importlib
import shutil
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

import pytest

from holdfast.lab import image
from holdfast.lab.process import must

ROOT = Path(__file__).resolve().parents[2]

Make = Callable[[str, Mapping[str, str]], Path]
"""Makes one of a version and of what differs in its sources: text to add by module, or the whole of a file of
`system/`, empty for one that it does not have.
"""


@contextmanager
def bare_disks(home: Path) -> Iterator[Make]:
    """Routers that are made meanwhile have no Holdfast; packages are made in `home`."""
    nothing = home / "nothing"
    nothing.mkdir()
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(image, "install", lambda: nothing)
        patch.syspath_prepend(str(ROOT / "packaging"))
        build, control = importlib.import_module("build"), importlib.import_module("control")
        architecture = must(["dpkg", "--print-architecture"]).strip()

        def make(version: str, changed: Mapping[str, str]) -> Path:
            source = home / version
            shutil.copytree(ROOT / "src", source, ignore=shutil.ignore_patterns("__pycache__"))
            system = home / f"{version}.system"
            shutil.copytree(ROOT / "system", system)
            for name, text in changed.items():
                if name.startswith("system/"):
                    (system / name.removeprefix("system/")).write_text(text)
                else:
                    with (source / "holdfast" / name).open("a") as file:
                        file.write(text)
            for empty in (path for path in system.rglob("*") if path.is_file() and not path.stat().st_size):
                empty.unlink()
            patch.setattr(build, "SOURCE", source)
            patch.setattr(build, "SYSTEM", system)
            made: Path = build.build(control.Package(architecture, version), home, 1700000000)
            return made

        yield make
