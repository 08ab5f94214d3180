"""Many guests behind one address: which one they leave by."""

from collections.abc import Iterator

from holdfast.feature import Claim, Feature
from holdfast.nft import Element, key, quoted
from holdfast.router import Router


def contribute(_bag: None, router: Router) -> Iterator[Claim]:
    """One address for each pair of guest and public nic; hairpinned flows take the router's guest address."""
    if not router.forwards:
        return
    for guest in router.of("guest"):
        hairpin = key(quoted(guest.device), quoted(guest.device))
        yield Claim(f"cmdline/{guest.device}", Element("hairpin", hairpin, guest.addresses[0][0]))
        for public in router.of("public"):
            address = router.leaving(public)
            pair = key(quoted(guest.device), quoted(public.device))
            yield Claim(f"ips/{address}", Element("source_nat", pair, address))


FEATURE = Feature("source_nat", (), None, None, contribute)
