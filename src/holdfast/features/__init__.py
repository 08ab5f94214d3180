"""The table of contents: everything that a router does, in the order in which conflicts are settled."""

from typing import Any

from holdfast.feature import Feature
from holdfast.features import (
    acl,
    aliases,
    cmdline,
    control,
    dhcp,
    dhcp_config,
    firewall,
    forwarding,
    guest,
    guest_service,
    ips,
    later,
    load_balancer,
    redundancy,
    source_nat,
    state_report,
    static_routes,
    vm_data,
    vm_password,
)

FEATURES: tuple[Feature[Any], ...] = (
    cmdline.FEATURE,
    ips.FEATURE,
    guest.FEATURE,
    aliases.FEATURE,
    dhcp_config.FEATURE,
    static_routes.FEATURE,
    control.FEATURE,
    firewall.FEATURE,
    forwarding.FEATURE,
    source_nat.FEATURE,
    dhcp.FEATURE,
    acl.FEATURE,
    load_balancer.FEATURE,
    vm_data.FEATURE,
    vm_password.FEATURE,
    guest_service.FEATURE,
    redundancy.FEATURE,
    state_report.FEATURE,
    *later.FEATURES,
)
