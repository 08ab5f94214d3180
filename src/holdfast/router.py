"""What the features need to know of each other, and nothing more.  Pure."""

from binascii import crc32
from collections.abc import Iterator, Mapping
from enum import Enum
from functools import cached_property
from typing import Any, NamedTuple

from msgspec import Struct

from holdfast.addresses import number
from holdfast.interface import PURPOSES, Interface
from holdfast.settings import Settings
from holdfast.shared import Alias, Aliases, BootLine, Host, Ips, Password, Tier, Tiers, VmMetadata

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
    """What only this machine can tell: its nics, its role, passwords (by serial) that guests have acknowledged.

    `acknowledged_there`: at the peer; `stopped`: units wanted stopped for a while; `settings`: its operator's; `peer`:
    address and MAC of the pair's other router, once heard; `ppp`: the kernel has it; `names`: addresses of VPN peers.
    """

    nics: tuple[Nic, ...] = ()
    role: Role = Role.ALONE
    acknowledged: dict[str, int] = {}
    acknowledged_there: dict[str, int] = {}
    stopped: frozenset[str] = frozenset()
    settings: Settings = Settings()
    peer: tuple[str, str] | None = None
    ppp: bool = True
    names: dict[str, tuple[str, ...]] = {}

    def device(self, nic: str) -> str:
        """Name of the nic with this MAC (or of this very name, where no MAC was known); empty if it is absent."""
        return next((card.name for card in self.nics if nic in (card.mac, card.name)), "")

    def mac(self, device: str) -> str:
        """MAC of the nic of this name; empty if it is absent."""
        return next((card.mac for card in self.nics if card.name == device), "")


class Router(Struct, frozen=True, dict=True):
    """Configuration and facts together: what two or more features may ask about each other."""

    config: Mapping[str, Any]
    facts: Facts

    @cached_property
    def role(self) -> Role:
        """What this router is.  One of a pair is backup until keepalived has said otherwise, and without a guest
        network nobody is asked: a pair is none before it has one (the design document of 4.6).
        """
        if not self.boot.redundant:
            return Role.ALONE
        if self.segment is None or self.facts.role is Role.ALONE:
            return Role.BACKUP
        return self.facts.role

    @property
    def serving(self) -> bool:
        """Whether this router is the one that carries the traffic."""
        return self.role in (Role.ALONE, Role.MASTER)

    def up(self, face: Interface) -> bool:
        """Whether a present interface's link is to be up: the outer ones of a pair share addresses, and even MACs."""
        return self.serving or face.purpose not in ("public", "private")

    @cached_property
    def segment(self) -> Interface | None:
        """The guest interface that a pair elects over: the oldest tier's, so that a new one moves nothing.

        The management server numbers networks upwards, so both routers find the same, in whatever order they heard of
        them.  4.6.1 tells no number: there the lowest address decides.
        """
        if not self.boot.redundant:
            return None
        order = {nic: (tier.network_id, number(tier.address)) for nic, tier in self.tiers.items()}
        shared = [face for face in self.served if face.virtual]
        return min(shared, key=lambda face: order.get(face.nic, (0, 0)), default=None)

    @property
    def advert_s(self) -> float:
        """Seconds between the advertisements of a pair: the operator's choice, else the boot line's."""
        return self.facts.settings.advert_s or float(self.boot.advert_s)

    @property
    def ground(self) -> str:
        """What both routers of a pair must share to hear each other: where they elect, and in which rhythm.

        `10.1.1.1/24 v2 1`: the segment's gateway, VRRP's version, seconds between advertisements; empty without a pair.
        """
        if self.segment is None:
            return ""
        prefix = self.segment.addresses[0][1]
        return f"{self.segment.virtual}/{prefix} v{2 if self.advert_s >= 1 else 3} {self.advert_s:g}"

    @property
    def boot(self) -> BootLine:
        """The boot line."""
        line: BootLine = self.config["cmdline"]
        return line

    @property
    def is_vpc(self) -> bool:
        """Whether ACLs decide, not rules of a public address."""
        return self.boot.type == "vpcrouter"

    @property
    def forwards(self) -> bool:
        """Whether this kind of router forwards packets at all."""
        return self.boot.type in ("router", "vpcrouter")

    @cached_property
    def interfaces(self) -> tuple[Interface, ...]:
        """Every nic that something is configured on: the boot line's, those with addresses, tiers."""
        found: dict[str, Interface] = {face.nic: face for face in self._booted()}
        ips: Ips = self.config["ips"]
        # By address, not by arrival: equal bags are equal machines, whatever came first.
        mtus: dict[str, int] = {}
        for address, held in sorted(ips.addresses.items(), key=lambda item: number(item[0])):
            if held.mtu:
                mtus[held.nic] = min(held.mtu, mtus.get(held.nic, held.mtu))
            kind = "private" if held.private_gateway or held.nic in self.private_nics else held.kind
            known = found.get(held.nic) or Interface(held.nic, self.facts.device(held.nic), kind, ())
            found[held.nic] = Interface(
                known.nic,
                known.device,
                known.purpose,
                tuple(dict.fromkeys((*known.addresses, (address, held.prefix)))),
                gateway=known.gateway or held.gateway,
                mtu=mtus.get(held.nic, known.mtu),
            )
        for nic, tier in sorted(self.tiers.items(), key=lambda item: number(item[1].address)):
            addresses = ((tier.address, tier.prefix),)
            face = Interface(nic, self.facts.device(nic), "tier", addresses, mtu=tier.mtu, virtual=self._shared(tier))
            found.setdefault(nic, face)
        return tuple(found.values())

    def _shared(self, tier: Tier) -> str:
        return tier.gateway if self.boot.redundant and tier.gateway != tier.address else ""

    def _booted(self) -> Iterator[Interface]:
        purposes = PURPOSES.get(self.boot.type, ())
        aliases = sorted((alias.address, alias.prefix) for alias in self.aliases.values())
        for nic in self.boot.nics:
            purpose = purposes[nic.number] if nic.number < len(purposes) else "other"
            key = nic.mac or self.facts.mac(f"eth{nic.number}") or f"eth{nic.number}"
            mtu = {"guest": self.boot.private_mtu, "public": self.boot.public_mtu}.get(purpose, 0)
            gateway = self.boot.gateway if purpose == "public" else ""
            addresses = ((nic.address, nic.prefix), *(aliases if purpose == "guest" else ()))
            shared = self.boot.guest_gateway if purpose == "guest" and self.boot.redundant else ""
            virtual = shared if shared != nic.address else ""
            yield Interface(key, self.facts.device(key), purpose, addresses, gateway=gateway, mtu=mtu, virtual=virtual)

    @property
    def aliases(self) -> Mapping[str, Alias]:
        """The router's addresses in further subnets of a shared network, by number."""
        bag: Aliases = self.config["ipaliases"]
        return bag.aliases

    @cached_property
    def tiers(self) -> dict[str, Tier]:
        """Tiers by nic, without those whose network an older one has (see `rivals`)."""
        bag: Tiers = self.config["guestnetwork"]
        return {nic: tier for nic, tier in bag.tiers.items() if nic not in self.rivals}

    @cached_property
    def rivals(self) -> dict[str, str]:
        """Tiers that cannot be, by nic, and the nic of the older one whose network overlaps theirs."""
        bag: Tiers = self.config["guestnetwork"]
        return bag.rivals()

    @cached_property
    def private_nics(self) -> frozenset[str]:
        """Nics of private gateways, as their ACLs tell: older servers' address messages do not."""
        return frozenset(nic for nic, acl in self.config["networkacl"].acls.items() if acl.private_gateway)

    @property
    def served(self) -> tuple[Interface, ...]:
        """The present interfaces that guests are on."""
        return (*self.of("guest"), *self.of("tier"))

    @property
    def vms(self) -> Mapping[str, Host]:
        """The nics of VMs, by MAC."""
        vms: Mapping[str, Host] = self.config["dhcpentry"].hosts
        return vms

    @property
    def metadata(self) -> Mapping[str, VmMetadata]:
        """What VMs may ask about themselves, by address."""
        metadata: Mapping[str, VmMetadata] = self.config["vmdata"].vms
        return metadata

    @property
    def passwords(self) -> Mapping[str, Password]:
        """VMs' newest passwords, by address."""
        passwords: Mapping[str, Password] = self.config["vmpassword"].passwords
        return passwords

    @property
    def static_nat(self) -> Mapping[str, str]:
        """Public addresses that belong to one VM each, and that VM's address."""
        static: Mapping[str, str] = self.config["forwardingrules"].static
        return static

    def nic(self, mac: str, device: str, *, trusted: bool) -> str:
        """Which nic a message means: that with its MAC if there is one, or if the MAC can be trusted; else the one that
        bears the number.  `trusted`: a message of the older dialect invents MACs.  Empty if nothing tells.
        """
        mac = mac.lower()
        if mac and (trusted or self.facts.device(mac)):
            return mac
        return self.facts.mac(device) or device

    def of(self, purpose: str) -> tuple[Interface, ...]:
        """The present interfaces of one purpose."""
        return tuple(face for face in self.interfaces if face.purpose == purpose and face.device)

    @cached_property
    def ways(self) -> dict[str, int]:
        """Way-back mark of each public nic, by nic: derived from its network, never from its number.

        Equal on two routers of a pair, whose nics may be numbered differently, so that a carried-over
        connection finds its way.  A collision takes the next free number, in a fixed order.
        """
        public = [face for face in self.interfaces if face.purpose in ("public", "private")]
        named = sorted((f"{min(face.networks, default='')} via {face.gateway}", face.nic) for face in public)
        ways: dict[str, int] = {}
        for name, nic in named:
            mark = crc32(name.encode()) % WAY_MASK + 1
            while mark in ways.values():
                mark = mark % WAY_MASK + 1
            ways[nic] = mark
        return ways

    @cached_property
    def home(self) -> Interface | None:
        """The public nic with the router's own address: the boot line's, else a source NAT one, else the first."""
        faces = sorted(self.of("public"), key=lambda face: face.number)
        ips: Ips = self.config["ips"]
        for own in (self._booted_addresses, {a for a, held in ips.addresses.items() if held.source_nat}):
            for face in faces:
                if own & dict(face.addresses).keys():
                    return face
        return next(iter(faces), None)

    @cached_property
    def _booted_addresses(self) -> set[str]:
        return {nic.address for nic in self.boot.nics} | {self.boot.source_nat_ip}

    @property
    def announced(self) -> tuple[tuple[str, tuple[str, ...]], ...]:
        """What neighbours find at the one of a pair that serves: addresses by device, the outer ones first."""
        outer = sorted((*self.of("public"), *self.of("private")), key=lambda face: face.number)
        held = [(face.device, tuple(address for address, _ in face.addresses)) for face in outer if face.addresses]
        return (*held, *((face.device, (face.virtual,)) for face in self.served if face.virtual))

    def leaving(self, face: Interface) -> str:
        """The address that many leave by on a public nic: the boot line's where it is; in a VPC one marked as source
        NAT (elsewhere that mark is on many that are none); else the lowest that is no VM's own; else the home nic's.
        """
        ips: Ips = self.config["ips"]
        here = sorted((address for address, _ in face.addresses), key=number)
        shared = [address for address in here if address not in self.static_nat]
        marked = [a for a in shared if self.is_vpc and a in ips.addresses and ips.addresses[a].source_nat]
        own = [address for address in here if address in self._booted_addresses]
        best = next(iter([*own, *marked, *shared]), "")
        return best or (self.leaving(self.home) if self.home and self.home is not face else here[0])

    def holder(self, address: str) -> Interface | None:
        """The interface that carries this address."""
        return next((face for face in self.interfaces if any(address == a for a, _ in face.addresses)), None)
