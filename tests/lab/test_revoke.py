"""What is revoked is closed at once, for flows that were open too, both ways; everything else goes on without loss."""

from collections.abc import Callable, Iterator, Sequence

import pytest
from isolated import (
    FAR,
    NEAR,
    SOURCE_NAT,
    Isolated,
    Message,
    default_egress,
    egress,
    forward,
    ingress,
    isolated,
    static,
)
from watching import Wire, are_cut

from holdfast.lab.guest import Guest
from holdfast.lab.probe import Flow

pytestmark = pytest.mark.lab

FORWARDS, STATIC, RELEASED = "203.0.113.22", "203.0.113.23", "203.0.113.24"
WEB, APP, DB = "10.31.5.10", "10.31.5.11", "10.31.5.12"

DOORS = [forward(FORWARDS, proto, "8000:8009", WEB, "8000:8009") for proto in ("tcp", "udp")]
SIDE_DOORS = [forward(FORWARDS, proto, "8100:8109", WEB, "8100:8109") for proto in ("tcp", "udp")]
OPEN = [ingress(11 + n, FORWARDS, proto, [8000, 8009]) for n, proto in enumerate(("tcp", "udp"))]
SIDE_OPEN = [ingress(13 + n, FORWARDS, proto, [8100, 8109]) for n, proto in enumerate(("tcp", "udp"))]
STATIC_OPEN = [ingress(15 + n, STATIC, proto, [8200, 8209]) for n, proto in enumerate(("tcp", "udp"))]
OUT = [egress(21 + n, proto, [6000, 6009]) for n, proto in enumerate(("tcp", "udp"))]
SIDE_OUT = [egress(23 + n, proto, [6100, 6109]) for n, proto in enumerate(("tcp", "udp"))]


@pytest.fixture(scope="module")
def net() -> Iterator[Isolated]:
    with isolated("revoke") as net:
        net.associate(SOURCE_NAT, FORWARDS, STATIC)
        net.forward(*DOORS, *SIDE_DOORS)
        net.static_nat(static(STATIC, DB))
        net.firewall(*OPEN, *SIDE_OPEN, *STATIC_OPEN, *OUT, *SIDE_OUT, egress(25, "all", (), [f"{DB}/32"], []))
        yield net


@pytest.fixture(autouse=True)
def _closed() -> Iterator[None]:
    yield
    Wire.close_all()


def inbound(net: Isolated, port: int, *, address: str = FORWARDS, source: str = "") -> list[Wire]:
    """Four flows from outside, TCP and UDP, to ports from this one on."""
    vm = net.db if address == STATIC else net.web
    protos = enumerate(("tcp", "udp", "tcp", "udp"), port)
    return [Wire(net.world, address, number, vm, number, proto, source) for number, proto in protos]


def outbound(net: Isolated, port: int, *, guest: Guest | None = None) -> list[Wire]:
    """Four flows of a guest, TCP and UDP, to ports from this one on."""
    protos = enumerate(("tcp", "udp", "tcp", "udp"), port)
    return [Wire(guest or net.web, NEAR, number, net.world, number, proto) for number, proto in protos]


def revoked(rules: Sequence[Message]) -> list[Message]:
    """Return the same rules as they are taken back."""
    return [rule | {"revoked" if "id" in rule else "revoke": True} for rule in rules]


def cut_and_nothing_else(net: Isolated, wires: list[Wire], others: list[Wire], revoke: Callable[[], object]) -> None:
    """Revoke while other flows are measured: the wires are cut whichever end speaks first, the others lose nothing."""
    flows = [
        Flow(net.world, net.web, 8108, address=FORWARDS),
        Flow(net.web, net.world, 6108, address=FAR),
        Flow(net.app, net.world, 6109, kind="new"),
        Flow(net.world, net.web, 8109, address=FORWARDS, kind="new"),
    ]

    def once() -> None:
        revoke()
        are_cut(wires)
        for wire in others:
            wire.works()

    counts = net.lab.measure(flows, once)
    assert [count.lost for count in counts] == [0, 0, 0, 0], counts
    assert [count.sent - count.returned for count in counts[:2]] == [0, 0], counts
    assert all(count.sent > 100 for count in counts)
    Wire.close_all()


def test_a_revoked_firewall_rule_cuts_what_it_let_in(net: Isolated) -> None:
    others = [*inbound(net, 8100), *outbound(net, 6100), *inbound(net, 8200, address=STATIC)]
    gone = revoked(OPEN)
    cut_and_nothing_else(net, inbound(net, 8000), others, lambda: net.firewall(*gone))
    net.world.cannot_reach(FORWARDS, 8008, on=net.web)
    net.firewall(*OPEN)
    inbound(net, 8000)


def test_a_revoked_port_forward_cuts_though_the_firewall_is_still_open(net: Isolated) -> None:
    others = [*inbound(net, 8100), *outbound(net, 6100), *inbound(net, 8200, address=STATIC)]
    gone = revoked(DOORS)
    cut_and_nothing_else(net, inbound(net, 8000), others, lambda: net.forward(*gone))
    net.world.cannot_reach(FORWARDS, 8008, on=net.web)
    net.forward(*DOORS)
    inbound(net, 8000)


def test_a_port_forward_that_leads_elsewhere_now_cuts_what_it_led_before(net: Isolated) -> None:
    wires, others = inbound(net, 8000), [*inbound(net, 8100), *outbound(net, 6100)]
    elsewhere = [rule | {"destination_ip_address": APP} for rule in DOORS]
    cut_and_nothing_else(net, wires, others, lambda: net.forward(*elsewhere))
    net.app.serve(8005)
    assert net.world.reaches(FORWARDS, 8005).name == "app1"
    net.forward(*DOORS)
    inbound(net, 8000)


def test_a_revoked_static_nat_cuts_what_came_in_by_it(net: Isolated) -> None:
    others = [*inbound(net, 8100), *outbound(net, 6100)]
    wires = inbound(net, 8200, address=STATIC)
    cut_and_nothing_else(net, wires, others, lambda: net.static_nat(static(STATIC, DB, revoke=True)))
    net.world.serve(6200)
    assert net.db.reaches(NEAR, 6200).address == SOURCE_NAT
    net.static_nat(static(STATIC, DB))
    assert net.db.reaches(NEAR, 6200).address == STATIC
    inbound(net, 8200, address=STATIC)


def test_a_released_address_cuts_what_came_in_by_it_and_opens_nothing(net: Isolated) -> None:
    net.associate(RELEASED)
    door = forward(RELEASED, "tcp", "8000:8001", WEB, "8300:8301")
    net.forward(door)
    net.firewall(ingress(31, RELEASED, "tcp", [8000, 8001], [f"{FAR}/32"]))
    net.web.serve(8301)
    net.world.reaches(RELEASED, 8001, source=FAR)
    wire = Wire(net.world, RELEASED, 8000, net.web, 8300, "tcp", source=FAR)
    others = [*inbound(net, 8100), *outbound(net, 6100)]
    cut_and_nothing_else(net, [wire], others, lambda: net.associate(RELEASED, add=False))
    # The forward is not revoked yet, and whoever still knows the way finds nobody who judges for this address.
    net.world.cannot_reach(RELEASED, 8001, source=FAR)
    net.world.cannot_reach(RELEASED, 8001, source=NEAR)
    net.forward(door | {"revoke": True})
    net.firewall(ingress(31, RELEASED, "tcp", [8000, 8001], [f"{FAR}/32"], revoked=True))


def test_a_revoked_egress_rule_cuts_what_it_let_out(net: Isolated) -> None:
    others = [*outbound(net, 6100), *inbound(net, 8000), *inbound(net, 8200, address=STATIC)]
    gone = revoked(OUT)
    cut_and_nothing_else(net, outbound(net, 6000), others, lambda: net.firewall(*gone))
    net.web.cannot_reach(NEAR, 6008, on=net.world)
    net.firewall(*OUT)
    outbound(net, 6000)


def test_a_revoked_egress_default_cuts_all_but_what_rules_allow(net: Isolated) -> None:
    net.firewall(default_egress(allow=True))
    others = [*outbound(net, 6100), *inbound(net, 8000), *inbound(net, 8200, address=STATIC)]
    gone = default_egress(allow=True, revoked=True)
    cut_and_nothing_else(net, outbound(net, 6300), others, lambda: net.firewall(gone))
    net.web.cannot_reach(NEAR, 6308, on=net.world)


def test_an_egress_rule_that_denies_cuts_what_the_default_let_out(net: Isolated) -> None:
    net.firewall(default_egress(allow=True))
    denying = [egress(41 + n, proto, [6300, 6309], default=True) for n, proto in enumerate(("tcp", "udp"))]
    others = [*outbound(net, 6100), *outbound(net, 6400), *inbound(net, 8000)]
    cut_and_nothing_else(net, outbound(net, 6300), others, lambda: net.firewall(*denying))
    net.firewall(*revoked(denying))
    outbound(net, 6300)
    net.firewall(default_egress(allow=True, revoked=True))


def test_a_narrowed_firewall_rule_cuts_whom_it_leaves_out(net: Isolated) -> None:
    narrow = [ingress(51 + n, FORWARDS, proto, [8000, 8009], [f"{FAR}/32"]) for n, proto in enumerate(("tcp", "udp"))]
    wires, others = inbound(net, 8000, source=NEAR), inbound(net, 8004, source=FAR)
    try:
        cut_and_nothing_else(net, wires, others, lambda: net.firewall(*revoked(OPEN), *narrow))
        net.world.cannot_reach(FORWARDS, 8009, source=NEAR, on=net.web)
    finally:
        net.firewall(*revoked(narrow), *OPEN)


def test_sources_given_to_a_port_forward_cut_everybody_else(net: Isolated) -> None:
    narrow = [door | {"source_cidr_list": f"{FAR}/32"} for door in DOORS]
    wires, others = inbound(net, 8000, source=NEAR), inbound(net, 8004, source=FAR)
    try:
        cut_and_nothing_else(net, wires, others, lambda: net.forward(*narrow))
        net.world.cannot_reach(FORWARDS, 8009, source=NEAR, on=net.web)
    finally:
        net.forward(*DOORS)


def test_two_port_forwards_that_change_places_cut_what_they_led_before(net: Isolated) -> None:
    first, second = (forward(FORWARDS, "tcp", f"{n}:{n}", vm, "8500:8500") for n, vm in ((8020, WEB), (8021, APP)))
    rule = ingress(61, FORWARDS, "tcp", [8020, 8021])
    swapped = [first | {"destination_ip_address": APP}, second | {"destination_ip_address": WEB}]
    net.forward(first, second)
    net.firewall(rule)
    try:
        wires = [Wire(net.world, FORWARDS, n, vm, 8500, "tcp") for n, vm in ((8020, net.web), (8021, net.app))]
        cut_and_nothing_else(net, wires, inbound(net, 8100), lambda: net.forward(*swapped))
    finally:
        net.forward(*revoked([first, second]))
        net.firewall(*revoked([rule]))


def test_a_static_nat_that_ends_cuts_what_its_vm_sent_by_it(net: Isolated) -> None:
    wires = outbound(net, 6500, guest=net.db)
    try:
        cut_and_nothing_else(net, wires, inbound(net, 8100), lambda: net.static_nat(static(STATIC, DB, revoke=True)))
    finally:
        net.static_nat(static(STATIC, DB))


def test_nothing_leaves_by_an_address_that_was_released(net: Isolated) -> None:
    wires = outbound(net, 6500, guest=net.db)
    try:
        cut_and_nothing_else(net, wires, inbound(net, 8100), lambda: net.associate(STATIC, add=False))
    finally:
        net.associate(STATIC)


def test_everything_was_put_back(net: Isolated) -> None:
    inbound(net, 8000), inbound(net, 8100), inbound(net, 8200, address=STATIC)
    outbound(net, 6000), outbound(net, 6100)
    net.web.cannot_reach(NEAR, 6308, on=net.world)
