"""A customer's gateway that is known by a name: joined where it is, and let in from there alone."""

from collections.abc import Iterator
from contextlib import contextmanager

import pytest
from tunnels import EAST, NORTH, WEST, Side, sides

from holdfast.lab.host import Host
from holdfast.lab.sentence import eventually

pytestmark = [pytest.mark.lab, pytest.mark.appliance]

NAME, SPELT = "gw-1.west.example", "GW-1.West.example"
SERVER, ELSEWHERE = "192.0.2.53", "203.0.82.99"
TO_WEST = "vpn-203_0_81_20-gw-1_west_example"
SOON_S = 20
"""How long a name's address may take to be known, and a tunnel to it: it is asked for every five seconds."""

_BEGIN = """
dnsmasq --conf-file=/dev/null --no-resolv --no-hosts --bind-interfaces --user=root --local-ttl=1 \\
  --listen-address="$1" --host-record="$2,$3" --pid-file=/run/lab-names.pid
cat /run/lab-names.pid
"""


@pytest.fixture(scope="module")
def three() -> Iterator[list[Side]]:
    with sides("vpnnames", EAST, WEST, NORTH, inside=(SERVER,)) as made:
        yield made


@contextmanager
def says(world: Host, address: str) -> Iterator[None]:
    """A server of names in the world that knows one."""
    begun = world.run(["sh", "-ec", _BEGIN, "names", SERVER, NAME, address])
    assert begun.code == 0, begun.errors
    try:
        yield
    finally:
        world.run(["kill", begun.text.strip()])


def peers(side: Side) -> str:
    return side.router.shell(["nft", "list", "set", "inet", "holdfast", "vpn_peer"]).text


def check(side: Side) -> str:
    return side.router.run("checkbatchs2svpn.sh", SPELT).text


@pytest.mark.parametrize("kind", ["ikev1", "ikev2"])
def test_a_peer_known_by_its_name(three: list[Side], kind: str) -> None:
    east, west, north = three
    world = west.world
    # Another tunnel beside it, with a key of its own: whose key is meant must be clear from the address.
    north.tunnel(EAST, passive=True, ike_version=kind)
    east.tunnel(NORTH, ike_version=kind)
    east.is_joined(NORTH)
    west.tunnel(EAST, passive=True, ike_version=kind, ipsec_psk="west's own")

    # Nobody knows the name: the command is taken, and what is missing is said.
    named = {"peer_gateway_ip": SPELT, "ike_version": kind, "ipsec_psk": "west's own"}
    east.tunnel(WEST, **named)
    assert f"waits for an address of {NAME}" in east.plan()
    unknown = "IPsec SA not found;the peer is known by a name that no resolver has an address for"
    assert check(east) == f"{SPELT}:11:{unknown}&"
    east.vm.cannot_ping(WEST.vm)
    assert WEST.public not in peers(east)

    before = east.sas()
    with says(world, WEST.public):
        up = f"{SPELT}:0:IPsec SA found;Site-to-site VPN have connected&"
        eventually(lambda: check(east) == up, "the name is known and the peer joined", SOON_S)
        east.vm.pings(WEST.vm)
        west.vm.pings(EAST.vm)
        assert f"{EAST.public} . {WEST.public}" in peers(east)
        assert east.sas().items() >= before.items()

    # The server of names is gone, the agent starts anew, a command comes: what is joined stays joined.
    up_now = east.sas()[TO_WEST]
    assert east.router.shell(["systemctl", "restart", "holdfast-agent"]).code == 0
    east.acl(allowed=True)
    assert east.sas()[TO_WEST] == up_now

    # The gateway has moved: it is looked for where it is, and nobody is let in from where it was.
    with says(world, ELSEWHERE):
        assert east.router.shell(["systemctl", "restart", "holdfast-agent"]).code == 0
        eventually(lambda: ELSEWHERE in peers(east), "the other address is known", SOON_S)
        eventually(lambda: east.changes() == [], "and charon has been told", SOON_S)
        assert WEST.public not in peers(east)
        assert ELSEWHERE in east.router.shell(["swanctl", "--list-conns"]).text
        assert TO_WEST not in east.sas() or "ESTABLISHED" not in east.sas()[TO_WEST]
        assert east.sas().items() >= before.items()

    east.tunnel(WEST, create=False, **named)
    assert ELSEWHERE not in peers(east)
    assert TO_WEST not in east.router.shell(["swanctl", "--list-conns"]).text
    assert east.router.shell(["ls", "/run/holdfast/names-wanted.json"]).code != 0
    known = ["cat", "/run/holdfast/names-found.json"]
    eventually(lambda: east.router.shell(known).text == "{}", "what nobody asks for is forgotten", SOON_S)
    west.tunnel(EAST, create=False)
    east.tunnel(NORTH, create=False)
    north.tunnel(EAST, create=False)
