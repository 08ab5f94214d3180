"""An account's password as the machine keeps it: its hash, never the word itself.  Pure."""

import warnings
from hashlib import sha512

from holdfast.state import Resource

_LONGEST = 128
_SALT = 16


class Login(Resource, frozen=True):
    """Who may log in by a password at the console: `hash` as in shadow(5)."""

    identity = ("account",)
    account: str
    hash: str


def is_password(text: str) -> bool:
    """Whether somebody could type it at a console; the bound keeps the hashing short."""
    return 0 < len(text) <= _LONGEST and text.isascii() and text.isprintable()


def hashed(password: str, host: str) -> str:
    """The SHA-512 hash of crypt(5) of a password, `$6$salt$…`, the same whenever it is asked for.

    The salt is `host`'s: two routers with one password have two hashes, and a router that hears its password again is
    not changed by it.
    """
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)  # it goes with Python 3.13, which is not Debian 12's
        from crypt import crypt  # noqa: PLC0415 few routers are given one
    salt = sha512(b"console of " + host.encode("utf-8", "surrogatepass")).hexdigest()[:_SALT]
    return crypt(password, f"$6${salt}")
