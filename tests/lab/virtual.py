"""A virtual machine beside the lab: qemu without KVM, its nics on the lab's segments, and the guest agent's door."""

import json
import socket
import subprocess
from base64 import b64encode
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from holdfast.lab.lab import Lab
from holdfast.lab.network import Segment, batch
from holdfast.lab.process import must, start
from holdfast.lab.sentence import eventually

AGENT = "org.qemu.guest_agent.0"
_ASK_S = 30.0


class Virtual:
    """One machine on a copy of a disk, off until `boot`; `home` holds the copy, the console and the agent's door."""

    def __init__(self, lab: Lab, disk: Path, home: Path, nics: Sequence[tuple[Segment, str]]) -> None:
        self.lab, self.home, self.nics = lab, home, nics
        self.console, self.door, self.disk = home / "console", home / "agent", home / "disk"
        self.switch = lab._place.switch.namespace  # noqa: SLF001 its nics are ports there
        self._process: subprocess.Popen[bytes] | None = None
        must(["qemu-img", "create", "-q", "-f", "qcow2", "-b", str(disk), "-F", "qcow2", str(self.disk)])
        for number, (segment, _) in enumerate(nics):
            batch(self.switch, [f"tuntap add vm{number} mode tap", f"link set vm{number} master {segment.bridge} up"])

    def boot(self) -> None:
        """Give it power; it is not waited for."""
        argv = ["nsenter", f"--net=/run/netns/{self.switch}", "qemu-system-x86_64", "-M", "q35", "-accel", "tcg"]
        argv += ["-cpu", "max", "-smp", "1", "-m", "512", "-display", "none", "-nodefaults", "-no-reboot"]
        argv += ["-serial", f"file:{self.console}", "-drive", f"file={self.disk},if=virtio,cache=unsafe"]
        argv += ["-device", "virtio-serial-pci", "-chardev", f"socket,id=agent,path={self.door},server=on,wait=off"]
        argv += ["-device", f"virtserialport,chardev=agent,name={AGENT}"]
        for number, (_, mac) in enumerate(self.nics):
            argv += ["-netdev", f"tap,id=n{number},ifname=vm{number},script=no,downscript=no"]
            argv += ["-device", f"virtio-net-pci,netdev=n{number},mac={mac},romfile="]
        self._process = start(argv, self.home / "qemu")

    def power_cut(self) -> None:
        """Take its power."""
        if self._process is not None:
            self._process.kill()
            self._process.wait()
        self._process = None

    def waits_for(self, text: str, timeout_s: float) -> None:
        """Wait until something stands on its console."""
        eventually(lambda: text in self.said(), f"{text!r} on the console", timeout_s)

    def said(self) -> str:
        """All of its console since it was switched on."""
        return self.console.read_text(errors="replace") if self.console.exists() else ""

    def give(self, path: str, text: str) -> None:
        """Write a file through the guest agent, as KVM hands a boot line over."""
        with socket.socket(socket.AF_UNIX) as door:
            door.settimeout(_ASK_S)
            door.connect(str(self.door))
            with door.makefile("rwb") as wire:
                handle = _ask(wire, "guest-file-open", path=path, mode="w+")
                _ask(wire, "guest-file-write", handle=handle, **{"buf-b64": b64encode(text.encode()).decode()})
                _ask(wire, "guest-file-close", handle=handle)


def _ask(wire: Any, what: str, **arguments: Any) -> Any:
    wire.write(json.dumps({"execute": what, "arguments": arguments}).encode() + b"\n")
    wire.flush()
    answer = json.loads(wire.readline())
    assert "return" in answer, (what, answer)
    return answer["return"]
