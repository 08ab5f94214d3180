"""Passwords: each is given to its VM once."""

from collections.abc import Iterator

from holdfast.feature import Claim, Command, Feature, Gone, Ipv4, Merged, Secret
from holdfast.router import Router
from holdfast.shared import Password, Passwords

NOTHING_WAITS = "saved_password"
"""What a server sends for a VM whose template has no password to set (WIRE 5.11)."""


class VmPassword(Command, frozen=True, kw_only=True, tag="vmpassword"):
    """A password that one VM may fetch."""

    ip_address: Ipv4
    password: Secret


def merge(bag: Passwords, command: VmPassword, router: Router) -> Merged[Passwords]:
    """Put one password under the next serial.  Those that were acknowledged are no longer kept.

    The same one again is the same one, until it was acknowledged: then somebody wants it set once more.
    """
    acknowledged = router.facts.acknowledged
    passwords = dict(bag.passwords)
    for one in passwords.keys() & acknowledged.keys():
        if passwords[one].serial <= acknowledged[one]:
            passwords[one] = Password(serial=passwords[one].serial)
    address, wanted = command.ip_address, command.password
    held = passwords.get(address, Password(serial=0))
    if wanted == NOTHING_WAITS:
        wanted = ""
    if wanted != held.password:
        # Above what was acknowledged too: a VM that had this address before may have been told more.
        serial = max(held.serial, acknowledged.get(address, 0)) + (1 if wanted else 0)
        passwords[address] = Password(serial=serial, password=wanted)
    return Merged(Passwords(passwords=passwords))


def contribute(_bag: Passwords, _router: Router) -> Iterator[Claim]:
    """Nothing of its own: the guest service's view holds them."""
    yield from ()


def forget(bag: Passwords, gone: Gone) -> Passwords:
    """A password is for the VM that it was set for, never for the next one at its address."""
    return Passwords(passwords={address: held for address, held in bag.passwords.items() if gone.keeps(address)})


FEATURE = Feature("vmpassword", (VmPassword,), Passwords, merge, contribute, forget=forget)
