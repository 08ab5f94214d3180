"""Both ends of a flow and what arrives at a host: the tests' own eyes, beside the sentences of the lab."""

import contextlib
import json
import socket
import time
from collections.abc import Sequence
from typing import ClassVar, NamedTuple

import pytest
from threads import in_network

from holdfast.lab.host import Host

_SEEN = """
table inet seen {
  set packets { type ifname . ipv4_addr . ipv4_addr . inet_proto . inet_service; flags dynamic; size 65535; }
  set pings { type ifname . ipv4_addr . ipv4_addr; flags dynamic; size 65535; }
  chain arrived {
    type filter hook prerouting priority -400
    pkttype broadcast accept
    meta l4proto { tcp, udp } update @packets { iifname . ip saddr . ip daddr . meta l4proto . th dport }
    meta l4proto icmp update @pings { iifname . ip saddr . ip daddr }
  }
}
table arp seen {
  set told { type ipv4_addr . ipv4_addr; flags dynamic; size 65535; }
  chain arrived { type filter hook input priority 0; update @told { arp saddr ip . arp daddr ip }; }
}
"""


class Packet(NamedTuple):
    """What arrived somewhere: by which nic, from and to which address; `port` is 0 for ICMP."""

    nic: str
    source: str
    target: str
    proto: str
    port: int


def must(host: Host, *argv: str) -> str:
    """Run a program in a host that has to succeed; return what it printed."""
    done = host.run(argv)
    assert done.code == 0, f"{host.name}: {' '.join(argv)}: {done.errors}"
    return done.text


class Watch:
    """Takes down what arrives at a host from now on, broadcasts apart, whether or not anybody there wants it."""

    def __init__(self, host: Host) -> None:
        self.host = host
        rules = f"add table inet seen\nadd table arp seen\ndelete table inet seen\ndelete table arp seen\n{_SEEN}"
        must(host, "/bin/sh", "-c", f"nft -f - <<'END'\n{rules}\nEND")

    def packets(self) -> set[Packet]:
        """All that arrived, as sets: equal packets are one."""
        found = set()
        for nic, source, target, proto, port in self._rows("inet", "packets"):
            found.add(Packet(nic, source, target, proto, int(port)))
        for nic, source, target in self._rows("inet", "pings"):
            found.add(Packet(nic, source, target, "icmp", 0))
        return found

    def nics(self, source: str, proto: str) -> set[str]:
        """The nics by which packets of one source and protocol arrived."""
        return {packet.nic for packet in self.packets() if (packet.source, packet.proto) == (source, proto)}

    def ports(self) -> set[int]:
        """The ports that packets came for."""
        return {packet.port for packet in self.packets()}

    def announced(self) -> set[str]:
        """The addresses that somebody told about without being asked."""
        return {row[0] for row in self._rows("arp", "told") if row[0] == row[1]}

    def _rows(self, family: str, name: str) -> list[list[str]]:
        told = json.loads(must(self.host, "nft", "--json", "--numeric", "list", "set", family, "seen", name))
        elements = next(item["set"].get("elem", []) for item in told["nftables"] if "set" in item)
        return [[_named(part) for part in row["concat"]] for row in elements]


def _named(part: str | int) -> str:
    return {"6": "tcp", "17": "udp"}.get(str(part), str(part))


def pings(host: Host, target: str, source: str) -> None:
    """Get an echo for this source address."""
    must(host, "ping", "-n", "-q", "-c", "1", "-w", "3", "-I", source, target)


def cannot_ping(host: Host, target: str, source: str) -> None:
    """Get no echo for this source address."""
    done = host.run(["ping", "-n", "-q", "-c", "1", "-W", "0.4", "-I", source, target])
    assert done.code == 1, f"{host.name} could ping {target} from {source}, and should not: {done.text}{done.errors}"


def socket_in(host: Host, kind: socket.SocketKind) -> socket.socket:
    """A socket of this process that lives in a host's network."""
    return in_network(host.namespace, lambda: socket.socket(socket.AF_INET, kind))


class Wire:
    """One flow of which the test holds both ends: `host` opened it, towards `address`:`port`, to `vm`:`vm_port`."""

    _opened: ClassVar[list["Wire"]] = []

    def __init__(  # noqa: PLR0913, PLR0917 both ends
        self, host: Host, address: str, port: int, vm: Host, vm_port: int, proto: str, source: str = ""
    ) -> None:
        self.what = f"{proto} {host.name} -> {address}:{port} -> {vm.name}"
        kind = socket.SOCK_STREAM if proto == "tcp" else socket.SOCK_DGRAM
        self._listener, self._near = socket_in(vm, kind), socket_in(host, kind)
        self._ends = {self._listener, self._near}
        self._opened.append(self)
        self._listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        self._listener.bind((address if address in vm.addresses else "", vm_port))
        if source:
            self._near.bind((source, 0))
        for end in (self._listener, self._near):
            end.settimeout(3)
        if proto == "tcp":
            self._listener.listen()
            self._near.connect((address, port))
            self._far, _ = self._listener.accept()
            self._far.settimeout(3)
        else:
            self._near.connect((address, port))
            self._near.send(b"first")
            _, peer = self._listener.recvfrom(64)
            self._far = self._listener
            self._far.connect(peer)
        self._number = 0
        self._ends.add(self._far)
        self.works()

    def works(self) -> None:
        """A packet each way arrives."""
        for sender, receiver, way in ((self._near, self._far, "there"), (self._far, self._near, "back")):
            self._number += 1
            word = b"%08d" % self._number
            sender.send(word)
            heard = b""
            try:
                while word not in heard:
                    heard += receiver.recv(4096)
            except TimeoutError:
                pytest.fail(f"{self.what}: nothing comes {way}, and should")

    def send(self, *, back: bool) -> None:
        """Send a packet that should not arrive; that it can't even leave is no error."""
        with contextlib.suppress(OSError):
            (self._far if back else self._near).send(b"leaks")

    def leaked(self) -> str:
        """What has arrived at either end; empty if nothing has."""
        for receiver, way in ((self._far, "there"), (self._near, "back")):
            receiver.settimeout(0)
            with contextlib.suppress(OSError):
                heard = receiver.recv(4096)
                return f"{self.what}: {heard!r} came {way}, and should not"
        return ""

    def close(self) -> None:
        """Close both ends."""
        for end in self._ends:
            end.close()

    @classmethod
    def close_all(cls) -> None:
        """Close all that are open."""
        while cls._opened:
            cls._opened.pop().close()


def are_cut(wires: Sequence[Wire]) -> None:
    """Of ten packets each way none arrives; in the first half of the flows the far end speaks first, then the other."""
    for backwards_first in (True, False):
        for _ in range(10):
            for number, wire in enumerate(wires):
                wire.send(back=backwards_first == (number < (len(wires) + 1) // 2))
            time.sleep(0.005)
    time.sleep(0.25)
    leaks = [text for text in (wire.leaked() for wire in wires) if text]
    assert not leaks, "; ".join(leaks)
