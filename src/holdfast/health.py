"""What health checks are asked and what they answer: records of the management server, results, thresholds.  Pure."""

from collections.abc import Iterator
from typing import Any, NamedTuple

PLACE = "/run/holdfast/monitor.json"
"""What the checks are asked: written by the agent."""
RESULTS = "run/holdfast/health.json"
"""What they answered last."""
SUCCESS, FAILED, WARNING, UNKNOWN = "SUCCESS", "FAILED", "WARNING", "UNKNOWN"
BASIC, ADVANCED = "basic", "advanced"
BEFORE = "before"
"""Of a result that is UNKNOWN: what was found last.  It is kept here, and told to nobody."""


class Watched(NamedTuple):
    """A section of the service list, its unit, and whether it is to run now."""

    section: str
    unit: str
    wanted: bool


class Asked(NamedTuple):
    """Everything that a run of checks needs to know."""

    services: tuple[Watched, ...] = ()
    watching: bool = False
    checking: bool = False
    basic_min: int = 0
    advanced_min: int = 0
    excluded: tuple[str, ...] = ()
    serving: bool = True
    data: dict[str, str] = {}


class Outcome(NamedTuple):
    """What one check found, with the evidence."""

    success: str
    message: str


def asked(document: Any) -> Asked:
    """From the agent's file; ValueError or TypeError if it is something else."""
    found = Asked(**document)
    services = tuple(Watched(*item) for item in found.services)
    return found._replace(services=services, excluded=tuple(found.excluded))


def records(text: str) -> Iterator[dict[str, str]]:
    """Records `k=v,k=v;` of the management server."""
    for part in text.split(";"):
        record = dict(field.partition("=")[::2] for field in part.split(",") if "=" in field)
        if record:
            yield {name.strip(): value.strip() for name, value in record.items()}


def number(text: str | None) -> float | None:
    """A threshold; None where there is none, or where it says nothing."""
    try:
        return float(text) if text else None
    except ValueError:
        return None


def share(what: str, used: float, most: float | None) -> Outcome:
    """Percent of something against a threshold."""
    seen = f"{what} {used:.1f} %"
    if most is None:
        return Outcome(SUCCESS, f"{seen}, no limit is set")
    if used > most:
        return Outcome(FAILED, f"{seen}, the limit is {most:.1f} %")
    return Outcome(SUCCESS, f"{seen}, limit {most:.1f} %")


def room(free_mb: float, least_mb: float | None) -> Outcome:
    """Free space against a threshold."""
    seen = f"{free_mb:.0f} MB free"
    if least_mb is not None and free_mb < least_mb:
        return Outcome(FAILED, f"{seen}, at least {least_mb:.0f} MB are wanted")
    return Outcome(SUCCESS, seen)


SHOWN = 5


def missing(what: str, absent: list[str], total: int) -> Outcome:
    """What was looked for and not found; nothing to look for is well."""
    if absent:
        more = f" and {len(absent) - SHOWN} more" if len(absent) > SHOWN else ""
        return Outcome(FAILED, f"{len(absent)} of {total} {what} missing: {'; '.join(absent[:SHOWN])}{more}")
    return Outcome(SUCCESS, f"all {total} {what} are there" if total else f"there are no {what}")


def guests(data: dict[str, str], which: str) -> list[tuple[str, str, str]]:
    """Name, MAC and address of the VMs of which a check (`dhcp` or `dns`) is asked."""
    found = records(data.get("virtualMachines", ""))
    return [
        (vm.get("vmName", ""), vm.get("macAddress", "").lower(), vm.get("ip", ""))
        for vm in found
        if vm.get(which, "true") == "true"
    ]


def without_lease(hosts: str, vms: list[tuple[str, str, str]]) -> list[str]:
    """VMs that dnsmasq's list of hosts does not have as they are."""
    known = {tuple(line.lower().split(",")) for line in hosts.splitlines()}
    pairs = {(line[0], field) for line in known if line for field in line[1:]}
    return [f"{name} {mac} {address}" for name, mac, address in vms if (mac, address) not in pairs]


def without_name(hosts: str, vms: list[tuple[str, str, str]]) -> list[str]:
    """Addresses of VMs that the list of names does not have."""
    known = {line.split()[0] for line in hosts.splitlines() if line.split()}
    return [f"{name} {address}" for name, _, address in vms if address not in known]


def listeners(data: dict[str, str]) -> list[tuple[str, str]]:
    """Address and port of each listener that is asked about; haproxy carries no datagrams."""
    found = records(data.get("haproxyData", ""))
    return [(one.get("sourceIp", ""), one.get("sourcePortStart", "")) for one in found if one.get("protocol") != "udp"]


def unserved(table: str, wanted: list[tuple[str, str]]) -> list[str]:
    """Listeners that the running haproxy does not have."""
    names = {line.partition(",")[0] for line in table.splitlines()}
    return [f"{address}:{port}" for address, port in wanted if f"{address.replace('.', '_')}-{port}" not in names]


def forwards(data: dict[str, str]) -> list[tuple[str, int, str]]:
    """Public address, first port and target of each port forward that is asked about."""
    found = []
    for one in records(data.get("portForwarding", "")):
        port = one.get("sourcePortStart", "")
        if port.isascii() and port.isdigit():
            found.append((one.get("sourceIp", ""), int(port), one.get("destIp", "")))
    return found


def unforwarded(listing: Any, wanted: list[tuple[str, int, str]]) -> list[str]:
    """Port forwards that the firewall does not have, by its maps as `nft -j` lists them."""
    single: set[tuple[str, int, str]] = set()
    ranges: dict[tuple[str, str], list[tuple[int, int]]] = {}
    for item in listing["nftables"]:
        for key, value in item.get("map", {}).get("elem", ()):
            address, _, port = key["concat"]
            target = value["concat"][0] if isinstance(value, dict) else value
            if isinstance(port, dict):
                ranges.setdefault((address, target), []).append(tuple(port["range"]))
            else:
                single.add((address, port, target))
    return [
        f"{address}:{port} to {target}"
        for address, port, target in wanted
        if (address, port, target) not in single
        and not any(first <= port <= last for first, last in ranges.get((address, target), ()))
    ]
