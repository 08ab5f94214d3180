"""cks_iso.sh: the disc in the router's drive, mounted where guests are served from it, now and after each start.

systemd keeps the wish: the mount unit is wanted by multi-user.target, or not.  The role plays no part: a backup may
have its disc mounted, since its guest service stands still.
"""

import errno
import fcntl
import os
import stat
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path

from holdfast.run import run
from holdfast.scripts import failed, refuse
from holdfast.whole import put, sync

UNIT = r"var-www-html-cks\x2diso.mount"
PLACE = "var/www/html/cks-iso"
DRIVES = ("dev/cdrom", "dev/sr0")
"""Where a drive may be; the unit knows the first."""
NOTE = "run/holdfast/cks-iso"
"""Which disc was mounted: the kernel's number of it.  Also the lock of two calls at a time."""

_TARGET = "multi-user.target"
_WANTED = f"etc/systemd/system/{_TARGET}.wants/{UNIT}"
_ELSEWHERE = f"etc/systemd/system/{UNIT}.d/drive.conf"
_BLKGETDISKSEQ = 0x80081280  # linux/fs.h: a number that no other disc in any drive has had since the start
_INSERTED_S = 3.0  # a disc that was put in just now may not be ready
_FREE_S = 5.0  # the guest service lets go of a disc that is gone within a second
_SYSTEMD_S = 30.0
_PAUSE_S = 0.2


def cks_iso(argv: Sequence[str], root: Path = Path("/")) -> int:
    """cks_iso.sh true|false: 0 if guests are served the disc that is in the drive now; or none, and the drive is free.

    1 and the reason where that is not so.  A `true` that fails leaves nothing mounted, and no wish for it.
    """
    if list(argv) not in (["true"], ["false"]):
        return refuse("cks_iso.sh true|false   whether guests are served the Kubernetes ISO")
    try:
        with _alone(root) as note:
            if argv[0] == "true":
                _serve(root, note)
            else:
                _end(root, note)
                if drive := _drive(root):
                    _freed(drive)
    except OSError as error:
        return failed(error)
    return 0


@contextmanager
def _alone(root: Path) -> Iterator[int]:
    """One call at a time: the note, locked."""
    path = root / NOTE
    path.parent.mkdir(parents=True, exist_ok=True)
    handle = os.open(path, os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW | os.O_CLOEXEC, 0o600)
    try:
        fcntl.flock(handle, fcntl.LOCK_EX)
        yield handle
    finally:
        os.close(handle)


def _serve(root: Path, note: int) -> None:
    place = root / PLACE
    try:
        drive, disc = _inserted(root)
        if os.path.ismount(place) and os.pread(note, 64, 0) == disc:
            _want(root)
            return
        # The kernel would take the old disc's file system for the new one's as long as anybody reads it.
        _end(root, note)
        _freed(drive)
        _point(root, drive)
        _systemctl("start", UNIT)
        _want(root)
        os.pwrite(note, disc, 0)
    except OSError as error:
        with suppress(OSError):
            _end(root, note)
        for word in ("stop", "reset-failed"):  # a start that still waits; and a failure of which all is said here
            with suppress(OSError):
                _systemctl(word, UNIT)
        raise OSError(f"the ISO is not served: {error}") from error


def _inserted(root: Path) -> tuple[Path, bytes]:
    """The drive that there is, and the number of the disc in it; OSError if either is missing."""
    drive = _drive(root)
    if drive is None:
        raise OSError("there is no drive, neither /dev/cdrom nor /dev/sr0")
    end = time.monotonic() + _INSERTED_S
    while True:
        try:
            return drive, _number(drive)
        except OSError as error:
            if time.monotonic() > end:
                empty = error.errno in (errno.ENOMEDIUM, errno.ENXIO)
                raise OSError(f"no disc in {drive}" if empty else f"{drive}: {error.strerror}") from error
            time.sleep(_PAUSE_S)


def _number(drive: Path) -> bytes:
    handle = os.open(drive, os.O_RDONLY | os.O_CLOEXEC)
    try:
        if not os.lseek(handle, 0, os.SEEK_END):
            raise OSError(errno.ENOMEDIUM, os.strerror(errno.ENOMEDIUM))
        return fcntl.ioctl(handle, _BLKGETDISKSEQ, bytes(8)).hex().encode()
    finally:
        os.close(handle)


def _drive(root: Path) -> Path | None:
    for path in (root / name for name in DRIVES):
        with suppress(OSError):
            if stat.S_ISBLK(path.stat().st_mode):
                return path
    return None


def _end(root: Path, note: int) -> None:
    """Nothing is mounted, nor wished for; who is reading lets go soon."""
    os.ftruncate(note, 0)
    place = root / PLACE
    drop_in = root / _ELSEWHERE
    if os.path.lexists(root / _WANTED) or os.path.ismount(place):
        _systemctl("disable", UNIT)
        if (root / _WANTED).parent.is_dir():
            sync((root / _WANTED).parent)
        _systemctl("stop", UNIT)
        if os.path.ismount(place):  # one upon another, as an earlier agent's
            run(["umount", "--lazy", "--", str(place)])
    if drop_in.exists():
        drop_in.unlink()
        _systemctl("daemon-reload")


def _freed(drive: Path) -> None:
    """Wait until no file system of the drive is in use, by whomever; OSError if one still is."""
    end = time.monotonic() + _FREE_S
    while True:
        try:
            os.close(os.open(drive, os.O_RDONLY | os.O_EXCL | os.O_CLOEXEC))
        except OSError as error:
            if error.errno != errno.EBUSY:
                return  # no disc, no drive
            if time.monotonic() > end:
                raise OSError(f"nothing is mounted for guests, but {drive} is still in use") from error
            time.sleep(_PAUSE_S)
        else:
            return


def _point(root: Path, drive: Path) -> None:
    """Let the unit mount this drive."""
    if drive == root / DRIVES[0]:
        return
    path = root / _ELSEWHERE
    path.parent.mkdir(parents=True, exist_ok=True)
    put(path, f"[Mount]\nWhat={drive}\n".encode(), 0o644)
    _systemctl("daemon-reload")


def _want(root: Path) -> None:
    """Wish for it, for as long as the disk lasts."""
    if not os.path.lexists(root / _WANTED):
        _systemctl("add-wants", _TARGET, UNIT)
        sync((root / _WANTED).parent)


def _systemctl(*words: str) -> None:
    run(["systemctl", *words], timeout_s=_SYSTEMD_S)
