"""What was asked of this router and what it answered: each call of a script in the journal and in a bounded log.

On KVM the text of a failing script is lost on its way to the management server.  Scripts start fast, so what is
imported here counts: no `typing`, no `pathlib`.  No secret may come in: of some scripts only such words are kept as
are known to be none.  `past` reads the log.
"""

import fcntl
import os
import sys
import syslog
import time
from collections.abc import Callable

LOG = "var/log/holdfast-answers.log"
"""One call a line, root's alone: seconds since 1970, exit status, seconds that it took, words, how the answer begins,
parted by tabs.  The log before it is kept beside it as `.1`, and nothing older.
"""
LARGEST = 1 << 20
"""Bytes of one log."""
LONGEST = 600
"""Characters of an answer that are kept."""
WORDS, WORD = 20, 80
"""How many words of a call are kept, and how many characters of each."""
ALERTED = frozenset(
    [
        "baremetal_snat.sh", "cks_iso.sh", "cleanup.sh", "keystore-cert-import", "keystore-setup", "manage_service.sh",
        "monitor_service.sh", "prepare_pxe.sh", "setup_tf_route.py",
    ]
)  # fmt: skip
"""Scripts that do something and tell nobody else when they cannot: an operator hears of it."""
_ASKS = ("manage_service.sh", "status")
"""How one of them only asks."""
_WAY = os.O_WRONLY | os.O_APPEND | os.O_CREAT | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC
"""How the log is opened: a pipe in its place blocks nobody."""
_HIDDEN = "(hidden)"
_CONF = r"/usr/local/cloud/systemvm/conf/[\w.]{1,60}"
_HARMLESS = {
    "savepassword.sh": r"-[vp]|\d{1,3}(\.\d{1,3}){3}",
    "keystore-setup": _CONF,
    "keystore-cert-import": rf"{_CONF}|ssh|agent",
}
"""Scripts with a secret among their arguments, and the words of theirs that are none."""


class _Both:
    """A stream that also remembers the beginning of what goes through it; one memory for two streams."""

    def __init__(self, stream: object, said: list[str]) -> None:
        self._stream, self._said = stream, said

    def write(self, text: str) -> int:
        if len(self._said) < LONGEST:
            self._said.append(text[: 2 * LONGEST])
        return self._stream.write(text)  # type: ignore[attr-defined,no-any-return]

    def remember(self, text: str) -> None:
        """As if it had been printed; what a caller must not read."""
        self._said.append(text[: 2 * LONGEST])

    def __getattr__(self, name: str) -> object:
        return getattr(self._stream, name)


def called(script: str, action: Callable[[list[str]], int], argv: list[str], root: str = "/") -> int:
    """Run a script's function with its arguments and note the call; its exit status.  Whatever it raises goes on."""
    began, clock = time.time(), time.monotonic()
    said: list[str] = []
    out, errors = sys.stdout, sys.stderr
    sys.stdout, sys.stderr = _Both(out, said), _Both(errors, said)
    code = 1
    try:
        code = action(argv)
    except SystemExit as end:
        code = end.code if isinstance(end.code, int) else int(end.code is not None)
        raise
    except BaseException as error:
        said.append(f"{type(error).__name__}: {error}")
        raise
    finally:
        sys.stdout, sys.stderr = out, errors
        answer, words = _plain("".join(said).strip()), " ".join((script, *shown(script, argv)))
        _note(root, words, code, f"{began:.3f}\t{code}\t{time.monotonic() - clock:.3f}\t{words}\t{answer}\n", answer)
        if code and script in ALERTED and (script, *argv[:1]) != _ASKS:
            _alert(root, f"{words}: {answer}")
    return code


def shown(script: str, argv: list[str]) -> list[str]:
    """The words of a call without its secrets, shortened."""
    harmless, before = _HARMLESS.get(script), ""
    found = []
    for word in argv[:WORDS]:
        secret = harmless and (before == "-p" or not _is(harmless, word))
        found.append(_HIDDEN if secret else _plain(word)[:WORD] or "''")
        before = word
    return found + ["…"] * (len(argv) > WORDS)


def _is(pattern: str, word: str) -> bool:
    import re  # noqa: PLC0415 of few scripts

    return re.fullmatch(pattern, word, re.ASCII) is not None


def _plain(text: str) -> str:
    """One line, without anything that a terminal or a log could take for more than text."""
    lines = "; ".join(text[: 2 * LONGEST].splitlines())[:LONGEST]
    return lines if lines.isprintable() else "".join(c if c.isprintable() else " " for c in lines)


def _note(root: str, words: str, code: int, line: str, answer: str) -> None:
    """Write it down; a full disk, or none at all, fails no script."""
    level = syslog.LOG_WARNING if code else syslog.LOG_INFO
    syslog.syslog(level, f"holdfast: {words}: exit {code}: {answer or 'no text'}")
    try:
        _append(os.path.join(root, LOG), line.encode())  # noqa: PTH118 no pathlib here
    except OSError as error:
        syslog.syslog(syslog.LOG_WARNING, f"holdfast: this answer is in the journal alone: {error}")


def _append(path: str, line: bytes) -> None:
    handle = os.open(path, _WAY, 0o600)
    try:
        os.write(handle, line)  # in one piece, so that two at once do not mix
        if os.fstat(handle).st_size > LARGEST:
            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
            # Of two at once the second finds that it has been done.
            if os.stat(path).st_ino == os.fstat(handle).st_ino:  # noqa: PTH116 same
                os.replace(path, f"{path}.1")  # noqa: PTH105 same
    finally:
        os.close(handle)


def _alert(root: str, text: str) -> None:
    from pathlib import Path  # noqa: PLC0415 seldom needed

    from holdfast.alerts import alert  # noqa: PLC0415 same

    alert(Path(root), [text])
