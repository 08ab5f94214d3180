"""get_template_version.sh: what this router was made from."""

import sys
import time
from collections.abc import Sequence
from pathlib import Path

from holdfast import __version__
from holdfast.answers.get_template_version import versions
from holdfast.scripts import failed, note, read, refuse, words

SETTING = "etc/holdfast/template-version"
"""One line that is told instead of the release file's first."""
RELEASE = "etc/cloudstack-release"
SIGNATURE = "var/cache/cloud/cloud-scripts-signature"
DELIVERY = "var/cache/cloud/cloud-scripts.tgz"
ASKED = "run/holdfast/marks/asked"
BOOTED = "var/cache/cloud/boot_up_done"
PATIENCE_S = 60.0
_LOOK_S = 0.05
_LONGEST = 1024


def get_template_version(argv: Sequence[str], root: Path = Path("/"), patience_s: float = PATIENCE_S) -> int:
    """Print `<release>&<signature>`, once the router is up: servers ask this first, and send configuration next."""
    if words(argv):
        return refuse("get_template_version.sh   the template's release and the scripts' signature")
    until = time.monotonic() + patience_s
    while not (root / BOOTED).exists():
        if time.monotonic() > until:
            return failed(f"the router is not up after {patience_s:.0f} s")
        time.sleep(_LOOK_S)
    _take(root)
    try:
        sys.stdout.write(version(root))
    except ValueError as error:
        return failed(error)
    _asked(root)
    return 0


def _take(root: Path) -> None:
    """At a start on KVM the server delivers its scripts and expects the machine to have taken them by now."""
    if not (root / DELIVERY).exists():
        return
    from holdfast.scripts import delivery  # noqa: PLC0415 there is seldom anything to take

    try:
        delivery.take(root)
    except (OSError, ValueError) as error:  # the question has its answer all the same: what was told before
        note("get_template_version.sh", str(error))


def _asked(root: Path) -> None:
    """Leave word that it was asked: where nothing was said before, it is a start (`holdfast.sequence`)."""
    try:
        (root / ASKED).parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        (root / ASKED).write_bytes(b"1")
    except OSError as error:  # not printed: what follows the answer would be taken for a part of it
        note("get_template_version.sh", f"at a start it is not seen that this was asked: {error}")


def version(root: Path) -> str:
    """The answer; ValueError if the release is not known."""
    return versions(first_line(root / SETTING) or first_line(root / RELEASE), signature(root))


def signature(root: Path) -> str:
    """What servers compare to tell whether scripts are theirs; where none was left it is our own version."""
    return first_line(root / SIGNATURE) or f"holdfast-{__version__}"


def first_line(path: Path) -> str:
    """A file's first line; empty if there is none."""
    try:
        return read(path, _LONGEST).decode("utf-8", "replace").partition("\n")[0].strip()
    except OSError:
        return ""
