"""The health checks themselves: each looks, none changes anything, and what it cannot find out it calls unknown."""

import json
import os
import time
from collections.abc import Callable, Mapping
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from holdfast.health import (
    ADVANCED,
    BASIC,
    FAILED,
    SUCCESS,
    UNKNOWN,
    WARNING,
    Asked,
    Outcome,
    Watched,
    forwards,
    guests,
    listeners,
    missing,
    number,
    records,
    room,
    share,
    unforwarded,
    unserved,
    without_lease,
    without_name,
)
from holdfast.run import STOPPED, CommandFailed, capture, run
from holdfast.scripts import read
from holdfast.scripts.version import version
from holdfast.texts import is_host_name, is_ipv4

LOOK_S = 0.5
_SILENT_S = 1
_PING = ("ping", "-n", "-q", "-c", "1", "-W", str(_SILENT_S))
_TRIES = 3
_ASKED_S = 4.0
"""How long gateways may be asked again: a check has five seconds."""
_AT_ONCE = 28
"""How many gateways are asked together: each takes a thread and a program, and the unit may have 64 of both."""
Check = Callable[[Asked, Path], Outcome | None]
"""None: it does not apply to this router as it is."""


def _thresholds(asked: Asked) -> dict[str, str]:
    return next(records(asked.data.get("systemThresholds", "")), {})


def cpu_usage(asked: Asked, _root: Path) -> Outcome:
    """How busy the processors are, over half a second."""
    before = _ticks()
    time.sleep(LOOK_S)
    after = _ticks()
    total, idle = sum(after) - sum(before), after[3] + after[4] - before[3] - before[4]
    used = 100.0 * (total - idle) / total if total > 0 else 0.0
    return share("processors busy", used, number(_thresholds(asked).get("maxCpuUsage")))


def _ticks() -> list[int]:
    return [int(word) for word in Path("/proc/stat").read_text().partition("\n")[0].split()[1:9]]


def memory_usage(asked: Asked, _root: Path) -> Outcome:
    """How much of the memory is not available."""
    lines = Path("/proc/meminfo").read_text().splitlines()
    held = {name: int(rest.split()[0]) for name, _, rest in (line.partition(":") for line in lines)}
    used = 100.0 * (1 - held["MemAvailable"] / held["MemTotal"])
    return share("memory used", used, number(_thresholds(asked).get("maxMemoryUsage")))


def disk_space(asked: Asked, root: Path) -> Outcome:
    """How much room the disk has."""
    stat = os.statvfs(root)
    return room(stat.f_bavail * stat.f_frsize / 1e6, number(_thresholds(asked).get("minDiskNeeded")))


def gateways(asked: Asked, _root: Path) -> Outcome | None:
    """Whether each gateway answers; a router that does not serve has its public links down, and asks nobody."""
    if not asked.serving:
        return None
    text = asked.data.get("gateways", "").rstrip(";").partition("=")[2]
    wanted = [word for word in text.split() if is_ipv4(word)]
    left, ends = wanted, time.monotonic() + _ASKED_S
    with ThreadPoolExecutor(_AT_ONCE) as pool:
        for turn in range(_TRIES):
            # All are asked once; those that are silent again only while there is time: an answer too late is none.
            if not left or (turn and time.monotonic() + _rounds(left) * _SILENT_S > ends):
                break
            answers = list(pool.map(_answers, left))
            left = [address for address, answered in zip(left, answers, strict=True) if not answered]
    return missing("gateways", [f"{address} does not answer" for address in left], len(wanted))


def _rounds(addresses: list[str]) -> int:
    return -(-len(addresses) // _AT_ONCE)


def _answers(address: str) -> bool:
    code = capture([*_PING, address], timeout_s=2 * _SILENT_S).code
    if code == STOPPED:
        raise CommandFailed("ping does not end, so nothing is known of the gateways")
    return not code


def router_version(asked: Asked, root: Path) -> Outcome | None:
    """Whether the server expects this template and these scripts.  It decides itself what follows."""
    wanted = next(records(asked.data.get("routerVersion", "")), {})
    if not wanted.get("templateVersion"):
        return None
    template, scripts = version(root).strip().split("&")
    told = [
        ("template", wanted["templateVersion"], template),
        ("scripts", wanted.get("scriptsVersion", scripts), scripts),
    ]
    other = [f"{what} {have!r}, the server has {want!r}" for what, want, have in told if want != have]
    return Outcome(WARNING if other else SUCCESS, "; ".join(other) or f"{template}, {scripts}")


def dhcp(asked: Asked, root: Path) -> Outcome | None:
    """Whether dnsmasq's list has each VM."""
    vms = guests(asked.data, "dhcp")
    return missing("VMs in the DHCP server's list", without_lease(_text(root / "etc/dhcphosts.txt"), vms), len(vms))


def dns(asked: Asked, root: Path) -> Outcome | None:
    """Whether each VM's address has a name; a VM whose name DNS cannot carry has none."""
    vms = [vm for vm in guests(asked.data, "dns") if is_host_name(vm[0])]
    return missing("VMs in the DNS server's list", without_name(_text(root / "etc/hosts"), vms), len(vms))


def haproxy(asked: Asked, _root: Path) -> Outcome | None:
    """Whether the running haproxy has each listener."""
    from holdfast.haproxy_stats import ask  # noqa: PLC0415 most runs have no listener to ask for

    wanted = listeners(asked.data)
    try:
        table = ask("show stat") if wanted else ""
    except (FileNotFoundError, ConnectionRefusedError):
        return Outcome(FAILED, f"haproxy does not run, and is to have {len(wanted)} listeners")
    return missing("listeners", unserved(table, wanted), len(wanted))


def iptables(asked: Asked, _root: Path) -> Outcome | None:
    """Whether the firewall has each port forward."""
    wanted = forwards(asked.data)
    left = [f"{address}:{port} to {target}" for address, port, target in wanted]
    if wanted:
        try:
            maps = [json.loads(run(["nft", "-j", "list", "map", "inet", "holdfast", name])) for name in _MAPS]
        except CommandFailed as error:
            if _MISSING not in str(error):
                raise
            return Outcome(FAILED, f"the firewall's table or its maps are not there: {error}")
        left = unforwarded({"nftables": [item for one in maps for item in one["nftables"]]}, wanted)
    return missing("port forwards", left, len(wanted))


_MAPS = ("port_forward", "range_forward")
_MISSING = "No such file or directory"

CHECKS: Mapping[str, Mapping[str, Check]] = {
    BASIC: {
        "cpu_usage_check.py": cpu_usage,
        "memory_usage_check.py": memory_usage,
        "disk_space_check.py": disk_space,
        "gateways_check.py": gateways,
        "router_version_check.py": router_version,
    },
    ADVANCED: {
        "dhcp_check.py": dhcp,
        "dns_check.py": dns,
        "haproxy_check.py": haproxy,
        "iptables_check.py": iptables,
    },
}
"""By the names that management servers exclude and show them by."""


def service(watched: Watched) -> Outcome | None:
    """What systemd says of a unit, which it restarts by itself; one that has no work here is none of the list."""
    names = ("LoadState", "ActiveState", "SubState", "NRestarts", "Result")
    said = run(["systemctl", "show", *(word for name in names for word in ("-p", name)), "--", watched.unit])
    held = dict(line.partition("=")[::2] for line in said.splitlines())
    seen = f"{watched.unit} is {held.get('ActiveState')} ({held.get('SubState')})"
    restarts = held.get("NRestarts", "0")
    evidence = seen if restarts == "0" else f"{seen}, restarted {restarts} times by systemd"
    if held.get("ActiveState") in ("active", "reloading"):
        return Outcome(SUCCESS, evidence)
    if not watched.wanted:
        return None
    if held.get("LoadState") != "loaded":
        return Outcome(FAILED, f"{watched.unit} is {held.get('LoadState')}")
    return Outcome(FAILED, f"{evidence}, last result {held.get('Result')}")


def _text(path: Path) -> str:
    try:
        return read(path).decode("utf-8", "replace")
    except FileNotFoundError:
        return ""


def unknown(why: object) -> Outcome:
    """What could not be found out is not called broken."""
    return Outcome(UNKNOWN, f"could not be found out: {why}")
