"""What a lease says to a VM's default nic, and to its other ones."""

import pytest
from isolated import GUEST_GATEWAY, isolated

pytestmark = pytest.mark.lab

ADDRESS = f"{GUEST_GATEWAY.rpartition('.')[0]}.77"
OTHER = "02:00:00:00:31:07"


def test_a_nic_that_is_not_the_default_one_gets_an_address_and_nothing_else() -> None:
    with isolated("lease") as net:
        entry = {
            "host_name": "side",
            "mac_address": OTHER,
            "ipv4_address": ADDRESS,
            "ipv6_duid": f"00:03:00:01:{OTHER}",
            "dns_addresses": GUEST_GATEWAY,
            "default_gateway": GUEST_GATEWAY,
            "default_entry": False,
            "remove": False,
            "type": "dhcpentry",
        }
        net.command("vm_dhcp_entry", entry)

        lease = net.lab.guest("side", net.guest_segment, OTHER).gets_lease()

        assert lease.address == ADDRESS
        assert (lease.router, lease.dns, lease.domain) == ("", (), "")
