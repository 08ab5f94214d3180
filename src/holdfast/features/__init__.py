"""The table of contents: everything that a router does, in the order in which conflicts are settled."""

from typing import Any

from holdfast.feature import Feature
from holdfast.features import cmdline, control, dhcp, firewall, forwarding, ips, later, source_nat

FEATURES: tuple[Feature[Any], ...] = (
    cmdline.FEATURE,
    ips.FEATURE,
    control.FEATURE,
    firewall.FEATURE,
    forwarding.FEATURE,
    source_nat.FEATURE,
    dhcp.FEATURE,
    *later.FEATURES,
)
