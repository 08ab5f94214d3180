"""keepalived's text for a pair of routers: who serves, and which addresses go with it.  Pure.

It says nothing of who serves now: both routers of a pair have the same text but for the names of their nics, whatever
their roles, so a change of role reloads nothing.
"""

from collections.abc import Iterable, Sequence
from hashlib import sha256
from string import Template
from typing import NamedTuple

from holdfast.answers.checkrouter import CHECK_LOG

CONF = "/etc/keepalived/keepalived.conf"
INSTANCE = "inside"
HOOK = "/opt/holdfast/libexec/holdfast-role"
TERM = "/run/holdfast/vrrp/term"
"""0 to 14, added to the priority: who was promoted last outranks who was promoted before."""
BOOST = "/run/holdfast/vrrp/boost"
"""14 makes the priority the highest there is: this router takes over 8 ms after the other has stepped back."""
HOLD = "/run/holdfast/vrrp/hold"
"""Not 0: this router does not serve, for it is waiting for its peer on other ground."""
FAULT = "/run/holdfast/vrrp/fault"
"""Not 0: this router does not serve, for it is handing over, or cannot."""

MULTICAST = "224.0.0.18"
PROTOCOL = 112
PRIORITY = 240
"""Of both routers: with it a backup takes over at most 62 ms after the three adverts that it has missed."""
VRIDS = 255
DEFAULT_VRID = 51
LONGEST_ADVERT_S = 255  # keepalived takes no longer one in version 2
_PASSWORD_LENGTH = 8  # keepalived reads no more

# AH would take the adverts of a router that wakes up for replays, and both would serve meanwhile.  What adverts name
# has to agree on both routers, or both serve; excluded addresses they do not name.
_TEXT = Template(f"""\
# Written by holdfast: the same whoever serves.
global_defs {{
    script_user root
    enable_script_security
    # A text that it cannot take is refused: else it would exit and leave its addresses behind.
    reload_check_config {CHECK_LOG}
    # Whoever has missed the announcement of a promotion hears it again.
    vrrp_garp_master_refresh 10
}}
track_file term {{
    file {TERM}
    weight 1
    init_file 0
}}
track_file boost {{
    file {BOOST}
    weight 1
    init_file 0
}}
track_file hold {{
    file {HOLD}
    weight 0
    init_file 0
}}
track_file fault {{
    file {FAULT}
    weight 0
    init_file 0
}}
# systemd kills the keepalived that does not say this in time; scripts are not told by keepalived where to say it.  What
# comes of it elects nobody: a weight is no fault.
vrrp_script alive {{
    script "/usr/bin/env NOTIFY_SOCKET=/run/systemd/notify /usr/bin/systemd-notify WATCHDOG=1"
    interval 2
    timeout 5
    fall 1000000000
    weight -1
}}
vrrp_instance {INSTANCE} {{
    state BACKUP
    nopreempt
    interface $device
    version $version
    virtual_router_id $vrid
    priority {PRIORITY}
    advert_int $interval
$password    track_file {{
        term
        boost
        hold
        fault
    }}
    track_script {{
        alive
    }}
$gateway$others    notify {HOOK}
}}
""")


class Virtual(NamedTuple):
    """An address that the serving router has: `interface` is `address/prefix length`."""

    interface: str
    device: str


def vrid(pair: int) -> int:
    """Return the virtual router id of a pair: its own id folded into 1 to 255, or 51 where none was told (0)."""
    return (pair - 1) % VRIDS + 1 if pair > 0 else DEFAULT_VRID


def password(told: str, *known: str) -> str:
    """Return eight characters that both routers derive alike: the first of what was told, else from what both know.

    What keepalived could read as something else than a word is not taken as it is.
    """
    start = told[:_PASSWORD_LENGTH]
    if len(start) == _PASSWORD_LENGTH and start.isascii() and start.isalnum():
        return start
    return sha256("\0".join((told, *known)).encode("utf-8", "surrogatepass")).hexdigest()[:_PASSWORD_LENGTH]


def configuration(  # noqa: PLR0913 each is one line of the text
    *, device: str, vrid: int, password: str, gateway: Virtual, others: Sequence[Virtual], advert_s: float = 1
) -> str:
    """Return the text of keepalived.conf.

    `device` carries the election, `gateway` is the one address that the advertisements name; `others` may come and go
    without one.  `advert_s`: seconds between advertisements; below one second the version is 3, which has no password.
    """
    whole = advert_s >= 1
    return _TEXT.substitute(
        device=device,
        version=2 if whole else 3,
        vrid=vrid,
        interval=min(int(advert_s), LONGEST_ADVERT_S) if whole else f"{advert_s:.2f}",
        password=_block("authentication", ("auth_type PASS", f"auth_pass {password}")) if whole else "",
        gateway=_block("virtual_ipaddress", [_line(gateway)]),
        # Untracked: one that goes, or whose nic goes, is a tier's end and no reason to elect anybody.
        others=_block("virtual_ipaddress_excluded", (f"{_line(other)} no_track" for other in others)) if others else "",
    )


def _block(name: str, lines: Iterable[str]) -> str:
    inner = "".join(f"        {line}\n" for line in lines)
    return f"    {name} {{\n{inner}    }}\n"


def _line(virtual: Virtual) -> str:
    return f"{virtual.interface} dev {virtual.device}"
