"""What the tenant used: bytes by each public nic, counted where nothing drops them any more.  Pure."""

from collections.abc import Iterator

from holdfast.feature import Claim, Feature
from holdfast.router import Router
from holdfast.usage import Counted, Usage


def contribute(_bag: None, router: Router) -> Iterator[Claim]:
    """Every present public nic, and the devices that guests are on.

    In a VPC the counts outlive a reboot.  Of an isolated network the management server adds up what a router had
    counted when it stops or reboots it, and begins at zero (docs/features/usage.md).
    """
    public = sorted(router.of("public"), key=lambda face: face.nic)
    if not public or not router.forwards:
        return
    nics = tuple(Counted(face.nic, face.device, tuple(address for address, _ in face.addresses)) for face in public)
    inside = tuple(sorted({face.device for face in router.served}))
    yield Claim("usage", Usage(nics, inside, lasting=router.is_vpc))


FEATURE = Feature("usage", (), None, None, contribute)
