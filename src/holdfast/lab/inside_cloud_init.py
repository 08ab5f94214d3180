"""Inside a guest: enters cloud-init's root file system, unseen by anybody else, and runs its CloudStack data source.

Run as a program with the tree's path, in a mount namespace of its own; prints one line of JSON.
"""

import base64
import importlib
import io
import json
import logging
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

_READ = "read"
_SCRATCH = "/mnt"
_WAIT_S = 10


def enter(tree: str) -> None:
    """Become the reader in the tree; what it writes is gone when it ends."""
    _mount("-t", "tmpfs", "holdfast-lab", _SCRATCH)
    root = Path(_SCRATCH, "root")
    for name in ("upper", "work", "root"):
        Path(_SCRATCH, name).mkdir()
    layers = f"lowerdir={tree},upperdir={_SCRATCH}/upper,workdir={_SCRATCH}/work"
    _mount("-t", "overlay", "holdfast-lab", "-o", layers, str(root))
    for name in ("proc", "dev"):
        _mount("--rbind", f"/{name}", str(root / name))
    # The name servers of the guest's lease.
    (root / "etc/resolv.conf").write_text(Path("/etc/resolv.conf").read_text())
    source = Path(__file__).read_text()
    os.chroot(root)
    os.chdir("/")
    python = "/usr/bin/python3"
    os.execve(python, [python, "-c", source, _READ], {"PATH": "/usr/bin:/bin", "LANG": "C.UTF-8"})  # noqa: S606 no shell


def _mount(*arguments: str) -> None:
    subprocess.run(["mount", *arguments], check=True)  # noqa: S603, S607 own words


def read() -> None:
    """Run the data source and print what it found."""
    helpers = importlib.import_module("cloudinit.helpers")
    distros = importlib.import_module("cloudinit.distros")
    source = importlib.import_module("cloudinit.sources.DataSourceCloudStack")
    told = io.StringIO()
    # Only now: its modules forget all handlers when they are imported.
    logging.basicConfig(stream=told, level=logging.WARNING, force=True)
    paths = helpers.Paths({"cloud_dir": "/var/lib/cloud", "run_dir": "/run/cloud-init"})
    for path in ("/var/lib/cloud", "/run/cloud-init"):
        Path(path).mkdir(parents=True, exist_ok=True)
    settings = {"datasource": {"CloudStack": {"max_wait": _WAIT_S, "timeout": _WAIT_S}}}
    found = source.DataSourceCloudStack(settings, distros.fetch("debian")("debian", {}, paths), paths)
    answer: dict[str, Any] = {"found": bool(found.get_data()), "router": found.vr_addr}
    if answer["found"]:
        raw = found.get_userdata_raw() or b""
        raw = raw if isinstance(raw, bytes) else raw.encode()
        answer |= {
            "metadata": found.metadata,
            "userdata": base64.b64encode(raw).decode(),
            "parts": _parts(found),
            "password": found.get_config_obj().get("password"),
        }
    print(json.dumps(answer | {"log": told.getvalue()}))  # noqa: T201 its caller reads it


def _parts(found: Any) -> list[tuple[str, str]]:
    """What cloud-init would act on: user data after it has been unpacked and told apart."""
    return [
        (part.get_content_type(), part.get_payload(decode=True).decode(errors="replace"))
        for part in found.get_userdata().walk()
        if not part.is_multipart()
    ]


if __name__ == "__main__":
    if sys.argv[1] == _READ:
        read()
    else:
        enter(sys.argv[1])
