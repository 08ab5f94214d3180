"""Network namespaces, and the switch that joins them: bridges in a namespace of its own."""

import itertools
import json
from collections.abc import Sequence
from typing import NamedTuple

from holdfast.lab.ledger import NETNS, Ledger
from holdfast.lab.process import finish, must

_DISABLED, _FORWARDING = 0, 3  # states of a bridge's port


class Segment(NamedTuple):
    """One broadcast domain: its name and its bridge in the switch."""

    name: str
    bridge: str


class Port(NamedTuple):
    """A cable: from the switch's port to a nic in some namespace."""

    port: str
    segment: Segment
    namespace: str
    nic: str
    mac: str


def make_namespace(ledger: Ledger, name: str) -> str:
    """Make a network namespace with its loopback up, and return its name."""
    ledger.note("netns", name=name)
    must(["ip", "netns", "add", name])
    batch(name, ["link set lo up"])
    return name


def delete_namespace(name: str) -> None:
    """Delete a network namespace and all that the kernel keeps in it."""
    if (NETNS / name).exists():
        must(["ip", "netns", "delete", name])


def batch(namespace: str, lines: Sequence[str]) -> None:
    """Run several `ip` commands in one process."""
    must(["ip", "-n", namespace, "-batch", "-"], stdin="\n".join(lines) + "\n")


class Switch:
    """All segments of a lab."""

    def __init__(self, ledger: Ledger, namespace: str) -> None:
        self.namespace = make_namespace(ledger, namespace)
        self._numbers = itertools.count(1)
        self.segments: dict[str, Segment] = {}
        # The switch has no business of its own on the segments.
        settings = ["net.ipv6.conf.all.disable_ipv6=1", "net.ipv6.conf.default.disable_ipv6=1"]
        must(["ip", "netns", "exec", namespace, "sysctl", "-q", "-w", *settings])

    def segment(self, name: str) -> Segment:
        """Return the segment of this name, made if it is new."""
        if name not in self.segments:
            segment = Segment(name, f"br{len(self.segments)}-{name}"[:15])
            bridge = f"link add {segment.bridge} type bridge forward_delay 0 mcast_snooping 0"
            batch(self.namespace, [bridge, f"link set {segment.bridge} up"])
            self.segments[name] = segment
        return self.segments[name]

    def connect(self, segment: Segment, namespace: str, nic: str, mac: str, *, up: bool = False) -> Port:
        """Plug a cable between a segment and a nic made for it; `up`: set the nic up too."""
        port = Port(f"p{next(self._numbers)}", segment, namespace, nic, mac.lower())
        lines = [
            f"link add {port.port} type veth peer name {nic} address {port.mac} netns {namespace}",
            f"link set {port.port} master {segment.bridge} up",
        ]
        batch(self.namespace, lines)
        if up:
            batch(namespace, [f"link set {nic} up"])
        return port

    def disconnect(self, ports: Sequence[Port]) -> None:
        """Pull cables out and throw them away, both ends: first all carriers go, as in a power cut."""
        self.carry(ports, up=False)
        if ports:
            batch(self.namespace, [f"link delete {port.port}" for port in ports])

    def carry(self, ports: Sequence[Port], *, up: bool) -> None:
        """Set the carrier of cables, all in one stroke."""
        if ports:
            batch(self.namespace, [f"link set {port.port} {'up' if up else 'down'}" for port in ports])

    def block(self, ports: Sequence[Port], *, blocked: bool) -> None:
        """Let nothing pass through ports, both ways, or everything again; the nics behind them keep their carrier."""
        state = _DISABLED if blocked else _FORWARDING
        if not blocked:  # a port whose nic is down lets nothing pass, and all again as soon as it is up
            links = json.loads(must(["ip", "-n", self.namespace, "-json", "link"]))
            up = {link["ifname"] for link in links if link["operstate"] == "UP"}
            ports = [port for port in ports if port.port in up]
        must(
            ["bridge", "-n", self.namespace, "-batch", "-"],
            stdin="".join(f"link set dev {port.port} state {state}\n" for port in ports),
        )

    def partition(self, segment: Segment, away: Sequence[Port]) -> None:
        """Cut a segment in two: these ports see each other and none of the rest; nobody loses the carrier."""
        other = f"{segment.bridge[:14]}~"
        batch(
            self.namespace,
            [
                f"link add {other} type bridge forward_delay 0 mcast_snooping 0",
                f"link set {other} up",
                *(f"link set {port.port} master {other}" for port in away),
            ],
        )

    def heal(self, segment: Segment) -> None:
        """Make a cut segment whole again."""
        other = f"{segment.bridge[:14]}~"
        listed = must(["ip", "-n", self.namespace, "-brief", "link", "show", "master", other]).splitlines()
        away = [line.split()[0].partition("@")[0] for line in listed]
        lines = [f"link set {port} master {segment.bridge}" for port in away]
        batch(self.namespace, [*lines, f"link delete {other}"])


def nics(namespace: str) -> set[str]:
    """Return the names of a namespace's devices, loopback apart."""
    lines = finish(["ip", "-n", namespace, "-brief", "link"]).text.splitlines()
    return {line.split()[0].partition("@")[0] for line in lines} - {"lo"}
