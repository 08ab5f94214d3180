"""The bags that two or more features ask about: boot line, addresses, tiers, guests.  Pure."""

from hashlib import sha256

from msgspec import Struct

from holdfast import receipts
from holdfast.addresses import network, overlap


class Data(Struct, frozen=True, kw_only=True, omit_defaults=True, forbid_unknown_fields=True):
    """Base of everything that is kept in bags: strict, since we alone write them."""


class BootNic(Data, frozen=True, kw_only=True):
    """A nic that the boot line describes: eth<number>, its MAC if the line says it, address and prefix length."""

    number: int
    address: str
    prefix: int
    mac: str = ""


class BootLine(Data, frozen=True, kw_only=True):
    """The boot line, understood.  `other` keeps what no feature asks for yet, `secrets` what must be masked.

    Of a redundant pair: `pair` is the id that both routers share (0: none was told), `advert_s` the interval of VRRP's
    advertisements, `guest_gateway` the address that an isolated network's guests use, whichever router serves; `older`:
    the server is one before 4.16, by its words for the two.
    """

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
    vpccidr: str = ""
    source_nat_ip: str = ""
    has_public_network: bool = True
    redundant: bool = False
    pair: int = 0
    advert_s: int = 1
    guest_gateway: str = ""
    older: bool = False
    other: dict[str, str] = {}
    secrets: dict[str, str] = {}

    @property
    def pair_key(self) -> bytes:
        """What both routers of a pair derive alike.  An isolated network's routers are told no secret: there the key
        keeps networks apart, as keepalived's password does, and no tenant out.

        Only of what lasts as long as the network: two that were told different things of anything else must still meet.
        """
        known = [self.secrets.get("router_password", ""), str(self.pair), self.vpccidr, self.guest_gateway]
        return sha256("\0".join(("holdfast hello", *known)).encode("utf-8", "surrogatepass")).digest()

    @property
    def pair_is_secret(self) -> bool:
        """Whether no tenant can derive that key."""
        return bool(self.secrets.get("router_password"))


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


class Tier(Data, frozen=True, kw_only=True):
    """A guest network of a VPC.  `address` is the router's own, `gateway` what VMs use (another one where two routers
    share it, or where the router is not the gateway); `dns` and `domain` are handed out; `ipv6` is kept for later.
    """

    address: str
    prefix: int
    gateway: str = ""
    network_id: int = 0
    dns: tuple[str, ...] = ()
    domain: str = ""
    mtu: int = 0
    is_gateway: bool = True
    ipv6: dict[str, str] = {}

    @property
    def network(self) -> str:
        """Its network, canonical."""
        return network(self.address, self.prefix)


class Tiers(Data, frozen=True, kw_only=True):
    """Tiers by nic (its MAC, or ethN where no MAC was known), oldest first."""

    tiers: dict[str, Tier] = {}

    def rivals(self) -> dict[str, str]:
        """Return those that cannot be, by nic, and the nic of the older one whose network overlaps theirs."""
        good: dict[str, Tier] = {}
        rivals: dict[str, str] = {}
        for nic, tier in self.tiers.items():
            older = next((other for other, held in good.items() if overlap(held.network, tier.network)), "")
            if older:
                rivals[nic] = older
            else:
                good[nic] = tier
        return rivals


class Alias(Data, frozen=True, kw_only=True):
    """An address of the router in a further subnet of a shared network."""

    address: str
    prefix: int

    @property
    def network(self) -> str:
        """Its subnet, canonical."""
        return network(self.address, self.prefix)


class Aliases(Data, frozen=True, kw_only=True):
    """Aliases by the number that the management server gives them."""

    aliases: dict[str, Alias] = {}


class Subnet(Data, frozen=True, kw_only=True):
    """A subnet of a shared network and the gateway that its guests use."""

    prefix: int
    gateway: str


class Subnets(Data, frozen=True, kw_only=True):
    """Subnets by the router's address there."""

    subnets: dict[str, Subnet] = {}


class Host(Data, frozen=True, kw_only=True):
    """A VM's nic.  `default`: it is the VM's default nic, so it is given a router, DNS and a domain.

    `ipv6` keeps what a release that serves IPv6 will ask for.
    """

    address: str
    name: str = ""
    gateway: str = ""
    default: bool = True
    ipv6: dict[str, str] = {}


class Hosts(Data, frozen=True, kw_only=True):
    """Known nics by MAC in lower case, oldest first."""

    hosts: dict[str, Host] = {}


class VmMetadata(Data, frozen=True, kw_only=True):
    """What one VM may ask about itself: values by name, and its user data in base64 (None: it has none)."""

    metadata: dict[str, str] = {}
    userdata: str | None = None


class Metadata(Data, frozen=True, kw_only=True):
    """Metadata by the VM's address."""

    vms: dict[str, VmMetadata] = {}


class Password(Data, frozen=True, kw_only=True):
    """The newest password of a VM, empty if none waits for it.  `serial` numbers the passwords of its address.

    On a router of a pair `tag` tells it from others (`receipts.tag`), `past` are some of those before it, as
    `receipts.taken`, and `blind` is one that was counted before the peer was ever heard.
    """

    serial: int
    password: str = ""
    tag: int = 0
    past: tuple[int, ...] = ()
    blind: bool = False

    def is_over(self, told: int) -> bool:
        """Whether it is not to be given any more, by what the peer tells (`receipts.taken`): its guest has acknowledged
        this one, or a newer one.

        The two count alike, but for passwords that one of them was never told: so the tag goes before the serial.
        """
        mark = receipts.tag_of(told)
        if self.tag and mark:
            if mark == self.tag:
                return True
            if self.blind or mark in map(receipts.tag_of, self.past):
                return False
        return self.serial <= receipts.serial_of(told)

    @property
    def known(self) -> tuple[int, ...]:
        """This one and some of those before it, as the peer is told of them (`receipts.taken`)."""
        return (receipts.taken(self.serial, self.tag), *self.past)


class Passwords(Data, frozen=True, kw_only=True):
    """Passwords by the VM's address."""

    passwords: dict[str, Password] = {}
