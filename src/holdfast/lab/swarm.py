"""A swarm: hundreds of virtual machines on one segment, each with its own MAC and address, that boot at once."""

import base64
import ipaddress
from collections.abc import Sequence
from typing import Any, NamedTuple

from holdfast.lab.guest import Lease
from holdfast.lab.host import Host, Place
from holdfast.lab.network import Segment, batch
from holdfast.lab.process import must
from holdfast.lab.sentence import NotSo

BOOT_S = 30.0
_SHOWN = 5
_UPLINK = "uplink"
_UPLINK_MAC = "02:fb:00:00:00:01"
_ALONE = (
    # All devices share one network stack: each answers, and asks, for its own address alone.
    "net.ipv4.conf.{}.arp_ignore=1",
    "net.ipv4.conf.{}.arp_announce=2",
    "net.ipv4.conf.{}.rp_filter=0",
    "net.ipv6.conf.{}.disable_ipv6=1",
)


class Booted(NamedTuple):
    """What one machine saw.

    `metadata`: name to text.  `userdata`: None if there is none.  `password`, `acknowledged`, `again`: the answers
    to `send_my_password`, `saved_password` and `send_my_password`.  `lease_s` and `seconds` since its power came on.
    """

    mac: str
    lease: Lease
    metadata: dict[str, str]
    userdata: bytes | None
    password: str
    acknowledged: str
    again: str
    lease_s: float
    seconds: float


class Swarm(Host):
    """One namespace with a device for each machine."""

    def __init__(self, place: Place, name: str, segment: Segment, macs: Sequence[str]) -> None:
        super().__init__(place, name)
        settings = [line.format(where) for line in _ALONE for where in ("all", "default")]
        must(["ip", "netns", "exec", self.namespace, "sysctl", "-q", "-w", *settings])
        self.plug(segment, _UPLINK_MAC, _UPLINK)
        self.devices = {f"vm{number}": mac.lower() for number, mac in enumerate(macs)}
        lines = []
        for device, mac in self.devices.items():
            lines.append(f"link add link {_UPLINK} name {device} address {mac} type macvlan mode bridge")
            lines.append(f"link set {device} up")
        batch(self.namespace, lines)

    def boots(self, timeout_s: float = BOOT_S) -> list[Booted]:
        """Switch all machines on at once; what each saw, in the order of the MACs.

        Each gets a lease, sets its address, reads every metadata file and its user data, asks for its password,
        acknowledges it and asks again.  NotSo if one of them could not to the end, or not within `timeout_s`.
        """
        answers = self.ask("swarm", macs=self.devices, timeout_s=timeout_s)
        failed = [f"{answer['mac']}: {answer['failed']}" for answer in answers if "failed" in answer]
        if failed:
            shown = "; ".join(failed[:_SHOWN])
            text = f"{len(failed)} of {len(answers)} machines of {self.name} did not boot: {shown}"
            raise NotSo(text + self.place.background())
        return [_booted(answer) for answer in answers]


def _booted(answer: dict[str, Any]) -> Booted:
    userdata = answer["userdata"]
    return Booted(
        mac=answer["mac"],
        lease=_lease(answer["lease"]),
        metadata=answer["metadata"],
        userdata=None if userdata is None else base64.b64decode(userdata),
        password=answer["password"],
        acknowledged=answer["acknowledged"],
        again=answer["again"],
        lease_s=answer["lease_s"],
        seconds=answer["seconds"],
    )


def _lease(told: dict[str, Any]) -> Lease:
    return Lease(
        address=told["address"],
        prefix=ipaddress.IPv4Network(f"0.0.0.0/{told['mask']}").prefixlen,
        router=told["router"],
        dns=tuple(told["dns"]),
        domain=told["domain"],
        search="",
        hostname=told["hostname"],
        mtu=told["mtu"],
        server=told["server"],
        seconds=told["seconds"],
        routes="",
        options={},
    )
