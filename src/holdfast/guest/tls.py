"""The certificate of the metadata port: the operator's, or one of our own making."""

import logging
import os
import ssl
import tempfile
from pathlib import Path

from holdfast.run import run

GIVEN = Path("/etc/holdfast/guest.pem")
NAME = "data-server"

_CURVE = "P-256"  # every client of TLS 1.2 has it; an RSA key takes a router's first boot a second
_DAYS = 7305  # twenty years
_TIMEOUT_S = 30
_log = logging.getLogger(__name__)


def context(given: Path, own: Path) -> ssl.SSLContext | None:
    """Load key and certificate from `given` if it is there and sound, else from `own`, which is made if need be.

    None if there is no way: guests are served without TLS then.
    """
    if found := _loaded(given) or _loaded(own):
        return found
    try:
        _make(own)
    except OSError as error:
        _log.error("no certificate: %s", error)
        return None
    return _loaded(own)


def _loaded(path: Path) -> ssl.SSLContext | None:
    found = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    found.minimum_version = ssl.TLSVersion.TLSv1_2
    try:
        # Without a password callback openssl would ask the terminal for an encrypted key's.
        found.load_cert_chain(path, password=lambda: b"")
    except FileNotFoundError:
        return None
    except OSError as error:  # ssl.SSLError is one
        _log.error("%s: %s", path, error)
        return None
    return found


def _make(path: Path) -> None:
    handle, aside = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.")  # 0600, which openssl(1) keeps
    os.close(handle)
    try:
        run(
            [
                "openssl", "req", "-x509", "-newkey", "ec", "-pkeyopt", f"ec_paramgen_curve:{_CURVE}", "-nodes",
                "-sha256", "-days", str(_DAYS),
                "-subj", f"/CN={NAME}", "-addext", f"subjectAltName=DNS:{NAME}", "-keyout", aside, "-out", aside,
            ],
            timeout_s=_TIMEOUT_S,
        )  # fmt: skip
        handle = os.open(aside, os.O_RDONLY)
        try:
            os.fsync(handle)
        finally:
            os.close(handle)
        Path(aside).replace(path)
    except BaseException:
        Path(aside).unlink(missing_ok=True)
        raise
