"""DHCP and DNS for guest networks: known VMs get their address, everybody there gets names."""

from collections.abc import Iterator, Mapping

from holdfast import dnsmasq
from holdfast.addresses import inside, network, number
from holdfast.dnsmasq import Network
from holdfast.errors import Rejected
from holdfast.feature import Claim, Command, Feature, Gone, Ipv4, Line, Mac, Merged, Pending, Service
from holdfast.interface import Interface
from holdfast.nft import Element, key, quoted
from holdfast.router import Router
from holdfast.shared import Host, Hosts, Subnets, Tier
from holdfast.state import File, Leases

DNSMASQ = "dnsmasq.service"
NOWHERE = "0.0.0.0"  # noqa: S104 what older servers write for an absent gateway, not a bind


class DhcpEntry(Command, frozen=True, kw_only=True, tag="dhcpentry"):
    """One nic of a VM (WIRE 5.9).  Older management servers spell the address `ipv4_adress`.

    `dns_addresses` is not believed: it may be another network's router, or the VM itself.
    """

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
    static_routes: str | None = None


def merge(bag: Hosts, command: DhcpEntry, _router: Router) -> Merged[Hosts]:
    """Put or remove one nic.  An address belongs to one nic: its earlier holder loses it."""
    mac, address = command.mac_address.lower(), command.ipv4_address or command.ipv4_adress
    if command.remove:
        return Merged(Hosts(hosts={other: host for other, host in bag.hosts.items() if other != mac}))
    if not address or address == NOWHERE:
        raise Rejected("the nic has no IPv4 address", "ipv4_address")
    if not command.host_name:
        raise Rejected("a VM has a name", "host_name")
    wanted = Host(
        address=address,
        name=command.host_name,
        gateway="" if command.default_gateway in (None, NOWHERE) else str(command.default_gateway),
        default=command.default_entry,
        ipv6={name: value for name in ("ipv6_address", "ipv6_duid") if (value := getattr(command, name))},
    )
    hosts = {other: host for other, host in bag.hosts.items() if host.address != address or other == mac}
    if hosts.get(mac) != wanted:
        hosts[mac] = wanted
    why = f"host_name: {wanted.name!r} is no name that DNS can carry for a VM: {mac} is served without one"
    return Merged(Hosts(hosts=hosts), warnings=() if dnsmasq.host_name(wanted.name) else (why,))


def contribute(bag: Hosts, router: Router) -> Iterator[Claim]:
    """dnsmasq's files, the service, and its ports on the guest nics."""
    if router.boot.type == "ilbvm":
        yield Claim("dhcpentry", Service(DNSMASQ, wanted=False))
        return
    dwellers = _dwellers(bag, router)
    homes = {mac for hosts in dwellers.values() for mac in hosts}
    for mac, host in bag.hosts.items():
        if mac not in homes:
            yield Claim(f"dhcpentry/{mac}", Pending(f"DHCP for {host.address}", "a network that it is in"))
    if not router.served:
        yield Claim("dhcpentry", Service(DNSMASQ, wanted=False))
        return
    networks = [net for face in router.served for net in _networks(face, dwellers, router)]
    for path, text in _texts(bag, router, networks, dwellers):
        yield Claim("dhcpentry", File(path, text, reload=DNSMASQ))
    boot = router.boot
    conf = dnsmasq.configuration(networks, boot.domain, dns=_serves_names(router), tftp=not router.is_vpc)
    yield Claim("dhcpentry", File(dnsmasq.CONF, conf, check=("dnsmasq", "--test", "-C"), restart=DNSMASQ))
    # Only known nics at their known addresses: what another VM held must not stand in its successor's way.  And only
    # where they are served: the server that is started when a network goes is to know nothing of it.
    allowed = tuple(sorted(f"{mac} {host.address}" for hosts in dwellers.values() for mac, host in hosts.items()))
    yield Claim("dhcpentry", Leases(dnsmasq.LEASES, allowed, tuple((n.network, n.device, n.address) for n in networks)))
    yield Claim("dhcpentry", Service(DNSMASQ, wanted=router.serving))
    for face in router.served:
        yield from _openings(router, face, known=any(dwellers[net] for net in face.networks))


def _dwellers(bag: Hosts, router: Router) -> Mapping[str, dict[str, Host]]:
    """The known nics of each network here; of two networks that hold an address, it is in the narrower one."""
    found: dict[str, dict[str, Host]] = {net: {} for face in router.served for net in face.networks}
    lengths = sorted({int(net.partition("/")[2]) for net in found}, reverse=True)
    masks = [(length, 0xFFFFFFFF << (32 - length) & 0xFFFFFFFF) for length in lengths]
    by_number = {(int(length), number(base)): net for net in found for base, _, length in [net.partition("/")]}
    for mac, host in bag.hosts.items():
        value = number(host.address)
        for length, mask in masks:
            if (net := by_number.get((length, value & mask))) is not None:
                found[net][mac] = host
                break
    return found


def _networks(face: Interface, dwellers: Mapping[str, dict[str, Host]], router: Router) -> Iterator[Network]:
    """Each network of a nic, its own first, with the router's first address there."""
    tier, seen = router.tiers.get(face.nic), set()
    for address, prefix in face.addresses:
        net = network(address, prefix)
        if net in seen:
            continue
        seen.add(net)
        yield Network(
            face.device,
            net,
            address,
            prefix,
            gateway=tier.gateway if tier else face.virtual or _gateway(net, address, dwellers[net], router),
            servers=tuple(dict.fromkeys(_servers(face.virtual or address, router, tier))),
            domain=(tier.domain if tier else "") or router.boot.domain,
            search=router.boot.dnssearchorder,
            mtu=face.mtu,
            data_server=tier.gateway if tier and tier.is_gateway and tier.gateway else face.virtual or address,
        )


def _gateway(net: str, address: str, hosts: Mapping[str, Host], router: Router) -> str:
    """An isolated network's is the router.  In a shared one the subnet's is told, else each VM's entry tells it."""
    if router.forwards:
        return address
    bag: Subnets = router.config["dhcpconfig"]
    told = [bag.subnets[address].gateway] if address in bag.subnets else []
    # By address, not by arrival: equal bags are equal machines.
    entries = sorted((number(host.address), host.gateway) for host in hosts.values() if host.default and host.gateway)
    return next((gw for gw in (*told, *(gw for _, gw in entries), router.boot.gateway) if gw and inside(gw, [net])), "")


def _servers(address: str, router: Router, tier: Tier | None) -> list[str]:
    """The router itself, unless outer servers are to be used, then those of the network or of the boot line."""
    boot = router.boot
    if tier and boot.userouteripresolver:
        return [address]
    own = tier.gateway if tier and tier.is_gateway else address
    others = tier.dns if tier else () if boot.userouteripresolver else boot.dns
    return [*([] if boot.useextdns else [own]), *others]


def _serves_names(router: Router) -> bool:
    """A VPC answers names even where its guests are told to ask others."""
    return router.is_vpc or not router.boot.useextdns


def _texts(
    bag: Hosts, router: Router, networks: list[Network], dwellers: Mapping[str, dict[str, Host]]
) -> Iterator[tuple[str, str]]:
    """All that dnsmasq reads again when it is told to, without forgetting anybody."""
    boot = router.boot
    own = dnsmasq.own_name(boot.name)
    foreign = [n for n in networks if n.domain != boot.domain]
    elsewhere = [host for n in foreign for host in (Host(address=n.address, name=own), *dwellers[n.network].values())]
    yield dnsmasq.HOSTS, dnsmasq.hosts(bag.hosts)
    yield dnsmasq.OPTIONS, dnsmasq.options(bag.hosts)
    yield dnsmasq.NETWORK_OPTIONS, dnsmasq.network_options(networks)
    yield (
        dnsmasq.NAMES,
        dnsmasq.names(bag.hosts, own, [n.address for n in networks], (n.data_server for n in networks)),
    )
    yield dnsmasq.MORE_NAMES, dnsmasq.more_names(elsewhere, boot.domain)
    yield dnsmasq.RESOLV, dnsmasq.resolv((*boot.internal_dns, *boot.dns))


def _openings(router: Router, face: Interface, *, known: bool) -> Iterator[Claim]:
    """DHCP where a VM is known, names for whoever is in the nic's networks."""
    device = quoted(face.device)
    if known:
        yield Claim("dhcpentry", Element("router_service", key(device, "udp", "67")))
    for net in face.networks:
        yield Claim("dhcpentry", Element("guest_source", key(device, net)))
    if not _serves_names(router):
        return
    for protocol in ("udp", "tcp"):
        yield Claim("dhcpentry", Element("guest_service", key(device, protocol, "53")))
        if router.boot.exposedns:
            yield Claim("cmdline/exposedns", Element("router_service", key(device, protocol, "53")))


def forget(bag: Hosts, gone: Gone) -> Hosts:
    """VMs of networks that are no longer there."""
    return Hosts(hosts={mac: host for mac, host in bag.hosts.items() if not inside(host.address, gone.networks)})


FEATURE = Feature("dhcpentry", (DhcpEntry,), Hosts, merge, contribute, forget=forget)
