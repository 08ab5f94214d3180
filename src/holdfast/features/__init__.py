"""The table of contents: everything that a router does, in the order in which conflicts are settled."""

from typing import Any

from holdfast.feature import Feature
from holdfast.features import (
    acl,
    cmdline,
    control,
    dhcp,
    firewall,
    forwarding,
    guest,
    ips,
    later,
    source_nat,
    static_routes,
)

FEATURES: tuple[Feature[Any], ...] = (
    cmdline.FEATURE,
    ips.FEATURE,
    guest.FEATURE,
    static_routes.FEATURE,
    control.FEATURE,
    firewall.FEATURE,
    forwarding.FEATURE,
    source_nat.FEATURE,
    dhcp.FEATURE,
    acl.FEATURE,
    *later.FEATURES,
)
