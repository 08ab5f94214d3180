"""Scripts that have nothing to do here, or that a router of this kind cannot do, and say so."""

import os
import re
import sys
from collections.abc import Sequence
from pathlib import Path

from holdfast.scripts import failed, refuse, words

_PATCHED = re.compile(r"/opt/cloud/bin/[A-Za-z0-9_.-]{1,60}", re.ASCII)
ISO = "var/www/html/cks-iso"


def bumpup_priority(argv: Sequence[str]) -> int:
    """bumpup_priority.sh: the priorities of a pair are not the server's to change; no server calls this any more."""
    return refuse("bumpup_priority.sh   does nothing") if words(argv) else 0


def patched(argv: Sequence[str], root: Path = Path("/")) -> int:
    """patched.sh PATH…: name what is there under /opt/cloud/bin, as ls(1) would; 2 if something is not."""
    if not argv or not all(_PATCHED.fullmatch(path) for path in argv):
        return refuse("patched.sh /opt/cloud/bin/NAME…   whether these scripts are there")
    there = [path for path in argv if (root / path.lstrip("/")).is_file()]
    sys.stdout.write("".join(f"{path}\n" for path in there))
    return 0 if len(there) == len(argv) else 2


def prepare_pxe(_argv: Sequence[str]) -> int:
    """prepare_pxe.sh: refused."""
    return failed("this router serves no baremetal hosts: nothing was prepared")


def baremetal_snat(_argv: Sequence[str]) -> int:
    """baremetal_snat.sh: refused."""
    return failed("this router serves no baremetal hosts: nothing is translated for them")


def cks_iso(argv: Sequence[str], root: Path = Path("/")) -> int:
    """cks_iso.sh true|false: there is no web root to put an ISO under, so `true` is refused; `false` leaves none."""
    if list(argv) == ["true"]:
        return failed("this release serves no files to guests: the ISO was not mounted")
    if list(argv) != ["false"]:
        return refuse("cks_iso.sh true|false   whether guests are served the Kubernetes ISO")
    if not os.path.ismount(root / ISO):
        return 0
    from holdfast.run import run  # noqa: PLC0415 for a mount that another agent left

    try:
        run(["umount", "--", str(root / ISO)])
    except OSError as error:
        return failed(error)
    return 0
