"""cloud-init's own CloudStack data source, run in a guest's network: what it finds out there.

It is never installed on this machine: it lives in a root file system of its own, built once beside the router's.
"""

import base64
import hashlib
import json
import sys
import time
from pathlib import Path
from typing import Any

from holdfast.lab import image
from holdfast.lab.guest import Guest
from holdfast.lab.inside_cloud_init import __file__ as inside_file
from holdfast.lab.process import must
from holdfast.lab.sentence import LabError, NotSo

# The data source asks for the password by wget.
PACKAGES = ("cloud-init", "libc-bin", "python3", "wget")
RECIPE = 1  # counts changes to how the tree is made that the list does not show
READ_S = 30.0

_OPTIONS = (
    # Unpacked and never set up: only its Python code and wget are run.
    "--variant=extract",
    '--aptopt=Acquire::Languages "none"',
    "--dpkgopt=path-exclude=/usr/share/man/*",
    "--dpkgopt=path-exclude=/usr/share/doc/*",
    "--dpkgopt=path-exclude=/usr/share/locale/*",
)


def tree() -> Path:
    """Return cloud-init's root file system, built if it is not there; LabError if that fails."""
    digest = hashlib.sha256(repr((image.SUITE, PACKAGES, RECIPE, _OPTIONS)).encode()).hexdigest()
    return image.made(image.cache() / digest[:16] / "cloud-init", _build)


def _build(root: Path) -> None:
    began = time.monotonic()
    _say("unpacking cloud-init, about 20 seconds")
    must(["mmdebstrap", *_OPTIONS, f"--include={','.join(PACKAGES)}", image.SUITE, str(root)], timeout_s=900)
    # Without the packages' own set-up these are missing.
    for name in ("proc", "sys", "run", "root"):
        (root / name).mkdir(exist_ok=True)
    (root / "etc/hosts").write_text("127.0.0.1 localhost\n")
    _say(f"unpacked in {time.monotonic() - began:.0f} s: {root.parent}")


def reads(guest: Guest) -> dict[str, Any]:
    """Let the data source look for its virtual router, as in a first boot; the guest needs a lease before.

    Returns `router` (the address that it found), `metadata` (as it parsed it), `userdata` (bytes as served),
    `parts` (what it makes of them: content type and text of each), `password` (None if none was pending) and
    `log`.  It asks for the password as every boot does, so a pending one is acknowledged afterwards.
    NotSo if it finds no data.
    """
    argv = ["unshare", "--mount", "--propagation", "private", "/usr/bin/python3", "-I", "-S", inside_file, str(tree())]
    done = guest.run(argv, timeout_s=READ_S + 10)
    if done.code:
        raise LabError(f"{guest.name}: cloud-init's data source broke: {done.errors[-2000:]}")
    told: dict[str, Any] = json.loads(done.text)
    if not told["found"]:
        raise NotSo(f"{guest.name}: cloud-init found no data: {told['log']}{guest.place.background()}")
    told["userdata"] = base64.b64decode(told["userdata"])
    return told


def _say(line: str) -> None:
    print(f"lab: {line}", file=sys.stderr, flush=True)  # noqa: T201 its reader is at a terminal
