"""keystore-setup and keystore-cert-import: the router's own key never leaves it; what comes is looked at first."""

import os
import socket
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path

from holdfast import whole
from holdfast.answers.keystore import Import, Setup, imported, setup
from holdfast.scripts import USAGE, failed, refuse, unsaid
from holdfast.texts import is_host_name

_TIMEOUT_S = 60
FRESH = ".new"
"""What the key of a request is called until its certificate has come: the key in use stays until then."""


def keystore_setup(argv: Sequence[str], root: Path = Path("/")) -> int:
    """Make a key and print a request for its certificate; of a failure nothing is printed at all.

    Both streams reach the server as one text, and any text is a success to it: the journal and an alert say why.

    The password is for a keystore of Java's, which nobody here reads: it is written nowhere.
    """
    try:
        wanted = setup(argv)
    except ValueError as error:
        unsaid(f"usage: keystore-setup PROPERTIES KEYSTORE PASSWORD DAYS REQUEST   {error}")
        return USAGE
    try:
        text = _request(wanted, root)
    except (OSError, ValueError) as error:
        unsaid(f"error: {error}")
        return 1
    sys.stdout.write(text)
    return 0


def keystore_cert_import(argv: Sequence[str], root: Path = Path("/")) -> int:
    """Take a certificate, its authority's, and a key if one comes: all of it, or nothing."""
    try:
        given = imported(argv)
    except ValueError as error:
        return refuse(f"keystore-cert-import PROPERTIES PASSWORD KEYSTORE MODE CRT TEXT CA TEXT KEY [TEXT]   {error}")
    try:
        _take(given, root)
    except OSError as error:
        return failed(error)
    return 0


def _request(wanted: Setup, root: Path) -> str:
    name = socket.gethostname()
    name = name if is_host_name(name) and len(name) < 64 else "router"  # noqa: PLR2004 of a common name, RFC 5280
    key = _place(root, f"{wanted.key}{FRESH}")
    key.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=key.parent) as aside:  # 0700
        made = Path(aside) / "key"
        text = _openssl(
            "req", "-new", "-newkey", "rsa:2048", "-nodes", "-sha256", "-subj",
            f"/O=cloudstack/OU=cloudstack/CN={name}", "-addext", f"subjectAltName=DNS:{name}", "-keyout", str(made),
        )  # fmt: skip
        whole.put(key, made.read_bytes())
    whole.put(_place(root, wanted.request), text.encode(), 0o644)
    return text


def _take(given: Import, root: Path) -> None:
    """Look at all of it before anything is replaced; the key first, so that no certificate is without its key."""
    (crt, certificate), (ca, authority), (key, text) = given
    home = _place(root, crt).parent
    home.mkdir(mode=0o700, parents=True, exist_ok=True)
    keys = [text] if text else [_read(_place(root, f"{key}{FRESH}")), _read(_place(root, key))]
    with tempfile.TemporaryDirectory(dir=home) as aside:
        public = _public(Path(aside), "x509", "-pubkey", "-noout", text=certificate)
        _public(Path(aside), "x509", "-noout", text=authority)
        matching = [k for k in keys if k and _public(Path(aside), "pkey", "-pubout", text=k) == public]
    if not matching:
        raise OSError("the certificate is of another key than the router's")
    whole.put(_place(root, key), matching[0].encode())
    whole.put(_place(root, ca), authority.encode(), 0o644)
    whole.put(_place(root, crt), certificate.encode(), 0o644)
    _place(root, f"{key}{FRESH}").unlink(missing_ok=True)


def _public(aside: Path, *what: str, text: str) -> str:
    """Let openssl read a text from a file that nobody else can: an argument would show in the list of processes."""
    file = aside / "in.pem"
    handle = os.open(file, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
    with os.fdopen(handle, "w") as out:
        out.write(text)
    try:
        # An encrypted key's password would else be asked of the terminal.
        return _openssl(*what, "-in", str(file), *(["-passin", "pass:"] if what[0] == "pkey" else []))
    finally:
        file.unlink()


def _openssl(*words: str) -> str:
    from holdfast.run import run  # noqa: PLC0415 after the arguments were found right

    return run(["openssl", *words], timeout_s=_TIMEOUT_S)


def _place(root: Path, path: str) -> Path:
    return root / path.lstrip("/")


def _read(path: Path) -> str:
    try:
        return path.read_text()
    except FileNotFoundError:
        return ""
