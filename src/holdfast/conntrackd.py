"""conntrackd's text for a pair of routers: the peer hears of every connection that the serving one carries.  Pure."""

from collections.abc import Sequence
from string import Template

CONF = "/etc/conntrackd/conntrackd.conf"
RUN = "/run/conntrackd"
MULTICAST = "225.0.0.50"
PORT = 3780
_TEXT = Template(f"""\
# Written by holdfast: the same whoever serves.
Sync {{
    Mode FTFW {{
        # Who starts asks for what it has missed.
        StartupResync yes
        # The peer's connections are kept beside the kernel's table until they are needed there.  In the table they
        # would run out: the peer tells what changes in a flow, not that it goes on.
        DisableExternalCache off
    }}
    Multicast {{
        IPv4_address {MULTICAST}
        Group {PORT}
        IPv4_interface $address
        Interface $device
        SndSocketBuffer 1249280
        RcvSocketBuffer 1249280
        Checksum on
    }}
}}
General {{
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
