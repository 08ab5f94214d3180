"""What tests of the load balancer need: messages as a management server writes them, shops and customers."""

import json
import subprocess
import sys
import threading
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple, Self

from isolated import CONTROL, GUEST_GATEWAY, SOURCE_NAT, Isolated

from holdfast.lab.host import Host
from holdfast.lab.process import Result

SCRIPT = str(Path(__file__).parent / "inside_shop.py")
STATS_PORT = 8081
WHERE = {"public": SOURCE_NAT, "guest": GUEST_GATEWAY, "private": CONTROL}

_GLOBAL = [
    "global", "\tlog 127.0.0.1:3914   local0 warning", "\tmaxconn 4096", "\tmaxpipes 1024",
    "\tchroot /var/lib/haproxy", "\tuser haproxy", "\tgroup haproxy", "\tstats socket /run/haproxy/admin.sock",
    "\tdaemon", "\t ", "defaults", "\tlog     global", "\tmode    tcp", "\toption  dontlognull", "\tretries 3",
    "\toption redispatch", "\toption forwardfor", "\toption httpclose", "\ttimeout connect    5000",
    "\ttimeout client     50000", "\ttimeout server     50000",
]  # fmt: skip
_HTTP = ("\tmode http", "\toption httpclose")


class Rule(NamedTuple):
    """A load-balancing rule: `servers` as `address:port`, `extra` lines of the listener, `tls` on the bind line."""

    address: str
    port: int
    servers: Sequence[str]
    balance: str = "roundrobin"
    extra: Sequence[str] = ()
    http: bool = True
    tls: bool = False
    cookie: bool = False

    @property
    def name(self) -> str:
        """Name of the listener and of its certificate."""
        return f"{self.address.replace('.', '_')}-{self.port}"

    def lines(self, *, old: bool = False) -> list[str]:
        """The listener as 4.22 writes it, or 4.6.1 (`old`)."""
        place = f"{self.address}:{self.port}"
        tls = f" ssl crt /etc/cloudstack/ssl/{self.name}.pem alpn h2,http/1.1 ssl-min-ver TLSv1.2" if self.tls else ""
        head = [f"listen {self.name} {place}"] if old else [f"listen {self.name}", f"\tbind {place}{tls}"]
        servers = [
            f"\tserver {self.name}_{n} {server} check"
            + (f" cookie {server.replace('.', '_').replace(':', '-')}" if self.cookie else "")
            for n, server in enumerate(self.servers)
        ]
        mode = _HTTP if self.http else ()
        if old:
            return [*head, f"\tbalance {self.balance}", *servers, *self.extra, *mode, "\t "]
        return [*head, *mode, f"\tbalance {self.balance}", *servers, *self.extra, "\t "]


def message(
    rules: Sequence[Rule], stats: Sequence[str] = (), certificates: Sequence[dict[str, str]] = (), *, old: bool = False
) -> dict[str, Any]:
    """The whole network's configuration; `stats` of `public`, `guest`, `private`: all three is visibility `all`."""
    text = [line.replace("httpclose", "forceclose") for line in _GLOBAL] if old else list(_GLOBAL)
    if old:
        text = [line for line in text if "admin.sock" not in line]
    for side in stats:
        place = f"{WHERE[side]}:{STATS_PORT}"
        head = f"\nlisten stats_on_{side} {place}\n" if old else f"\nlisten stats_on_{side}\n\tbind {place}\n"
        text.append(
            f"{head}\tmode http\n\toption httpclose\n\tstats enable\n\tstats uri     /admin?stats\n"
            "\tstats realm   Haproxy\\ Statistics\n\tstats auth    admin1:AdMiN123\n"
        )
    text.append("\t ")
    for rule in rules:
        text += rule.lines(old=old)
    if not rules:
        text += ["listen  vmops 0.0.0.0:9"] if old else ["listen  vmops", "\tbind 0.0.0.0:9"]
        text.append("\toption transparent")
    opened = "" if not stats else f"{WHERE[stats[0]] if len(stats) == 1 else '0.0.0.0/0'}:{STATS_PORT}:0/0:,"
    content = {
        "configuration": text,
        "tmp_cfg_file_path": "/etc/haproxy/",
        "tmp_cfg_file_name": "haproxy.cfg.new.1795328235999",
        **({} if old else {"ssl_certs": [*certificates]}),
        "add_rules": [f"{rule.address}:{rule.port}:" for rule in rules],
        "remove_rules": [],
        "stat_rules": [opened],
        "router_ip": CONTROL,
    }
    return {"rules": [content], "type": "loadbalancer"}


def balance(net: Isolated, rules: Sequence[Rule], *arguments: Any, check: bool = True, **keywords: Any) -> Result:
    """Send it; it must be taken."""
    return net.command("load_balancer", message(rules, *arguments, **keywords), check=check)


def certificate(rule: Rule, directory: Path, name: str) -> dict[str, str]:
    """A real certificate for a listener, as it is sent; its common name is `name`."""
    key, cert = directory / f"{name}.key", directory / f"{name}.crt"
    argv = ["openssl", "req", "-x509", "-newkey", "rsa:2048", "-nodes", "-days", "30", "-subj", f"/CN={name}"]
    subprocess.run([*argv, "-keyout", key, "-out", cert], check=True, capture_output=True)
    return {"name": rule.name, "cert": cert.read_text(), "key": key.read_text(), "chain": cert.read_text()}


class Background:
    """A role of `inside_shop.py` that runs inside a host until it is left."""

    def __init__(self, host: Host, role: str, *arguments: str, directory: Path) -> None:
        self.host, self.stop = host, directory / f"stop-{role}-{host.name}-{time.monotonic_ns()}"
        self.argv = [sys.executable, SCRIPT, role, str(self.stop), *arguments]
        self.result: Result | None = None
        self._thread = threading.Thread(target=self._run, daemon=True)

    def _run(self) -> None:
        self.result = self.host.run(self.argv, timeout_s=1200)

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.stop.touch()
        self._thread.join(20)

    @property
    def told(self) -> dict[str, Any]:
        """What it printed in the end."""
        assert self.result is not None
        assert self.result.code == 0, self.result.errors
        told: dict[str, Any] = json.loads(self.result.text)
        return told


def ask(host: Host, *arguments: str) -> dict[str, Any]:
    """One request: `inside_shop.py get URL …`; `{"status": 0}` if there was no answer."""
    done = host.run([sys.executable, SCRIPT, "get", *arguments], timeout_s=30)
    assert done.code == 0, done.errors
    told: dict[str, Any] = json.loads(done.text)
    return told
