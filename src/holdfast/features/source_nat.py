"""Many guests behind one address: which one they leave by."""

from collections.abc import Iterator

from holdfast.feature import Claim, Feature
from holdfast.interface import Interface
from holdfast.nft import Element, key, quoted
from holdfast.router import Router
from holdfast.shared import Ips


def contribute(_bag: None, router: Router) -> Iterator[Claim]:
    """One address for each pair of guest and outer nic; hairpinned flows take the router's guest address."""
    if not router.forwards:
        return
    for guest in router.served:
        hairpin = key(quoted(guest.device), quoted(guest.device))
        yield Claim(f"cmdline/{guest.device}", Element("hairpin", hairpin, guest.virtual or guest.addresses[0][0]))
        for out in (*router.of("public"), *router.of("private")):
            address = _leaving(out, router)
            if address:
                pair = key(quoted(guest.device), quoted(out.device))
                yield Claim(f"ips/{address}", Element("source_nat", pair, address))


def _leaving(out: Interface, router: Router) -> str:
    """Which address guests leave by; empty where they leave by their own, as through most private gateways."""
    if out.purpose == "public":
        return router.leaving(out)
    ips: Ips = router.config["ips"]
    own = (address for address, _ in out.addresses if address in ips.addresses)
    return next((address for address in own if ips.addresses[address].source_nat), "")


FEATURE = Feature("source_nat", (), None, None, contribute)
