"""conntrackd's text for a pair of routers: the peer hears of every connection that the serving one carries.  Pure."""

from collections.abc import Sequence
from string import Template

CONF = "/etc/conntrackd/conntrackd.conf"
RUN = "/run/conntrackd"
MULTICAST = "225.0.0.50"
PORT = 3780
REFRESH_S = 50.0
"""How often who serves tells its peer of all connections.  A UDP stream without news runs out there after 120 s."""
AGAIN_S = 5.0
"""How soon it does so again where the peer has heard of too few; 100,000 connections take 2 s."""
REFILL_S = 300.0
"""How soon a backup forgets again what it holds and asks for all anew."""
_NETFILTER = 12
"""NETLINK_NETFILTER of linux/netlink.h."""
_CONNECTIONS = 0b111
"""Groups NFNLGRP_CONNTRACK_NEW, _UPDATE and _DESTROY of linux/netfilter/nfnetlink.h."""
_TEXT = Template(f"""\
# Written by holdfast: the same whoever serves.
Sync {{
    Mode FTFW {{
        # Who starts asks for what it has missed.
        StartupResync yes
        # The peer's connections go straight into the kernel's table: a promotion need not wait for them.  There they
        # run out, since the peer tells what changes in a flow and not that it goes on: it tells all again in time.
        DisableExternalCache on
    }}
    Multicast {{
        IPv4_address {MULTICAST}
        Group {PORT}
        IPv4_interface $address
        Interface $device
        SndSocketBuffer 8388608
        RcvSocketBuffer 8388608
        Checksum on
    }}
}}
General {{
    Systemd on
    HashSize 65536
    HashLimit 1048576
    LogFile off
    Syslog off
    LockFile {RUN}/lock
    UNIX {{
        Path {RUN}/control
    }}
    NetlinkBufferSize 8388608
    NetlinkBufferSizeMaxGrowth 33554432
    # By itself it would do so whatever the role: a backup would tell its peer to put up each connection anew.
    NetlinkOverrunResync no
    Filter From Userspace {{
        Protocol Accept {{
            TCP
            UDP
            ICMP
            SCTP
            DCCP
        }}
        Address Ignore {{
            IPv4_address 127.0.0.0/8
$own        }}
    }}
}}
""")


def configuration(device: str, address: str, ignored: Sequence[str]) -> str:
    """Return the text of conntrackd.conf: `address` is the router's own on `device`, over which the peer is told.

    `ignored`: further addresses whose connections are the router's own and nothing to the peer.  A change of this text
    costs a restart, in which a backup forgets what it has heard: nothing that comes and goes with tiers may be in it.
    """
    own = "".join(f"            IPv4_address {one}\n" for one in (MULTICAST, address, *ignored))
    return _TEXT.substitute(device=device, address=address, own=own)


def resync_due(own: int, peer: int, since_s: float) -> bool:
    """Whether who serves has to tell its peer of all connections again.

    `own`, `peer`: how many connections the two kernels hold (`nf_conntrack_count`); some are nobody else's business, so
    a few more or less mean nothing.  `since_s`: seconds since it last did.
    """
    return since_s >= REFRESH_S or (since_s >= AGAIN_S and own > _about(peer))


def refill_due(own: int, peer: int, since_s: float) -> bool:
    """Whether a backup holds so many connections that have ended on its peer, which it hears serve, that it has to
    forget all and ask anew.  Numbers as for `resync_due`.
    """
    return since_s >= REFILL_S and own > _about(peer)


def unheard(table: str) -> int:
    """Return how many events of connections the kernel could not hand over, since its listeners' buffers were full.

    `table`: what `/proc/net/netlink` says; of its columns the second is the protocol, the fourth the groups that are
    listened to, in hexadecimal, and the ninth the count.
    """
    rows = (line.split() for line in table.splitlines()[1:])
    return sum(int(row[8]) for row in rows if int(row[1]) == _NETFILTER and int(row[3], 16) & _CONNECTIONS)


def _about(count: int) -> int:
    return count + count // 10 + 200
