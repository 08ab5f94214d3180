"""Scripts that have nothing to do here, or that a router of this kind cannot do, and say so."""

import re
import sys
from collections.abc import Sequence
from pathlib import Path

from holdfast.scripts import failed, refuse, words

_PATCHED = re.compile(r"/opt/cloud/bin/[A-Za-z0-9_.-]{1,60}", re.ASCII)


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


def monitor_service(_argv: Sequence[str]) -> int:
    """monitor_service.sh: refused."""
    return failed("services are not watched by this script: systemd keeps them, and configure.py takes the list")


def setup_tf_route(_argv: Sequence[str]) -> int:
    """setup_tf_route.py: refused."""
    return failed("this router sets no routes for TFTP: it serves no baremetal hosts")


def baremetal_snat(_argv: Sequence[str]) -> int:
    """baremetal_snat.sh: refused."""
    return failed("this router serves no baremetal hosts: nothing is translated for them")
