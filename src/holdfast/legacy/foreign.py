"""What the old agent leaves on a machine, by kinds: how each is known, so that ours is the only hand.  Pure."""

import re
from collections.abc import Iterable, Iterator, Mapping
from typing import Any

from holdfast.nft import TABLE, WAY, mark

NFT_TABLES = frozenset(
    [(family, name) for family in ("ip", "ip6") for name in ("filter", "nat", "mangle", "raw", "security")]
    + [("ip", "ip4_firewall"), ("ip", "ip4_acl"), ("ip6", "ip6_firewall"), ("ip6", "ip6_acl")]
)
"""iptables' own tables where nf_tables carries them, and those that 4.17 and newer write in nft's words."""
TRANSLATION = "holdfast_adopted"
"""Our table that gives connections of before the marks of now; a reboot forgets it, and the connections too."""

STOPPED = ("apache2.service", "cloud-postinit.service", "baremetal-vr.service")
"""Units that would answer guests or configure beside us: stopped and masked."""
INSTANCES = ("cloud-password-server@*.service",)
MASKED = ("networking.service", "netfilter-persistent.service")
"""Units that must not act at the next boot; stopping them would take links or rules away now."""
PROGRAMS = frozenset(
    f"{place}/{name}"
    for place in ("/opt/cloud/bin", "/opt/cosmic/router/bin", "/root")
    for name in ("passwd_server_ip.py", "passwd_server", "baremetal-vr.py", "monitorServices.py")
)
"""Programs that run outside of any unit."""

FILES = (
    "etc/iptables/rules.v4", "etc/iptables/rules.v6", "etc/iptables/router_rules.v4", "etc/iptables/router_rules.v6",
    "etc/dnsmasq.d/cloud.conf", "etc/dnsmasq.d/dnsmasq_global.conf",
)  # fmt: skip
"""Files that only the old agent's programs read."""
SEARCHED = ("etc/cron.d", "etc/cron.hourly", "etc/cron.daily", "etc/cron.weekly", "etc/udev/rules.d")
"""Directories in which a file that calls the old agent is its own."""
CRONTAB = "var/spool/cron/crontabs/root"
RT_TABLES = "etc/iproute2/rt_tables"
PASSWORDS = "var/cache/cloud/passwords-*"

_CALLS = re.compile(r"/opt/cloud/bin/|/opt/cosmic/|/ramdisk/rrouter|/root/(monitorServices|reconfigLB|health_checks)")
_NAMED = re.compile(r"\s*\d+\s+Table_eth\d+\s*")
_TABLES = range(1, 200)
"""Policy tables: N for ethN in 4.6, 100 + N since."""
_SINCE = 100
_OURS = range(1000, 2000)
_KERNELS, _MAIN, _ROUTES_OURS = 2, 254, 77


def calls_old_agent(text: str) -> bool:
    """Whether a script, cron or udev file leads to the old agent; comments do not count."""
    return any(_CALLS.search(line) for line in text.splitlines() if not line.lstrip().startswith("#"))


def without_old_agent(crontab: str) -> str:
    """A crontab without the lines that lead to the old agent."""
    kept = [line for line in crontab.splitlines(keepends=True) if not calls_old_agent(line)]
    return "".join(kept)


def without_names(rt_tables: str) -> str:
    """`rt_tables` without the old agent's names: in 4.6 they mean other numbers than now."""
    return "".join(line for line in rt_tables.splitlines(keepends=True) if not _NAMED.fullmatch(line))


def tables(listing: Mapping[str, Any]) -> list[tuple[str, str]]:
    """Theirs among what `nft -j list tables` printed."""
    found = [item["table"] for item in listing.get("nftables", ()) if "table" in item]
    return sorted(pair for table in found if (pair := (table["family"], table["name"])) in NFT_TABLES)


def rules(listing: Iterable[Mapping[str, Any]]) -> list[Mapping[str, Any]]:
    """Theirs among what `ip -N -j rule` printed: those that lead to policy tables and are not ours."""
    return [rule for rule in listing if rule["priority"] not in _OURS and _table(rule) in _TABLES]


def marks(listing: Iterable[Mapping[str, Any]]) -> dict[int, str]:
    """Marks that the old agent's rules know, and the nic that each stands for."""
    found = {}
    for rule in rules(listing):
        number = int(rule.get("fwmark", "0"), 0)
        if number:
            found[number] = f"eth{number - _SINCE if number >= _SINCE else number}"
    return found


def routes(listing: Iterable[Mapping[str, Any]]) -> list[tuple[str, ...]]:
    """Words for `ip route del` for theirs among what `ip -N -j route show table all` printed: in policy tables and in
    the main one, neither the kernel's nor ours.
    """
    found = []
    for route in listing:
        table, protocol = _table(route, _MAIN), int(route.get("protocol", 3))
        if table not in (*_TABLES, _MAIN) or protocol in (_KERNELS, _ROUTES_OURS) or ":" in route["dst"]:
            continue
        kind = ("throw",) if str(route.get("type", "1")) in ("9", "throw") else ()
        metric = ("metric", str(route["metric"])) if "metric" in route else ()
        found.append((*kind, route["dst"], "table", str(table), "proto", str(protocol), *metric))
    return found


def _table(item: Mapping[str, Any], default: int = 0) -> int:
    said = str(item.get("table", default))
    return int(said) if said.isdigit() else default


def overlap() -> str:
    """What has to be in force while both agents' rules are: a chain behind all that mark packets.

    Their rules give a packet its connection's whole mark, and ours put more than the way back into that: the policy
    routing, theirs and ours, looks for the way back alone.  And our own table, empty: into one that is there its sets
    are put before its chains, so that no packet is judged in between.
    """
    return (
        f"table inet {TABLE}\ntable inet {TRANSLATION}\ndelete table inet {TRANSLATION}\ntable inet {TRANSLATION} {{\n"
        "\tchain behind {\n\t\ttype filter hook prerouting priority mangle + 1; policy accept;\n"
        f"\t\tmeta mark set meta mark & {mark(WAY)}\n\t}}\n}}\n"
    )


def opening(listing: Mapping[str, Any], theirs: Iterable[tuple[str, str]]) -> str:
    """A transaction that lets through what their rules do not: `listing` is what `nft -j list chains` printed.

    Needed before they go: between the end of a chain's rules and the end of its hook, its policy alone decides.
    """
    chains = [item["chain"] for item in listing.get("nftables", ()) if "chain" in item]
    held = {*theirs}
    closed = [c for c in chains if (c["family"], c["table"]) in held and c.get("policy") == "drop"]
    return "".join(f"chain {c['family']} {c['table']} {c['name']} {{ policy accept; }}\n" for c in closed)


def replacement(theirs: Iterable[tuple[str, str]], old: Mapping[int, str], ways: Mapping[str, int]) -> str:
    """One transaction: their tables go, and marks that connections carry from before mean what they meant.

    `old`: marks by the old agent's rules; `ways`: our way-back marks by device.  A number that is one of ours too is
    left as it is: of the two, new connections count.
    """
    lines = [f"delete table {family} {name}" for family, name in theirs]
    lines += [f"table inet {TRANSLATION}", f"delete table inet {TRANSLATION}"]
    moved = [*_moves(old, ways)]
    if moved:
        lines += [f"table inet {TRANSLATION} {{", "\tchain before {"]
        lines += ["\t\ttype filter hook prerouting priority mangle - 1; policy accept;"]
        lines += [f"\t\t{line}" for line in moved] + ["\t}", "}"]
    return "".join(f"{line}\n" for line in lines)


def _moves(old: Mapping[int, str], ways: Mapping[str, int]) -> Iterator[str]:
    for number, device in sorted(old.items()):
        way = ways.get(device, 0)
        if number != way and number not in ways.values():
            there = f"ct mark & {mark(WAY)} == {mark(number)}"
            kept = f"ct mark & {mark(0xFFFFFFFF ^ WAY)}"
            # `accept`, so that what was translated is not taken for another's old mark by the next line.
            yield f"{there} ct mark set {kept}{f' | {mark(way)}' if way else ''} accept"
