"""DHCP and DNS for the guest network: known VMs get their address, everybody there gets names."""

from collections.abc import Iterator

from holdfast.addresses import dotted, inside
from holdfast.errors import Rejected
from holdfast.feature import Claim, Command, Feature, Gone, Ipv4, Line, Mac, Merged, Service
from holdfast.nft import Element, key, quoted
from holdfast.router import Interface, Router
from holdfast.shared import Data, Tier
from holdfast.state import File, Leases
from holdfast.texts import is_host_name

DNSMASQ = "dnsmasq.service"
LEASES = "/var/lib/misc/dnsmasq.leases"
MAX_LEASES = 2100


class DhcpEntry(Command, frozen=True, kw_only=True, tag="dhcpentry"):
    """One nic of a VM (WIRE 5.9).  Older management servers spell the address `ipv4_adress`."""

    host_name: Line
    mac_address: Mac
    default_entry: bool
    ipv4_address: Ipv4 | None = None
    ipv4_adress: Ipv4 | None = None
    default_gateway: Ipv4 | None = None
    remove: bool = False
    ipv6_address: str | None = None
    ipv6_duid: str | None = None
    dns_addresses: str | None = None
    dns_adresses: str | None = None


class Host(Data, frozen=True, kw_only=True):
    """A known nic.  `default`: it is the VM's default nic, so it is given a router, DNS and a domain."""

    address: str
    name: str = ""
    gateway: str = ""
    default: bool = True


class Hosts(Data, frozen=True, kw_only=True):
    """Known nics by MAC in lower case, oldest first."""

    hosts: dict[str, Host] = {}


def merge(bag: Hosts, command: DhcpEntry, _router: Router) -> Merged[Hosts]:
    """Put or remove one nic.  An address belongs to one nic: its earlier holder loses it."""
    mac, address = command.mac_address.lower(), command.ipv4_address or command.ipv4_adress
    hosts = dict(bag.hosts)
    if command.remove:
        hosts.pop(mac, None)
        return Merged(Hosts(hosts=hosts))
    if not address:
        raise Rejected("the nic has no IPv4 address", "ipv4_address")
    if command.host_name != command.host_name.strip() or not command.host_name:
        raise Rejected(f"{command.host_name!r} is no host name", "host_name")
    wanted = Host(
        address=address, name=command.host_name, gateway=command.default_gateway or "", default=command.default_entry
    )
    for other, host in bag.hosts.items():
        if host.address == address and other != mac:
            del hosts[other]
    if hosts.get(mac) != wanted:
        hosts[mac] = wanted
    named = is_host_name(wanted.name)
    why = f"host_name: {wanted.name!r} is no name that DNS can carry: {mac} is served without one"
    return Merged(Hosts(hosts=hosts), warnings=() if named else (why,))


def contribute(bag: Hosts, router: Router) -> Iterator[Claim]:
    """dnsmasq's files, the service, and its ports on the guest nic."""
    guests = router.served
    if router.boot.type == "ilbvm" or not guests:
        return
    for path, text, reload in (
        ("/etc/dhcphosts.txt", _dhcphosts(bag), True),
        ("/etc/dhcpopts.txt", _dhcpopts(bag), True),
        ("/etc/hosts", _hosts(bag, router, guests), True),
        ("/etc/dnsmasq-resolv.conf", _resolv(router), True),
    ):
        yield Claim("dhcpentry", File(path, text, reload=DNSMASQ if reload else ""))
    text = "\n".join([*_settings(router), *(line for face in guests for line in _network(bag, router, face)), ""])
    check = ("dnsmasq", "--test", "-C")
    yield Claim("dhcpentry", File("/etc/dnsmasq.conf", text, check=check, restart=DNSMASQ))
    yield Claim("dhcpentry", _leases(bag, guests))
    yield Claim("dhcpentry", Service(DNSMASQ, wanted=router.serving))
    for face in guests:
        yield from _openings(router, face)


def _leases(bag: Hosts, guests: tuple[Interface, ...]) -> Leases:
    """Only known nics at their known addresses: what another VM held must not stand in its successor's way."""
    allowed = tuple(sorted(f"{mac} {host.address}" for mac, host in bag.hosts.items()))
    networks = tuple((net, face.device, face.addresses[0][0]) for face in guests for net in face.networks)
    return Leases(LEASES, allowed, networks)


def _openings(router: Router, face: Interface) -> Iterator[Claim]:
    device = quoted(face.device)
    yield Claim("dhcpentry", Element("router_service", key(device, "udp", "67")))
    for net in face.networks:
        yield Claim("dhcpentry", Element("guest_source", key(device, net)))
    if router.boot.useextdns:
        return
    for protocol in ("udp", "tcp"):
        yield Claim("dhcpentry", Element("guest_service", key(device, protocol, "53")))
        if router.boot.exposedns:
            yield Claim("cmdline/exposedns", Element("router_service", key(device, protocol, "53")))


def _name(host: Host) -> str:
    return host.name if is_host_name(host.name) else ""


def _tag(address: str) -> str:
    return address.replace(".", "_")


def _dhcphosts(bag: Hosts) -> str:
    lines = []
    for mac, host in bag.hosts.items():
        fields = [mac, *([] if host.default else [f"set:{_tag(host.address)}"]), host.address]
        lines.append(",".join([*fields, *([_name(host)] if _name(host) else []), "infinite"]))
    return "".join(f"{line}\n" for line in sorted(lines))


def _dhcpopts(bag: Hosts) -> str:
    """A nic that is not the VM's default one is given no router, no DNS and no domain."""
    tags = sorted(_tag(host.address) for host in bag.hosts.values() if not host.default)
    return "".join(f"{tag},{option}\n" for tag in tags for option in (3, 6, 15))


def _hosts(bag: Hosts, router: Router, guests: tuple[Interface, ...]) -> str:
    own = [
        f"127.0.0.1\tlocalhost\n::1\tlocalhost ip6-localhost ip6-loopback\n127.0.1.1\t{router.boot.name or 'router'}\n"
    ]
    data = [f"{face.addresses[0][0]}\tdata-server\n" for face in guests]
    vms = sorted(f"{host.address}\t{_name(host)}\n" for host in bag.hosts.values() if _name(host))
    return "".join([*own, *data, *vms])


def _resolv(router: Router) -> str:
    servers = dict.fromkeys((*router.boot.internal_dns, *router.boot.dns))
    return "".join(f"nameserver {server}\n" for server in servers)


def _settings(router: Router) -> list[str]:
    """What holds for every network.  Only known nics are answered: a range is `static`."""
    boot = router.boot
    addresses = [address for face in router.served for address, _ in face.addresses]
    lines = [
        "# Written by holdfast.",
        "user=dnsmasq",
        "bind-dynamic",
        f"listen-address={','.join(['127.0.0.1', *addresses])}",
        *(f"except-interface={face.device}" for face in router.interfaces if face.device and face not in router.served),
        "domain-needed",
        "bogus-priv",
        "expand-hosts",
        "localise-queries",
        "resolv-file=/etc/dnsmasq-resolv.conf",
        "dhcp-hostsfile=/etc/dhcphosts.txt",
        "dhcp-optsfile=/etc/dhcpopts.txt",
        f"dhcp-leasefile={LEASES}",
        f"dhcp-lease-max={MAX_LEASES}",
        "dhcp-authoritative",
        "dhcp-option=vendor:MSFT,2,1i",
    ]
    if boot.useextdns:
        lines.append("port=0")
    if boot.domain:
        lines += [f"domain={boot.domain}", f"local=/{boot.domain}/"]
    if boot.dnssearchorder:
        lines.append(f"dhcp-option=119,{','.join(boot.dnssearchorder)}")
    return lines


def _network(bag: Hosts, router: Router, face: Interface) -> Iterator[str]:
    """Serve a network if at least one known nic lies in it."""
    boot, (address, prefix) = router.boot, face.addresses[0]
    inmates = [host for host in bag.hosts.values() if inside(host.address, face.networks)]
    if not inmates:
        return
    tag = f"interface-{face.device}-0"
    netmask = dotted(0xFFFFFFFF << (32 - prefix) & 0xFFFFFFFF)
    yield f"dhcp-range=set:{tag},{address},static,{netmask}"
    yield f"dhcp-option=tag:{tag},1,{netmask}"
    tier = router.tiers.get(face.nic)
    gateway = _gateway(address, inmates, router, tier)
    if gateway:
        yield f"dhcp-option=tag:{tag},3,{gateway}"
    servers = _servers(address, router, tier)
    if servers:
        yield f"dhcp-option=tag:{tag},6,{','.join(dict.fromkeys(servers))}"
    domain = tier.domain or boot.domain if tier else boot.domain
    if domain:
        yield f"dhcp-option=tag:{tag},15,{domain}"
    if face.mtu:
        yield f"dhcp-option=tag:{tag},26,{face.mtu}"


def _gateway(address: str, inmates: list[Host], router: Router, tier: Tier | None) -> str:
    """A tier's is told, an isolated network's is the router; in a shared network each VM's entry names it."""
    if tier:
        return tier.gateway
    if router.forwards:
        return address
    return next((h.gateway for h in inmates if h.default and h.gateway not in ("", "0.0.0.0")), "")  # noqa: S104 no bind


def _servers(address: str, router: Router, tier: Tier | None) -> list[str]:
    """The router itself, unless outer servers are to be used, then those of the network or of the boot line."""
    boot = router.boot
    if tier and boot.userouteripresolver:
        return [address]
    own = tier.gateway if tier and tier.is_gateway else address
    others = tier.dns if tier else () if boot.userouteripresolver else boot.dns
    return [*([] if boot.useextdns else [own]), *others]


def forget(bag: Hosts, gone: Gone) -> Hosts:
    """VMs of networks that are no longer there."""
    return Hosts(hosts={mac: host for mac, host in bag.hosts.items() if not inside(host.address, gone.networks)})


FEATURE = Feature("dhcpentry", (DhcpEntry,), Hosts, merge, contribute, forget=forget)
