"""dnsmasq's files, as it reads them: no field of a message can add a line or change a line's meaning.  Pure."""

import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import NamedTuple

from holdfast.addresses import dotted
from holdfast.shared import Host
from holdfast.texts import is_host_name, is_ipv4

CONF = "/etc/dnsmasq.conf"
HOSTS = "/etc/dhcphosts.txt"
OPTIONS = "/etc/dhcpopts.txt"
NETWORK_OPTIONS = "/etc/dnsmasq-options.txt"
NAMES = "/etc/hosts"
NO_GUESTS = "127.0.1.1"
"""What the router's own name means to itself while it serves no guests."""
MORE_NAMES = "/etc/dnsmasq-hosts"
RESOLV = "/etc/dnsmasq-resolv.conf"
LEASES = "/var/lib/misc/dnsmasq.leases"
MAX_LEASES = 10_000
"""More than guests that a router has; only known ones are given any."""
TFTP_ROOT = "/opt/tftpboot"

OWN_NAMES = frozenset({"localhost", "ip6-localhost", "ip6-loopback", "data-server"})
"""Names that mean the router or the asker: a VM that bore one would be given its neighbours' passwords to ask for."""
_MEANS_SOMETHING = re.compile(r"\d+[wdhmsWDHMS]?|infinite|ignore")


class Network(NamedTuple):
    """A network that guests are on: the router's address there, and what its guests are told.

    `search`: domains in the order in which bare names are tried.  `mtu` in bytes, 0: nothing is said.
    `data_server`: the address at which they ask for metadata and passwords.
    """

    device: str
    network: str
    address: str
    prefix: int
    gateway: str = ""
    servers: tuple[str, ...] = ()
    domain: str = ""
    search: tuple[str, ...] = ()
    mtu: int = 0
    data_server: str = ""

    @property
    def tag(self) -> str:
        """What dnsmasq calls a guest of this network; no VM's tag, which is an address alone."""
        return f"network-{_tag(self.network.partition('/')[0])}"

    @property
    def netmask(self) -> str:
        """Its netmask, dotted."""
        return dotted(0xFFFFFFFF << (32 - self.prefix) & 0xFFFFFFFF)


def host_name(text: str) -> str:
    """A VM's name as DNS carries it: one label.  Empty if it cannot be one, or means the router or the asker."""
    fit = "." not in text and is_host_name(text) and text.lower() not in OWN_NAMES
    return _spelt(text) if fit else ""


def own_name(text: str) -> str:
    """The router's own name; `router` where its name is one that no host can have."""
    return host_name(text) or "router"


def domain_name(text: str) -> str:
    """A domain as dnsmasq takes it; empty if it is none."""
    return _spelt(text) if is_host_name(text) and not is_ipv4(text) else ""


def _spelt(name: str) -> str:
    # Capitals make dnsmasq convert the name, and then it refuses the labels that IDNA reserves, as `Ab--c`.
    return name.lower() if "--" in name else name


def _tag(address: str) -> str:
    return address.replace(".", "_")


def configuration(networks: Sequence[Network], domain: str, *, dns: bool, tftp: bool) -> str:
    """dnsmasq.conf: only what needs a restart, so nothing that depends on a VM.

    `domain`: where networks have none of their own.  `dns`: whether names are served at all.
    """
    own = [address for network in networks for address in (network.address, network.data_server)]
    addresses = ["127.0.0.1", *dict.fromkeys(filter(None, own))]
    lines = [
        "# Written by holdfast.",
        "user=dnsmasq",
        "bind-dynamic",
        f"listen-address={','.join(addresses)}",
        "domain-needed",
        "bogus-priv",
        "expand-hosts",
        "localise-queries",
        f"addn-hosts={MORE_NAMES}",
        f"resolv-file={RESOLV}",
        f"dhcp-hostsfile={HOSTS}",
        f"dhcp-optsfile={OPTIONS}",
        f"dhcp-optsfile={NETWORK_OPTIONS}",
        f"dhcp-leasefile={LEASES}",
        f"dhcp-lease-max={MAX_LEASES}",
        "dhcp-authoritative",
        # A stranger is not told off either: another server may know it.
        "dhcp-ignore=tag:!known",
        # Names come from the management server alone: a guest that named itself could answer for others.
        "dhcp-ignore-names",
        "dhcp-option=vendor:MSFT,2,1i",
    ]
    if not dns:
        lines.append("port=0")
    if tftp:
        lines += ["enable-tftp", f"tftp-root={TFTP_ROOT}", "tftp-no-fail"]
    return "".join(f"{line}\n" for line in (*lines, *_domains(networks, domain), *map(_range, networks)))


def _domains(networks: Sequence[Network], domain: str) -> Iterator[str]:
    """Where names belong.  Each domain is ours: what is not known in it, nobody else is asked for."""
    common = domain_name(domain)
    if common:
        yield f"domain={common}"
    for network in networks:
        if (own := domain_name(network.domain)) and own != common:
            yield f"domain={own},{network.network}"
    for name in sorted({common, *(domain_name(network.domain) for network in networks)} - {""}):
        yield f"local=/{name}/"


def _range(network: Network) -> str:
    return f"dhcp-range=set:{network.tag},{network.address},static,{network.netmask}"


def network_options(networks: Iterable[Network]) -> str:
    """What the guests of each network are told.  An option without a value keeps dnsmasq from naming itself."""
    return "".join(f"tag:{network.tag},{option}\n" for network in networks for option in _options(network))


def _options(network: Network) -> Iterator[str]:
    yield f"1,{network.netmask}"
    yield ",".join(["3", *([network.gateway] if network.gateway else [])])
    yield ",".join(["6", *network.servers])
    search = [name for text in network.search if (name := domain_name(text))]
    if own := domain_name(network.domain):
        yield f"15,{own}"
    elif search:
        yield f'15,"{" ".join(search)}"'  # as the reference does: older clients try them one after the other
    if network.mtu:
        yield f"26,{network.mtu}"
    if search:
        yield f"119,{','.join(search)}"


def hosts(known: Mapping[str, Host]) -> str:
    """The known nics, by MAC.  A name that would mean something else here is found by the address, in the names."""
    lines = []
    for mac, host in known.items():
        fields = [mac, *([] if host.default else [f"set:{_tag(host.address)}"]), host.address]
        name = host_name(host.name)
        lines.append(
            ",".join([*fields, *([name] if name and not _MEANS_SOMETHING.fullmatch(name) else []), "infinite"])
        )
    return "".join(f"{line}\n" for line in sorted(lines))


def options(known: Mapping[str, Host]) -> str:
    """A nic that is not the VM's default one is given no router, no DNS and no domain."""
    tags = sorted(_tag(host.address) for host in known.values() if not host.default)
    return "".join(f"{tag},{option}\n" for tag in tags for option in (3, 6, 15))


def names(
    known: Mapping[str, Host], router: str, addresses: Sequence[str] = (), data_servers: Iterable[str] = ()
) -> str:
    """The names: where metadata is asked for, the router's own, every VM's.

    `addresses`: the router's, one in each guest network.  Who asks hears that of the own network (`localise-queries`).
    """
    localhost = ("127.0.0.1\tlocalhost", "::1\tlocalhost ip6-localhost ip6-loopback")
    # Of an address that has two names, the first one is what dnsmasq calls it.
    data = [f"{address}\tdata-server" for address in data_servers]
    # A loopback address would send a guest to itself: it stands here only where no guest asks.
    own = [f"{address}\t{router}" for address in addresses or (NO_GUESTS,)]
    vms = sorted(f"{host.address}\t{name}" for host in known.values() if (name := host_name(host.name)))
    return "".join(f"{line}\n" for line in (*localhost, *data, *own, *vms))


def more_names(hosts: Iterable[Host], domain: str) -> str:
    """The names in the router's domain of VMs, and the router (`hosts`), in a network that has a domain of its own."""
    common = domain_name(domain)
    found = [(host.address, name) for host in hosts if common and (name := host_name(host.name))]
    return "".join(f"{address}\t{name}.{common}\n" for address, name in sorted(found))


def resolv(servers: Iterable[str]) -> str:
    """Whom to ask for what is not known here."""
    return "".join(f"nameserver {server}\n" for server in dict.fromkeys(servers))
