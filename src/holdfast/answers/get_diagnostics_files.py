"""Which files get_diagnostics_files.py may collect, and where the archive is.  Pure."""

import re
from typing import NamedTuple

ARCHIVE = re.compile(r"/root/diagnostics_files_\d{8,20}\.(zip|tar\.gz)", re.ASCII)
"""Archives, as cleanup.sh may remove them."""
KEYWORDS = {
    "iptables": ("nft", "-n", "list", "ruleset"),
    "ipaddr": ("ip", "address"),
    "iprule": ("ip", "rule"),
    "iproute": ("ip", "route", "show", "table", "all"),
}
"""Words that stand for what a program shows."""
_FILES = frozenset([
    "/etc/cloudstack-release", "/etc/dhcphosts.txt", "/etc/dhcpopts.txt", "/etc/dnsmasq.conf",
    "/etc/dnsmasq-resolv.conf", "/etc/dnsmasq-hosts", "/etc/dnsmasq-options.txt", "/etc/dnsmasq.d/cloud.conf",
    "/etc/hosts", "/etc/hostname", "/etc/resolv.conf", "/etc/haproxy/haproxy.cfg",
    "/etc/conntrackd/conntrackd.conf", "/etc/monitor.conf", "/etc/ipsec.d/l2tp.conf",
    "/etc/iproute2/rt_tables.d/holdfast.conf", "/var/lib/misc/dnsmasq.leases", "/var/lib/holdfast/usage.json",
    "/run/holdfast/role", "/run/holdfast/health.json", "/run/holdfast/monitor.json",
])  # fmt: skip
_LOGS = re.compile(r"/var/log/([A-Za-z0-9][A-Za-z0-9_.-]{0,80}/)?[A-Za-z0-9][A-Za-z0-9_.-]{0,80}", re.ASCII)
_SECRETS = re.compile(r"/(journal|private)/")


class Wanted(NamedTuple):
    """What to put in: files by path, words of `KEYWORDS`, and what is refused."""

    files: list[str]
    keywords: list[str]
    refused: list[str]


def wanted(words: list[str]) -> Wanted:
    """Tell apart what is asked for; without a word, what the keywords show.

    Nothing is run because somebody names it (`[script argument]`), and no file with keys or passwords goes out.
    """
    found = Wanted([], [], [])
    for word in dict.fromkeys(words or list(KEYWORDS)):
        if word in KEYWORDS:
            found.keywords.append(word)
        elif may_read(word):
            found.files.append(word)
        else:
            found.refused.append(word)
    return found


def may_read(path: str) -> bool:
    """Whether this file may leave the router; asked of what a link leads to as well."""
    return path in _FILES or (_LOGS.fullmatch(path) is not None and not _SECRETS.search(path) and ".." not in path)


def masked(path: str, text: bytes) -> bytes:
    """A file's text without the passwords that may stand in it."""
    return re.sub(rb"(?m)^(\s*stats\s+auth\s+[^:\s]+:).*$", rb"\1(secret)", text) if "haproxy" in path else text
