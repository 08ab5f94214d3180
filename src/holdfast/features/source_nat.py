"""Many guests behind one address: which one they leave by."""

from collections.abc import Iterator

from holdfast.feature import Claim, Feature
from holdfast.nft import Element, key, quoted
from holdfast.router import Interface, Router, number


def contribute(_bag: None, router: Router) -> Iterator[Claim]:
    """One address for each pair of guest and public nic; hairpinned flows take the router's guest address."""
    if not router.forwards:
        return
    for guest in router.of("guest"):
        hairpin = key(quoted(guest.device), quoted(guest.device))
        yield Claim(f"cmdline/{guest.device}", Element("hairpin", hairpin, guest.addresses[0][0]))
        for public in router.of("public"):
            address = leaving_address(public, router)
            pair = key(quoted(guest.device), quoted(public.device))
            yield Claim(f"ips/{address}", Element("source_nat", pair, address))


def leaving_address(public: Interface, router: Router) -> str:
    """The boot line's address on its nic; on other nics the lowest that is no VM's own, for `source_nat` on the
    wire is true on many addresses that are none; where every address is a VM's own, the boot line's again.
    """
    booted = [nic.address for nic in router.boot.nics]
    here = [address for address, _ in public.addresses]
    shared = sorted((address for address in here if address not in router.static_nat), key=number)
    home = next((a for face in router.of("public") for a, _ in face.addresses if a in booted), "")
    return next((address for address in here if address in booted), "") or next(iter(shared), "") or home or here[0]


FEATURE = Feature("source_nat", (), None, None, contribute)
