"""What the DHCP client calls: sets address, routes and name servers, and passes the lease on."""

import json
import os
import subprocess
import sys
from pathlib import Path


def main(resolv_conf: str) -> None:
    """Run as udhcpc's script: one word in the arguments, the lease in the environment."""
    word, lease = sys.argv[1], dict(os.environ)
    nic = lease["interface"]
    if word == "deconfig":
        _ip([f"link set {nic} up", f"address flush dev {nic}"])
        print("GONE", flush=True)  # noqa: T201 the helper reads it
    elif word in ("bound", "renew"):
        lines = [f"address replace {lease['ip']}/{lease.get('mask', '32')} dev {nic}"]
        if "mtu" in lease:
            lines.append(f"link set {nic} mtu {lease['mtu']}")
        lines += [f"route replace {route}" for route in _routes(lease, nic)]
        _ip(lines)
        told = (
            [f"search {lease.get('search') or lease['domain']}"] if lease.get("search") or lease.get("domain") else []
        )
        told += [f"nameserver {server}" for server in lease.get("dns", "").split()]
        Path(resolv_conf).write_text("\n".join(told) + "\n")
        print("LEASE " + json.dumps(lease), flush=True)  # noqa: T201 the helper reads it


def _routes(lease: dict[str, str], nic: str) -> list[str]:
    """Return the lease's routes; the classless ones replace the default router (RFC 3442)."""
    classless = (lease.get("staticroutes") or lease.get("msstaticroutes") or "").split()
    if classless:
        pairs = list(zip(classless[::2], classless[1::2], strict=True))
    else:
        pairs = [("default", router) for router in lease.get("router", "").split()[:1]]
    return [f"{to} dev {nic}" if via == "0.0.0.0" else f"{to} via {via} dev {nic}" for to, via in pairs]  # noqa: S104 means on-link


def _ip(lines: list[str]) -> None:
    subprocess.run(["ip", "-batch", "-"], input="\n".join(lines) + "\n", text=True, check=True)  # noqa: S607 PATH is ours
