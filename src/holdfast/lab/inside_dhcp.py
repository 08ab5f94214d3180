"""Inside a host: a real DHCP client per nic, and what its leases say."""

import json
import signal
import subprocess
import sys
import threading
from pathlib import Path
from typing import Any

_WORD = "LEASE "
_GONE = "GONE\n"
_RELEASE_S = 5
_OPTIONS = (
    "hostname",
    "domain",
    "search",
    "mtu",
    "ntpsrv",
    "staticroutes",
    "msstaticroutes",
    "router",
    "dns",
    "subnet",
)


class Dhcp:
    """One host's DHCP clients."""

    def __init__(self, name: str, home: Path) -> None:
        self.name, self.home = name, home
        self._clients: dict[str, subprocess.Popen[str]] = {}
        self._leases: dict[str, dict[str, Any]] = {}
        self._heard = threading.Condition()

    def lease(self, nic: str, timeout_s: float) -> dict[str, Any]:
        """Start a fresh client, as a boot would, and return what it was given; OSError if nothing in time."""
        old = self._clients.pop(nic, None)
        if old is not None:
            old.kill()
            old.wait()
        self._forget(nic)
        options = [word for option in _OPTIONS for word in ("-O", option)]
        argv = ["udhcpc", "-f", "-i", nic, "-s", str(self._script()), "-t", "20", "-T", "1", "-A", "1", "-C", *options]
        client = subprocess.Popen(  # noqa: S603 own words and a nic's name
            argv, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True
        )
        self._clients[nic] = client
        threading.Thread(target=self._listen, args=(nic, client), daemon=True).start()
        return self._wait(nic, timeout_s)

    def renew(self, nic: str, timeout_s: float) -> dict[str, Any]:
        """Ask for the lease again and return it; OSError if there is no answer in time."""
        self._forget(nic)
        self._client(nic).send_signal(signal.SIGUSR1)
        return self._wait(nic, timeout_s)

    def release(self, nic: str) -> None:
        """Give the lease back; the client ends."""
        client = self._client(nic)
        client.send_signal(signal.SIGUSR2)
        with self._heard:
            # It takes the address away behind the release that it sends.
            if not self._heard.wait_for(lambda: nic not in self._leases, _RELEASE_S):
                raise TimeoutError(f"the DHCP client on {nic} did not release its lease")
        self._clients.pop(nic)
        client.terminate()
        client.wait(_RELEASE_S)

    def servers(self) -> list[str]:
        """Return the name servers that the leases name."""
        with self._heard:
            return [server for lease in self._leases.values() for server in str(lease.get("dns", "")).split()]

    def _client(self, nic: str) -> subprocess.Popen[str]:
        if nic not in self._clients:
            raise OSError(f"no DHCP client on {nic}")
        return self._clients[nic]

    def _script(self) -> Path:
        """What udhcpc calls: a program file of this host, since the client takes no arguments for it."""
        script = self.home / "dhcp-script"
        if not script.exists():
            source = Path(__file__).parents[2]
            lines = [
                f"#!{sys.executable} -IS",
                f"import sys; sys.path.insert(0, {str(source)!r})",
                f"from holdfast.lab.inside_dhcp_script import main; main({str(self.home / 'resolv.conf')!r})",
            ]
            script.write_text("\n".join(lines) + "\n")
            script.chmod(0o755)
        return script

    def _listen(self, nic: str, client: subprocess.Popen[str]) -> None:
        assert client.stdout is not None  # noqa: S101 started with a pipe
        for line in client.stdout:
            with self._heard:
                if line.startswith(_WORD):
                    self._leases[nic] = json.loads(line[len(_WORD) :])
                elif line == _GONE:
                    self._leases.pop(nic, None)
                self._heard.notify_all()

    def _forget(self, nic: str) -> None:
        with self._heard:
            self._leases.pop(nic, None)

    def _wait(self, nic: str, timeout_s: float) -> dict[str, Any]:
        with self._heard:
            if not self._heard.wait_for(lambda: nic in self._leases, timeout_s):
                raise TimeoutError(f"no DHCP server gave {nic} a lease within {timeout_s:g} s")
            return self._leases[nic]
