# ruff: noqa: INP001 a program of the build, not a package
"""What the Debian package says of itself: name, version, and what it needs on a router."""

import tomllib
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

ROOT = Path(__file__).resolve().parents[1]
REVISION = "1"
ARCHITECTURES = ("amd64", "arm64")

PROGRAMS = {
    "chpasswd": "passwd",
    "nft": "nftables",
    "ip": "iproute2",
    "conntrack": "conntrack",
    "conntrackd": "conntrackd",
    "keepalived": "keepalived",
    "haproxy": "haproxy",
    "dnsmasq": "dnsmasq-base",
    "dhcp_release": "dnsmasq-utils",
    "charon-systemd": "charon-systemd",
    "swanctl": "strongswan-swanctl",
    "xl2tpd": "xl2tpd",
    "pppd": "ppp",
    "sshd": "openssh-server",
    "ssh-keygen": "openssh-client",
    "openssl": "openssl",
    "systemctl": "systemd",
    "journalctl": "systemd",
    "systemd-detect-virt": "systemd",
}
"""Programs that Holdfast, its units or its scripts start, and the package that each is in."""
OPTIONAL = {
    "iptables-restore": "iptables",
    "ip6tables-restore": "iptables",
    "vmtoolsd": "open-vm-tools",
    "xenstore-read": "xenstore-utils",
    "dmidecode": "dmidecode",
}
"""The same where a router does without: it has another hypervisor, or no such rules."""
ESSENTIAL = ("/bin/kill", "/bin/sh", "flock", "mkdir", "mv", "touch", "umount")
"""Programs that every Debian has."""

DEPENDS = (
    "python3 (>= 3.11~)", "python3 (<< 3.12)", "libc6 (>= 2.28)",
    "init-system-helpers (>= 1.54~)", "systemd-sysv",
    "netbase",  # nft and nsswitch know protocols and ports by name from it
    "libstrongswan-standard-plugins",  # charon's openssl: 3des, and the only fast ciphers
    *sorted(set(PROGRAMS.values())),
)  # fmt: skip
RECOMMENDS = (
    "qemu-guest-agent",  # KVM hands the boot line over by it
    "systemd-timesyncd",  # for a boot line that names time servers
)
SUGGESTS = tuple(sorted({"hyperv-daemons", *OPTIONAL.values()}))
# Debian's dnsmasq starts a server of its own under the name of ours, and needs nothing else but dnsmasq-base.
REPLACED = ("dnsmasq",)

DESCRIPTION = """keeps the configuration of CloudStack virtual routers
 Messages of a CloudStack management server are merged into documents that
 survive crashes and reboots. After every command the whole router (firewall,
 addresses, routes, DHCP, DNS, load balancer, guest metadata, redundancy, VPN)
 is compared with what these documents mean and put right where it differs.
 .
 This package makes a router of the machine: from the next start on it lets
 nothing in and passes nothing on before it knows what it is."""
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
MAINTAINER = "{name} <{email}>".format_map(PROJECT["authors"][0])


class Package(NamedTuple):
    """A package to be made: Debian's architecture and version."""

    architecture: str
    version: str

    @property
    def file(self) -> str:
        """Name of the package's file."""
        return f"holdfast_{self.version}_{self.architecture}.deb"


def version() -> str:
    """Debian's version of the checkout: the project's, and the revision of the packaging."""
    return f"{PROJECT['version']}-{REVISION}"


def fields(package: Package, size: int) -> Iterator[str]:
    """Lines of the control file; `size` in KiB of what is installed."""
    yield "Package: holdfast"
    yield f"Version: {package.version}"
    yield f"Architecture: {package.architecture}"
    yield f"Maintainer: {MAINTAINER}"
    yield f"Installed-Size: {size}"
    yield f"Depends: {', '.join(DEPENDS)}"
    yield f"Recommends: {', '.join(RECOMMENDS)}"
    yield f"Suggests: {', '.join(SUGGESTS)}"
    yield f"Conflicts: {', '.join(REPLACED)}"
    yield f"Replaces: {', '.join(REPLACED)}"
    yield "Section: net"
    yield "Priority: optional"
    yield f"Description: {DESCRIPTION}"
