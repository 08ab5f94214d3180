"""A bundle of messages in one file (`VR-<uuid>.cfg`), parsed and never handed to a shell.  Pure."""

from collections.abc import Iterator
from typing import NamedTuple

from holdfast.errors import Rejected

VERSION = "1.0"
UPDATE = "update_config.py"


class Step(NamedTuple):
    """One script of a bundle: for `update_config.py` the message's name and bytes, for others their arguments."""

    script: str
    argument: str
    document: bytes = b""


def steps(text: bytes) -> list[Step]:
    """The scripts in their order, each message as it stood when its script came (names may repeat, WIRE 3).

    Rejected, naming the line, if the file is no bundle.
    """
    files: dict[str, bytes] = {}
    found = []
    for tag, line, lines in _blocks(text):
        if tag == b"file":
            if not lines:
                raise Rejected("a file block without a path", f"line {line}")
            files[lines[0].decode("utf-8", "replace").rpartition("/")[2]] = b"\n".join(lines[1:])
        elif tag == b"script":
            found += [_step(words.decode("utf-8", "replace").split(), files, line) for words in lines if words.strip()]
        elif lines and lines[0].strip() != VERSION.encode():
            raise Rejected(f"bundles of version {lines[0].decode('utf-8', 'replace')!r} are not known", f"line {line}")
    return found


def _step(words: list[str], files: dict[str, bytes], line: int) -> Step:
    script = words[0].rpartition("/")[2]
    if script != UPDATE:
        return Step(script, " ".join(words[1:]))
    name = words[1].rpartition("/")[2] if len(words) > 1 else ""
    if name not in files:
        raise Rejected(f"{script} names {name!r}, which the bundle has not brought before", f"line {line}")
    return Step(script, name, files[name])


def _blocks(text: bytes) -> Iterator[tuple[bytes, int, list[bytes]]]:
    """Tags stand alone on their lines and do not nest."""
    lines: list[bytes] = []
    tag, start = b"", 0
    for number, line in enumerate(text.split(b"\n"), 1):
        if tag:
            if line == b"</" + tag + b">":
                yield tag, start, lines
                tag, lines = b"", []
            else:
                lines.append(line)
        elif line in (b"<version>", b"<file>", b"<script>"):
            tag, start = line[1:-1], number
        elif line.strip() and not line.startswith(b"#"):
            raise Rejected(
                f"{line[:60].decode('utf-8', 'replace')!r} is neither a comment nor a block", f"line {number}"
            )
    if tag:
        raise Rejected(f"the <{tag.decode()}> block does not end", f"line {start}")
