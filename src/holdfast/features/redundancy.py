"""A pair of routers: which of them serves is keepalived's to say, and the other hears of every connection."""

from collections.abc import Iterator

from holdfast import conntrackd, keepalived, peer
from holdfast.addresses import inside, number
from holdfast.feature import Claim, Feature, Pending, Service
from holdfast.interface import Interface
from holdfast.keepalived import Virtual
from holdfast.nft import Chain, Rule, Stage, quoted
from holdfast.router import Router
from holdfast.state import Announcement, File, Handover, Sysctl

KEEPALIVED = "keepalived.service"
CONNTRACKD = "conntrackd.service"
ORIGIN = "redundancy"
ALL_SYSTEMS = "224.0.0.1"


_NEIGHBOURS = (("retrans_time_ms", "100"), ("mcast_solicit", "30"), ("ucast_solicit", "10"))
"""How often, in ms, and how many times a neighbour is asked; the kernel's own are 1000, 3 and 3 (ip-sysctl).

It counts in its own ticks: 100 ms is a whole number of them wherever.
"""


def contribute(_bag: None, router: Router) -> Iterator[Claim]:
    """Both daemons with their texts, what the peer may say on the segment, and the hand-over of connections."""
    # Who takes up a connection in the middle has not been told of it; with this the kernel does not pretend.
    yield Claim(ORIGIN, Sysctl("net/netfilter/nf_conntrack_tcp_loose", "0" if router.boot.redundant else "1"))
    # The kernel itself tells the neighbours where an outer nic's addresses are, in the moment in which it comes up.
    for face in (*router.of("public"), *router.of("private")) if router.boot.redundant else ():
        yield Claim(ORIGIN, Sysctl(f"net/ipv4/conf/{face.device}/arp_notify", "1"))
        # While both have their outer links up, an answer to this router's question for its gateway may end at the other
        # one's, since both have the same MAC: it asks again at once, and gives up as late as ever.
        for name, value in _NEIGHBOURS:
            yield Claim(ORIGIN, Sysctl(f"net/ipv4/neigh/{face.device}/{name}", value))
    segment = router.segment
    if router.boot.redundant and router.served and segment is None:
        yield Claim(ORIGIN, Pending("redundancy", "a gateway that both routers share"))
    yield Claim(ORIGIN, Service(KEEPALIVED, wanted=segment is not None))
    yield Claim(ORIGIN, Service(CONNTRACKD, wanted=segment is not None))
    if segment is None:
        return
    check = ("keepalived", "-t", "-f")
    text = _election(segment, router)
    yield Claim(ORIGIN, File(keepalived.CONF, text, mode=0o600, check=check, reload=KEEPALIVED, secret=True))
    yield Claim(ORIGIN, File(conntrackd.CONF, _connections(segment, router), restart=CONNTRACKD))
    yield Claim(ORIGIN, Handover(router.role.value))
    if router.serving:
        for device, addresses in router.announced:
            yield Claim(ORIGIN, Announcement(device, addresses))
    for text in (*_openings(segment, router.facts.peer), *_hellos(router)):
        yield Claim(ORIGIN, Rule(Chain.INPUT, Stage.ADMIT, text))


def _election(segment: Interface, router: Router) -> str:
    boot = router.boot
    others = [face for face in router.interfaces if face.device and face.virtual and face.nic != segment.nic]
    return keepalived.configuration(
        device=segment.device,
        vrid=keepalived.vrid(boot.pair),
        # On isolated networks the two are told no secret: they derive one from what both know, and what never changes.
        password=keepalived.password(boot.secrets.get("router_password", ""), segment.virtual),
        gateway=_virtual(segment),
        others=[_virtual(face) for face in sorted(others, key=lambda face: number(face.virtual))],
        advert_s=router.advert_s,
    )


def _virtual(face: Interface) -> Virtual:
    return Virtual(f"{face.virtual}/{face.addresses[0][1]}", face.device)


def _connections(segment: Interface, router: Router) -> str:
    control = [address for face in router.of("control") for address, _ in face.addresses]
    return conntrackd.configuration(segment.device, segment.addresses[0][0], control)


def _openings(segment: Interface, known: tuple[str, str] | None) -> Iterator[str]:
    """What the peer may say on the segment: from its network, and once the peer is known from it alone."""
    who = f"ip saddr {segment.networks[0]}"
    if known and inside(known[0], segment.networks):
        who = f"ether saddr {known[1]} ip saddr {known[0]}"
    there = f"iifname {quoted(segment.device)} {who}"
    yield f"{there} ip daddr {keepalived.MULTICAST} meta l4proto {keepalived.PROTOCOL} accept"
    yield f"{there} ip daddr {conntrackd.MULTICAST} udp dport {conntrackd.PORT} accept"


def _hellos(router: Router) -> Iterator[str]:
    """What the peer's agent says on every nic for guests; and the question by which a switch that watches groups learns
    that somebody here listens to one.
    """
    for face in router.served:
        here = f"iifname {quoted(face.device)}"
        yield f"{here} ip saddr {face.networks[0]} ip daddr {peer.GROUP} udp dport {peer.PORT} accept"
        yield f"{here} ip daddr {ALL_SYSTEMS} meta l4proto 2 accept"


FEATURE = Feature("redundancy", (), None, None, contribute)
