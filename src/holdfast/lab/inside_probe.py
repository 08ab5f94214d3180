"""Inside a host: a process that sends numbered packets at a fixed rate, or one that counts which of them came."""

import contextlib
import errno
import json
import random
import select
import socket
import struct
import sys
import time
from collections.abc import Iterable
from typing import Any

_PACKET = struct.Struct("!III")  # flow, sequence number, 1 if it is to be sent back
_WARM_UP = 0xFFFFFFFF
_WARM_UP_S = 1.0
_DRAIN_S = 0.25
_BUFFER = 8 << 20
_SO_TIMESTAMPNS = 35
_SO_RCVBUFFORCE = 33
# Below what the kernel gives out itself, and more of them than are sent in the 30 s that a refused flow is remembered.
_PORTS = range(1024, 32_768)


class Sender:
    """One flow's sending side."""

    def __init__(self, spec: dict[str, Any]) -> None:
        self.flow, self.new = int(spec["flow"]), spec["kind"] == "new"
        self.target, self.source = (str(spec["address"]), int(spec["port"])), str(spec["source"])
        self.refused = bool(spec["refused"])
        self.sent = 0
        self.returned: set[int] = set()
        self._port = random.choice(_PORTS)  # noqa: S311 only so that two runs do not meet in the connection table
        self._socket = self._bound(0)
        self._socket.connect(self.target)

    def _bound(self, port: int) -> socket.socket:
        sender = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
        sender.setblocking(False)  # noqa: FBT003 the library's own signature
        if port:
            sender.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        else:
            sender.setsockopt(socket.SOL_SOCKET, _SO_RCVBUFFORCE, _BUFFER)
        try:
            if port or self.source:
                sender.bind((self.source, port))
        except OSError:
            sender.close()
            raise
        return sender

    def warm_up(self) -> None:
        """Let neighbours be found and the flow be answered once, before anything counts."""
        end = time.monotonic() + (0.0 if self.refused else _WARM_UP_S)
        while True:
            self._put(self._socket, _WARM_UP, back=1)
            if select.select([self._socket], [], [], 0.02)[0]:
                self.drain()
                return
            if time.monotonic() > end:
                return

    def send(self) -> None:
        """Send the next number; one that cannot even leave is one that never comes."""
        number, self.sent = self.sent, self.sent + 1
        if not self.new:
            self._put(self._socket, number, back=1)
            self.drain()
            return
        with contextlib.suppress(OSError), self._fresh() as fresh:
            fresh.connect(self.target)
            self._put(fresh, number, back=0)

    def _fresh(self) -> socket.socket:
        """A socket with the next source port that nobody on this host uses."""
        for _ in _PORTS:
            self._port = self._port + 1 if self._port + 1 in _PORTS else _PORTS.start
            try:
                return self._bound(self._port)
            except OSError as error:
                if error.errno != errno.EADDRINUSE:
                    raise
        raise OSError("no source port is free")

    def _put(self, sender: socket.socket, number: int, back: int) -> None:
        packet = _PACKET.pack(self.flow, number, back)
        try:
            sender.send(packet)
        except OSError:  # an error that an earlier packet brought back; this one was not sent yet
            with contextlib.suppress(OSError):
                sender.send(packet)

    def drain(self) -> None:
        """Take in what came back."""
        with contextlib.suppress(OSError):
            while True:
                _, number, _ = _PACKET.unpack(self._socket.recv(64))
                if number != _WARM_UP:
                    self.returned.add(number)


def send(spec: dict[str, Any]) -> dict[str, Any]:
    """Send all flows until told to stop; how many were sent and how many came back, by flow."""
    senders = [Sender(flow) for flow in spec["flows"]]
    for sender in senders:
        sender.warm_up()
    step_s = 1 / float(spec["rate_hz"])
    print("ready", flush=True)  # noqa: T201 the helper waits for it
    due = time.monotonic()
    while not select.select([sys.stdin], [], [], max(0.0, due - time.monotonic()))[0]:
        # After a pause of this process it catches up: numbers count, not times.
        while due <= time.monotonic():
            for sender in senders:
                sender.send()
            due += step_s
    end = time.monotonic() + _DRAIN_S
    while time.monotonic() < end:
        time.sleep(0.01)
        for sender in senders:
            sender.drain()
    return {str(sender.flow): {"sent": sender.sent, "returned": len(sender.returned)} for sender in senders}


class Count:
    """One flow's receiving side."""

    def __init__(self) -> None:
        self.numbers: set[int] = set()
        self.last_ns = 0
        self.silence_ns = 0

    def add(self, number: int, stamp_ns: int) -> None:
        """Count one packet that came at a time of the kernel's clock."""
        self.numbers.add(number)
        if self.last_ns:
            self.silence_ns = max(self.silence_ns, stamp_ns - self.last_ns)
        self.last_ns = stamp_ns


def receive(spec: dict[str, Any]) -> dict[str, Any]:
    """Count what comes until told to stop: ranges of numbers and the longest silence, by flow."""
    counts: dict[int, Count] = {}
    listeners = []
    for port in spec["ports"]:
        listener = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
        listener.setsockopt(socket.SOL_SOCKET, _SO_RCVBUFFORCE, _BUFFER)
        listener.setsockopt(socket.SOL_SOCKET, _SO_TIMESTAMPNS, 1)
        listener.setsockopt(socket.IPPROTO_IP, 8, 1)  # IP_PKTINFO: answer from the address that was asked
        listener.setblocking(False)  # noqa: FBT003 the library's own signature
        listener.bind(("", port))
        listeners.append(listener)
    print("ready", flush=True)  # noqa: T201 the helper waits for it
    while True:
        readable = select.select([*listeners, sys.stdin], [], [])[0]
        for listener in listeners:
            if listener in readable:
                _take(listener, counts)
        if sys.stdin in readable:
            break
    return {
        str(flow): {"ranges": _ranges(count.numbers), "silence_s": count.silence_ns / 1e9}
        for flow, count in counts.items()
    }


def _take(listener: socket.socket, counts: dict[int, Count]) -> None:
    with contextlib.suppress(BlockingIOError):
        while True:
            packet, ancillary, _, peer = listener.recvmsg(64, 256)
            flow, number, back = _PACKET.unpack(packet)
            stamp_ns, asked = 0, []
            for level, kind, data in ancillary:
                if (level, kind) == (socket.SOL_SOCKET, _SO_TIMESTAMPNS):
                    seconds, rest = struct.unpack("=qq", data)
                    stamp_ns = seconds * 1_000_000_000 + rest
                elif level == socket.IPPROTO_IP:
                    asked = [(level, kind, struct.pack("=I4s4s", 0, data[4:8], b"\0" * 4))]
            if number != _WARM_UP:
                counts.setdefault(flow, Count()).add(number, stamp_ns)
            if back:
                with contextlib.suppress(OSError):
                    listener.sendmsg([packet], asked, 0, peer)


def _ranges(numbers: Iterable[int]) -> list[tuple[int, int]]:
    """Return the numbers as first and last of each unbroken run."""
    found: list[tuple[int, int]] = []
    for number in sorted(numbers):
        if found and found[-1][1] == number - 1:
            found[-1] = (found[-1][0], number)
        else:
            found.append((number, number))
    return found


def main() -> None:
    """Run as `main sender|receiver SPEC`; ends when a line comes in, and prints its counts."""
    work = send if sys.argv[1] == "sender" else receive
    print(json.dumps(work(json.loads(sys.argv[2]))), flush=True)  # noqa: T201 the helper reads it
