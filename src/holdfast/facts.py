"""What only this machine can tell: which nics it has, what keepalived made of it, what its guests have acknowledged."""

from pathlib import Path

from holdfast import receipts, role_report
from holdfast.iproute import OURS, IpRoute
from holdfast.router import Nic, Role


def nics(ip: IpRoute) -> tuple[Nic, ...]:
    """Return the router's nics (ethN) by number, MACs in lower case; CommandFailed if ip(8) cannot tell.

    Where several carry the same MAC, all are listed and the lowest number stands first: whoever looks a MAC up
    takes the first, so the answer is the same at every look, whatever order the kernel lists them in.
    """
    numbered = [(int(match[1]), device) for device in ip.devices() if (match := OURS.fullmatch(device.ifname))]
    return tuple(Nic(device.address.lower(), device.ifname) for _, device in sorted(numbered, key=lambda pair: pair[0]))


def role(root: Path) -> Role:
    """Return keepalived's last word; ALONE where it has said none, or what is written is no word of its."""
    said = role_report.word(root)
    return Role(said) if said else Role.ALONE


def acknowledged(root: Path) -> dict[str, int]:
    """Return the newest password, by serial, that each guest has acknowledged; the guest service writes it down."""
    try:
        written = (root / receipts.PATH.lstrip("/")).read_bytes()
    except FileNotFoundError:
        return {}
    return receipts.parse(written).acknowledged
