"""What the lab needs of the machine it runs on."""

import os
import shutil
import sys
from pathlib import Path

from holdfast.lab.process import must
from holdfast.lab.sentence import LabError

PACKAGES = {
    "systemd-nspawn": "systemd-container",
    "mmdebstrap": "mmdebstrap",
    "ip": "iproute2",
    "nft": "nftables",
    "conntrack": "conntrack",
    "dnsmasq": "dnsmasq-base",
    "haproxy": "haproxy",
    "openssl": "openssl",
    "udhcpc": "udhcpc",
    "ping": "iputils-ping",
    "nsenter": "util-linux",
    "ssh": "openssh-client",
    "mount": "mount",
    "sysctl": "procps",
}
"""Program -> the Debian package that brings it."""

FILES = {"/etc/protocols": "netbase"}
"""File -> the same: nft(8) knows protocols' names by it."""

_PATH = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"


def missing() -> list[str]:
    """Return the packages that are not installed."""
    programs = {package for program, package in PACKAGES.items() if shutil.which(program, path=_PATH) is None}
    return sorted(programs | {package for path, package in FILES.items() if not Path(path).exists()})


def install() -> None:
    """Install what is missing by apt-get and say so; LabError if that fails or this is not root."""
    packages = missing()
    if not packages:
        return
    require_root()
    print(f"lab: installing {', '.join(packages)} with apt-get", file=sys.stderr)  # noqa: T201 its reader is at a terminal
    must(["apt-get", "update", "-q"], timeout_s=300)
    argv = ["apt-get", "install", "-q", "-y", "--no-install-recommends", *packages]
    must(["env", "DEBIAN_FRONTEND=noninteractive", *argv], timeout_s=600)


def require_root() -> None:
    """LabError unless this process may make namespaces."""
    if os.geteuid() != 0:
        raise LabError("the lab needs root: it makes network namespaces and containers")


def require() -> None:
    """LabError that names what is missing."""
    require_root()
    packages = missing()
    if packages:
        raise LabError(f"the lab needs these Debian packages: {', '.join(packages)}")
