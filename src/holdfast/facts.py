"""What only this machine can tell: which nics it has, what keepalived made of it, what its guests have acknowledged."""

from contextlib import suppress
from math import inf
from pathlib import Path

from holdfast import pairing, role_report
from holdfast.errors import Rejected
from holdfast.iproute import OURS, IpRoute
from holdfast.marks import Marks
from holdfast.router import Nic, Role
from holdfast.settings import PATH, Settings, parse
from holdfast.texts import is_ipv4, is_mac


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


def peer(root: Path) -> tuple[str, str] | None:
    """Return address and MAC of the pair's other router on the segment; None if it was never heard there."""
    heard = pairing.peer(root, inf)
    address, mac = str(heard.get("address", "")), str(heard.get("mac", ""))
    return (address, mac) if is_ipv4(address) and is_mac(mac) else None


_SETTINGS = "settings"


def settings(root: Path, marks: Marks) -> tuple[Settings, str]:
    """Return the operator's settings, and what is wrong with the file: then those that were right last hold."""
    try:
        written = (root / PATH.lstrip("/")).read_bytes()
    except FileNotFoundError:
        marks.forget(_SETTINGS)
        return Settings(), ""
    try:
        chosen = parse(written)
    except Rejected as error:
        return _held(marks), str(error)
    if written != marks.read(_SETTINGS):
        marks.write(_SETTINGS, written)
    return chosen, ""


def _held(marks: Marks) -> Settings:
    """The settings that were right last; none where the version that took them for right was another one."""
    with suppress(Rejected):
        if held := marks.read(_SETTINGS):
            return parse(held)
    return Settings()
