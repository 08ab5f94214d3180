"""What the features need to know of each other, and nothing more.  Pure."""

from binascii import crc32
from collections.abc import Iterable, Mapping
from enum import Enum
from functools import cached_property
from typing import Any, NamedTuple

from msgspec import Struct

WAY_MASK = 0xFFF
"""The bits of a connection's mark that name the public network it came in by."""


class Role(Enum):
    """keepalived's words for who serves; ALONE where nobody is elected."""

    ALONE = "ALONE"
    MASTER = "MASTER"
    BACKUP = "BACKUP"
    FAULT = "FAULT"


class Nic(NamedTuple):
    """A network card as the machine shows it: MAC in lower case and the name it has now."""

    mac: str
    name: str


class Facts(Struct, frozen=True):
    """What only this machine can tell: its nics and its role."""

    nics: tuple[Nic, ...] = ()
    role: Role = Role.ALONE

    def device(self, nic: str) -> str:
        """Name of the nic with this MAC (or of this very name, where no MAC was known); empty if it is absent."""
        return next((card.name for card in self.nics if nic in (card.mac, card.name)), "")

    def mac(self, device: str) -> str:
        """MAC of the nic of this name; empty if it is absent."""
        return next((card.mac for card in self.nics if card.name == device), "")


class Data(Struct, frozen=True, kw_only=True, omit_defaults=True, forbid_unknown_fields=True):
    """Base of everything that is kept in bags: strict, since we alone write them."""


class BootNic(Data, frozen=True, kw_only=True):
    """A nic that the boot line describes: eth<number>, its MAC if the line says it, address and prefix length."""

    number: int
    address: str
    prefix: int
    mac: str = ""


class BootLine(Data, frozen=True, kw_only=True):
    """The boot line, understood.  `other` keeps what no feature asks for yet, `secrets` what must be masked."""

    name: str = ""
    type: str = ""
    nics: tuple[BootNic, ...] = ()
    gateway: str = ""
    localgw: str = ""
    mgmtcidr: tuple[str, ...] = ()
    domain: str = ""
    dnssearchorder: tuple[str, ...] = ()
    dns: tuple[str, ...] = ()
    internal_dns: tuple[str, ...] = ()
    useextdns: bool = False
    exposedns: bool = False
    userouteripresolver: bool = False
    disable_rp_filter: bool = False
    sshonguest: bool = False
    public_mtu: int = 0
    private_mtu: int = 0
    other: dict[str, str] = {}
    secrets: dict[str, str] = {}


class IpAddress(Data, frozen=True, kw_only=True):
    """An address that the management server associated with a nic (a MAC, or ethN where no MAC was known)."""

    nic: str
    prefix: int
    gateway: str = ""
    mtu: int = 0
    kind: str = "public"
    private_gateway: bool = False
    source_nat: bool = False


class Ips(Data, frozen=True, kw_only=True):
    """All associated addresses by address, the most recently changed last."""

    addresses: dict[str, IpAddress] = {}


class Interface(Struct, frozen=True):
    """A nic and everything it is to carry.  `device` is its present name, empty while it is absent.

    `purpose`: guest, control or public.  `addresses`: (address, prefix length) in a fixed order.
    """

    nic: str
    device: str
    purpose: str
    addresses: tuple[tuple[str, int], ...]
    gateway: str = ""
    mtu: int = 0

    @property
    def number(self) -> int:
        """N of ethN; 0 for a nic that is absent."""
        digits = self.device.removeprefix("eth")
        return int(digits) if digits.isdigit() else 0

    @property
    def networks(self) -> tuple[str, ...]:
        """The connected networks, canonical."""
        return tuple(sorted({network(address, prefix) for address, prefix in self.addresses}))


PURPOSES = {
    "router": ("guest", "control", "public"),
    "dhcpsrvr": ("guest", "control"),
    "ilbvm": ("guest", "control"),
    "vpcrouter": ("control",),
}
"""What eth0, eth1, … are for, by type of router."""


class Router(Struct, frozen=True, dict=True):
    """Configuration and facts together: what two or more features may ask about each other."""

    config: Mapping[str, Any]
    facts: Facts

    @property
    def serving(self) -> bool:
        """Whether this router is the one that carries the traffic."""
        return self.facts.role in (Role.ALONE, Role.MASTER)

    @property
    def boot(self) -> BootLine:
        """The boot line."""
        line: BootLine = self.config["cmdline"]
        return line

    @property
    def forwards(self) -> bool:
        """Whether this kind of router forwards packets at all."""
        return self.boot.type in ("router", "vpcrouter")

    @cached_property
    def interfaces(self) -> tuple[Interface, ...]:
        """Every nic that something is configured on, by purpose."""
        purposes = PURPOSES.get(self.boot.type, ())
        found: dict[str, Interface] = {}
        for nic in self.boot.nics:
            purpose = purposes[nic.number] if nic.number < len(purposes) else "other"
            key = self.facts.mac(f"eth{nic.number}") if not nic.mac else nic.mac
            key = key or nic.mac or f"eth{nic.number}"
            mtu = {"guest": self.boot.private_mtu, "public": self.boot.public_mtu}.get(purpose, 0)
            gateway = self.boot.gateway if purpose == "public" else ""
            found[key] = Interface(
                key, self.facts.device(key), purpose, ((nic.address, nic.prefix),), gateway=gateway, mtu=mtu
            )
        ips: Ips = self.config["ips"]
        # By address, not by arrival: equal bags are equal machines, whatever came first.
        mtus: dict[str, int] = {}
        for address, held in sorted(ips.addresses.items(), key=lambda item: number(item[0])):
            if held.mtu:
                mtus[held.nic] = min(held.mtu, mtus.get(held.nic, held.mtu))
            known = found.get(held.nic) or Interface(held.nic, self.facts.device(held.nic), held.kind, ())
            found[held.nic] = Interface(
                known.nic,
                known.device,
                known.purpose,
                tuple(dict.fromkeys((*known.addresses, (address, held.prefix)))),
                gateway=known.gateway or held.gateway,
                mtu=mtus.get(held.nic, known.mtu),
            )
        return tuple(found.values())

    @property
    def static_nat(self) -> Mapping[str, str]:
        """Public addresses that belong to one VM each, and that VM's address."""
        static: Mapping[str, str] = self.config["forwardingrules"].static
        return static

    def of(self, purpose: str) -> tuple[Interface, ...]:
        """The present interfaces of one purpose."""
        return tuple(face for face in self.interfaces if face.purpose == purpose and face.device)

    @cached_property
    def ways(self) -> dict[str, int]:
        """Way-back mark of each public nic, by nic: derived from its network, never from its number.

        Equal on two routers of a pair, whose nics may be numbered differently, so that a carried-over
        connection finds its way.  A collision takes the next free number, in a fixed order.
        """
        public = [face for face in self.interfaces if face.purpose == "public"]
        named = sorted((f"{min(face.networks, default='')} via {face.gateway}", face.nic) for face in public)
        ways: dict[str, int] = {}
        for name, nic in named:
            mark = crc32(name.encode()) % WAY_MASK + 1
            while mark in ways.values():
                mark = mark % WAY_MASK + 1
            ways[nic] = mark
        return ways

    def leaving(self, face: Interface) -> str:
        """The address that many leave by on a public nic: the boot line's where it is; elsewhere the lowest that is no
        VM's own, since `source_nat` on the wire is true on many that are none; else the boot line's, on another nic.
        """
        booted = [nic.address for nic in self.boot.nics]
        here = [address for address, _ in face.addresses]
        shared = sorted((address for address in here if address not in self.static_nat), key=number)
        home = next((a for other in self.of("public") for a, _ in other.addresses if a in booted), "")
        return next((address for address in here if address in booted), "") or next(iter(shared), "") or home or here[0]

    def holder(self, address: str) -> Interface | None:
        """The interface that carries this address."""
        return next((face for face in self.interfaces if any(address == a for a, _ in face.addresses)), None)


def network(address: str, prefix: int) -> str:
    """Canonical network of an address: `network("10.1.1.7", 24) == "10.1.1.0/24"`."""
    value = number(address) & (0xFFFFFFFF << (32 - prefix)) & 0xFFFFFFFF
    return f"{dotted(value)}/{prefix}"


def number(address: str) -> int:
    """An IPv4 address as a 32-bit number; the address is valid already."""
    a, b, c, d = address.split(".")
    return int(a) << 24 | int(b) << 16 | int(c) << 8 | int(d)


def dotted(value: int) -> str:
    """A 32-bit number as an IPv4 address."""
    return f"{value >> 24}.{value >> 16 & 255}.{value >> 8 & 255}.{value & 255}"


def inside(address: str, networks: Iterable[str]) -> bool:
    """Whether an address lies in one of these canonical networks."""
    for text in networks:
        base, _, length = text.partition("/")
        if network(address, int(length)) == f"{base}/{length}":
            return True
    return False


def prefix_length(netmask: str) -> int | None:
    """Prefix length of a dotted netmask; None if its ones are not all on the left."""
    ones = f"{number(netmask):032b}"
    length = ones.count("1")
    return length if ones == "1" * length + "0" * (32 - length) else None
