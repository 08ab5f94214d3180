"""Keys by which somebody may log in: what the boot line says, as lines that sshd reads.  Pure."""

import re
from base64 import b64decode

_KEY = re.compile(
    r"(?:sk-)?(?:ssh|ecdsa-sha2)-[a-z0-9@.-]{1,40} AAAA[0-9A-Za-z+/]{8,16384}={0,3}(?: [^\x00-\x1f\x7f]{0,256})?"
)
_LONGEST = 64 * 1024


def authorized(text: str) -> tuple[str, ...]:
    """The keys in an `authorized_key` of the boot line: base64 of one or more lines of authorized_keys(5).

    Only plain keys: a line that begins with options could run programs.  Empty if there is none; padding may
    be missing.
    """
    text = text.rstrip("=")
    try:
        decoded = b64decode(text + "=" * (-len(text) % 4), validate=True)[:_LONGEST].decode()
    except ValueError:  # no base64, or no text
        return ()
    lines = (line.strip() for line in decoded.splitlines())
    return tuple(dict.fromkeys(line for line in lines if _KEY.fullmatch(line)))
