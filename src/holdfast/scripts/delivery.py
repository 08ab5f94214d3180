"""What the management server delivers for patching: noted and cleared away, and never run."""

import os
import sys
import zlib
from collections.abc import Sequence
from pathlib import Path

from holdfast import whole
from holdfast.scripts import failed, refuse, words
from holdfast.scripts.version import SIGNATURE, signature

CACHE = "var/cache/cloud"
SCRIPTS = "cloud-scripts.tgz"
PATCH = "patch-sysvms.sh"
DELIVERED = ("agent.zip", SCRIPTS, PATCH)
"""The names that servers of 4.16 and later copy into the inbox; none is a message."""
LARGEST = 64 * 1024 * 1024
"""Bytes of the scripts' archive, packed; those of 4.22 have 150 kB."""
_STEP = 1024 * 1024


def patched(argv: Sequence[str] = (), root: Path = Path("/")) -> int:
    """Answer for patch-sysvms.sh: `version:<signature>`, one line with one colon, as the server parses it.

    Status 1, and what was delivered stays, if the archive is not whole: the server then keeps the signature it knew.
    """
    if words(argv):
        return refuse("holdfast-patched   the signature of the scripts that the server delivered last")
    try:
        take(root)
    except (OSError, ValueError) as error:
        return failed(error)
    sys.stdout.write(f"version:{signature(root).replace(':', ' ').split()[0]}\n")
    return 0


def take(root: Path) -> None:
    """Make a delivered archive's MD5 the signature that is told, and remove what came with it.

    Nothing happens where no archive lies.  ValueError if it is not whole: it may still be on its way.
    """
    path = root / CACHE / SCRIPTS
    try:
        data = _read(path)
    except FileNotFoundError:
        return
    if not _whole(data):
        raise ValueError(f"{SCRIPTS} is not a whole archive")
    from hashlib import md5  # noqa: PLC0415 costs a third of a script's start, for a file that is seldom there

    whole.put(root / SIGNATURE, f"{md5(data, usedforsecurity=False).hexdigest()}\n".encode(), 0o644)
    for name in DELIVERED:
        (root / CACHE / name).unlink(missing_ok=True)


def _read(path: Path) -> bytes:
    with os.fdopen(os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK), "rb") as file:
        data = file.read(LARGEST + 1)
    if len(data) > LARGEST:
        raise ValueError(f"{SCRIPTS} has more than {LARGEST} bytes")
    return data


def _whole(data: bytes) -> bool:
    """Whether gzip's own length and sum are right.  Unpacked in steps, so that no archive takes the memory."""
    stream = zlib.decompressobj(wbits=31)
    try:
        while data and not stream.eof:
            stream.decompress(data, _STEP)
            data = stream.unconsumed_tail
    except zlib.error:
        return False
    return stream.eof
