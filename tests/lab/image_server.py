"""A management server that talks to a router as it does to a real one: scp and ssh on port 3922, nothing else."""

import re
import shlex
from base64 import b64encode
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from recorded import COMMANDS, Player, Step, genuine
from replay import FILES, Site, said

from holdfast.lab.process import Result, must
from holdfast.lab.world import Management

PLACE, BIN = "/var/cache/cloud/", "/opt/cloud/bin/"
_OPTIONS = (
    "-F", "none", "-o", "StrictHostKeyChecking=no", "-o", "UserKnownHostsFile=/dev/null", "-o", "BatchMode=yes",
    "-o", "ConnectTimeout=5", "-o", "LogLevel=ERROR", "-o", "ServerAliveInterval=1", "-o", "ServerAliveCountMax=3",
)  # fmt: skip


class Server:
    """The management side of one router, on its control network; `control` is the router's address there."""

    def __init__(self, mgmt: Management, control: str, home: Path) -> None:
        self.mgmt, self.control, self.home = mgmt, control, home
        self.key = home / "id_rsa"
        must(["ssh-keygen", "-q", "-t", "rsa", "-b", "2048", "-N", "", "-f", str(self.key)])

    def line(self, recorded: str) -> str:
        """A recorded boot line with this server's own key."""
        key = b64encode(self.key.with_suffix(".pub").read_bytes()).decode()
        return re.sub(r" authorized_key=\S+", "", recorded.strip()) + f" authorized_key={key}\n"

    def copy(self, data: bytes, name: str) -> Result:
        """Drop a file where messages go, by the protocol of scp."""
        path = self.home / name
        path.write_bytes(data)
        path.chmod(0o600)
        # -p: a message arrives with the rights that the server gives it.
        argv = ["scp", "-O", "-p", "-q", "-P", "3922", "-i", str(self.key), *_OPTIONS]
        done = self.mgmt.run([*argv, str(path), f"root@{self.control}:{PLACE}"], timeout_s=60)
        path.unlink()
        return done

    def run(self, script: str, *arguments: str, timeout_s: float = 120) -> Result:
        """Call a script by a line for the router's login shell."""
        return self.shell(BIN + script, *arguments, timeout_s=timeout_s)

    def shell(self, *words: str, timeout_s: float = 120) -> Result:
        """Log in and run a program."""
        argv = ["ssh", "-p", "3922", "-i", str(self.key), *_OPTIONS, f"root@{self.control}"]
        return self.mgmt.run([*argv, shlex.join(words)], timeout_s=timeout_s)

    def tell(self, payload: bytes, name: str) -> Result:
        """Send a message and let it be taken in."""
        copied = self.copy(payload, name)
        return self.run("update_config.py", name) if copied.code == 0 else copied


class Conversation(Player):
    """Plays a story over ssh, every script of it; `answers` are those that take no message in, by step."""

    def __init__(self, made: Site, server: Server) -> None:
        super().__init__(made, lambda _: False)
        self.server = server
        self.answers: list[tuple[str, Result]] = []

    def play(self, step: Step) -> None:
        """One step: its files where they come, its scripts in order, nics where the hypervisor plugs them."""
        self.hypervisor(step)
        for event in step.events:
            if event[0] == "file":
                copied = self.server.copy(genuine(step.stored(event)), event[1])
                assert copied.code == 0, f"step {step.number}: {said(copied)}"
            elif event[1] in COMMANDS:
                self.command(step, event)
            else:
                self.cable(step, event)
                self.answers.append((f"{step.number} {' '.join(event[1:])}", self.server.run(*event[1:])))

    def command(self, step: Step, event: tuple[str, ...]) -> None:
        """Run it; nothing is left to do."""
        where = f"step {step.number}, {step.story}: {' '.join(event[1:])}"
        done = self.server.run(*event[1:])
        assert done.code == 0, f"{where}: {said(done)}"
        self.pending[step.number] = self.planned(where)["pending"]
        self.commands += 1


def named(payload: Mapping[str, Any], number: int) -> str:
    """The file that a message comes in."""
    return f"{FILES[payload['type']]}.{number:08x}-31ab-4c00-9d00-000000000031"
