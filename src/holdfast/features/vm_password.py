"""Passwords: each is given to its VM once."""

from collections.abc import Iterator
from itertools import count

from msgspec.structs import replace

from holdfast import receipts
from holdfast.feature import Claim, Command, Feature, Gone, Ipv4, Merged, Secret
from holdfast.router import Router
from holdfast.shared import Password, Passwords

NOTHING_WAITS = "saved_password"
"""What a server sends for a VM whose template has no password to set (WIRE 5.11)."""


_REMEMBERED = 4


class VmPassword(Command, frozen=True, kw_only=True, tag="vmpassword"):
    """A password that one VM may fetch."""

    ip_address: Ipv4
    password: Secret


def merge(bag: Passwords, command: VmPassword, router: Router) -> Merged[Passwords]:
    """Put one password under the next serial.  Those that were acknowledged are no longer kept.

    The same one again is the same one, until it was acknowledged: then somebody wants it set once more.
    """
    passwords = {address: _kept(held, address, router) for address, held in bag.passwords.items()}
    address, wanted = command.ip_address, command.password
    held = passwords.get(address, Password(serial=0))
    if wanted == NOTHING_WAITS:
        wanted = ""
    if wanted != held.password:
        passwords[address] = _next(held, address, wanted, router)
    return Merged(Passwords(passwords=passwords))


def _kept(held: Password, address: str, router: Router) -> Password:
    """The same, without the text of one that was acknowledged."""
    if not held.password:
        return held
    facts = router.facts
    over = held.serial <= facts.acknowledged.get(address, 0) or held.is_over(facts.acknowledged_there.get(address, 0))
    return replace(held, password="") if over else held


def _next(held: Password, address: str, wanted: str, router: Router) -> Password:
    # Above what was acknowledged too: a VM that had this address before may have been told more.
    boot, there = router.boot, router.facts.acknowledged_there.get(address, 0)
    known = max(held.serial, router.facts.acknowledged.get(address, 0), receipts.serial_of(there))
    if not wanted:
        return replace(held, serial=known, password="")
    if not boot.redundant:
        return Password(serial=known + 1, password=wanted)
    past = held.known[:_REMEMBERED] if held.tag else ()
    others = {receipts.tag_of(number) for number in (*past, there)}
    tags = (receipts.tag(boot.pair_key, address, wanted, n, secret=boot.pair_is_secret) for n in count())
    tag = next(tag for tag in tags if tag not in others)
    blind = not there and router.facts.peer is None
    return Password(serial=known + 1, password=wanted, tag=tag, past=past, blind=blind)


def contribute(_bag: Passwords, _router: Router) -> Iterator[Claim]:
    """Nothing of its own: the guest service's view holds them."""
    yield from ()


def forget(bag: Passwords, gone: Gone) -> Passwords:
    """A password is for the VM that it was set for, never for the next one at its address."""
    return Passwords(passwords={address: held for address, held in bag.passwords.items() if gone.keeps(address)})


FEATURE = Feature("vmpassword", (VmPassword,), Passwords, merge, contribute, forget=forget)
