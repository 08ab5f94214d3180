"""The load balancer: haproxy with the management server's text, its certificates, and its ports in the firewall."""

import re
from collections.abc import Iterator, Sequence

from holdfast.errors import Rejected
from holdfast.feature import Claim, Command, Feature, Item, Merged, Secret, Service
from holdfast.haproxy import excess, translate
from holdfast.interface import Interface
from holdfast.nft import Element, key, quoted
from holdfast.router import Router
from holdfast.shared import Data
from holdfast.state import File, Sysctl
from holdfast.texts import IPV4, OCTET

HAPROXY = "haproxy.service"
CONFIGURATION = "/etc/haproxy/haproxy.cfg"
CERTIFICATES = "/etc/cloudstack/ssl"
EVERYWHERE = "0.0.0.0/0"
MAX_PORT = 65535

_OPEN = re.compile(rf"(?P<address>{IPV4}):(?P<port>[0-9]{{1,5}}):?")
_STATS = re.compile(rf"(?P<address>{IPV4}(/0)?):(?P<port>[0-9]{{1,5}}):(0|0\.0\.0\.0)/0:?")
_NAME = re.compile(rf"{OCTET}(_{OCTET}){{3}}-[0-9]{{1,5}}")
_CONTROL = re.compile(r"[\x00-\x08\x0b-\x1f\x7f]")


class SslCertificate(Item, frozen=True, kw_only=True):
    """A certificate, its key and what it is signed by, PEM; a password is for an encrypted key."""

    name: str
    cert: Secret
    key: Secret
    chain: Secret | None = None
    password: Secret | None = None


class LoadBalancing(Item, frozen=True, kw_only=True):
    """All load balancing of the network (WIRE 5.8): finished haproxy text, and which ports to open for it."""

    ignored = frozenset({"tmp_cfg_file_path", "tmp_cfg_file_name", "remove_rules", "router_ip"})

    configuration: tuple[str, ...]
    add_rules: tuple[str, ...] = ()
    stat_rules: tuple[str, ...] = ()
    ssl_certs: tuple[SslCertificate, ...] | None = None


class LoadBalancer(Command, frozen=True, kw_only=True, tag="loadbalancer"):
    """The finished haproxy configuration, always of the whole network."""

    rules: tuple[LoadBalancing, ...]


class Certificate(Data, frozen=True, kw_only=True):
    """PEM texts."""

    cert: Secret
    private_key: Secret
    chain: Secret = ""


class Balancer(Data, frozen=True, kw_only=True):
    """The configuration in force, as it was sent: a later release may translate it otherwise.

    `open`: `address:port` of listeners; `stats`: the same of pages of statistics, `0.0.0.0/0:port` for every address.
    """

    configuration: tuple[str, ...] = ()
    certificates: dict[str, Certificate] = {}
    open: tuple[str, ...] = ()
    stats: tuple[str, ...] = ()


def merge(_bag: Balancer, command: LoadBalancer, _router: Router) -> Merged[Balancer]:
    """Take the whole or nothing: a listener that is missing would change what the others mean."""
    if len(command.rules) != 1:
        raise Rejected(f"one configuration is expected, not {len(command.rules)}", "rules")
    sent = command.rules[0]
    if not sent.configuration:
        raise Rejected("there is no text", "rules[0].configuration")
    for index, element in enumerate(sent.configuration):
        if _CONTROL.search(element):
            raise Rejected("a control character", f"rules[0].configuration[{index}]")
    for index, why in excess(sent.configuration):
        raise Rejected(why, f"rules[0].configuration[{index}]")
    bag = Balancer(
        configuration=sent.configuration,
        certificates=_certificates(sent.ssl_certs or ()),
        open=_ports("add_rules", sent.add_rules, _OPEN),
        stats=_ports("stat_rules", sent.stat_rules, _STATS),
    )
    said = translate(bag.configuration).said
    return Merged(bag, warnings=tuple(f"rules[0].configuration, {text}" for text in said))


def _ports(field: str, rules: Sequence[str], form: re.Pattern[str]) -> tuple[str, ...]:
    found = set()
    for index, rule in enumerate(rules):
        for text in filter(None, rule.split(",")):
            match = form.fullmatch(text)
            if not match or not 0 < int(match["port"]) <= MAX_PORT:
                raise Rejected(f"{text!r} does not name an address and a port", f"rules[0].{field}[{index}]")
            address = match["address"]
            if address.endswith("/0") and address != EVERYWHERE:
                raise Rejected(f"{text!r}: only {EVERYWHERE} means every address", f"rules[0].{field}[{index}]")
            found.add(f"{address}:{int(match['port'])}")
    return tuple(sorted(found))


def _certificates(sent: Sequence[SslCertificate]) -> dict[str, Certificate]:
    found: dict[str, Certificate] = {}
    for index, item in enumerate(sent):
        path = f"rules[0].ssl_certs[{index}]"
        if not _NAME.fullmatch(item.name):
            raise Rejected(f"{item.name!r} is not of the form 203_0_113_13-443", f"{path}.name")
        if item.name in found:
            raise Rejected(f"{item.name} is there twice", f"{path}.name")
        if "-----BEGIN CERTIFICATE-----" not in item.cert:
            raise Rejected("there is no PEM certificate", f"{path}.cert")
        if "PRIVATE KEY-----" not in item.key:
            raise Rejected("there is no PEM private key", f"{path}.key")
        if "ENCRYPTED" in item.key:
            why = "the private key is encrypted, and haproxy cannot ask for its pass phrase: send it decrypted"
            raise Rejected(why, f"{path}.key")
        found[item.name] = Certificate(cert=item.cert, private_key=item.key, chain=item.chain or "")
    return dict(sorted(found.items()))


def contribute(bag: Balancer, router: Router) -> Iterator[Claim]:
    """haproxy's text and certificates, the service, and its ports."""
    wanted = bool(bag.configuration)
    if not (wanted or router.forwards or router.boot.type == "ilbvm"):
        return
    yield Claim("loadbalancer", Service(HAPROXY, wanted=wanted))
    # A listener may come before its address: it is bound all the same, and waits for nobody.
    yield Claim("loadbalancer", Sysctl("net.ipv4.ip_nonlocal_bind", "1"))
    if not wanted:
        return
    pems = {name: _pem(certificate) for name, certificate in bag.certificates.items()}
    text = translate(bag.configuration, pems).text
    check = ("haproxy", "-c", "-f")
    yield Claim("loadbalancer", File(CONFIGURATION, text, mode=0o600, check=check, reload=HAPROXY, secret=True))
    for name, pem in pems.items():
        path = f"{CERTIFICATES}/{name}.pem"
        yield Claim(f"loadbalancer/{name}", File(path, pem, mode=0o600, reload=HAPROXY, secret=True))
    for place in bag.open:
        address, _, port = place.partition(":")
        yield Claim(f"loadbalancer/{place}", Element("public_service", key(address, "tcp", port)))
    for place in bag.stats:
        yield from _statistics(place, router)


def _pem(certificate: Certificate) -> str:
    """What haproxy reads: the certificate first, what signed it behind it, the key last."""
    parts = (certificate.cert, certificate.chain, certificate.private_key)
    return "".join(f"{part.strip()}\n" for part in parts if part.strip())


def _statistics(place: str, router: Router) -> Iterator[Claim]:
    address, _, port = place.partition(":")
    origin = f"loadbalancer/stats {place}"
    places: list[tuple[str, Interface | None]] = [(address, router.holder(address))]
    if address == EVERYWHERE:
        places = [(held, face) for face in router.interfaces for held, _ in face.addresses]
    for held, face in places:
        if _inner(face, router):
            assert face is not None  # noqa: S101 an inner nic is one
            if face.device:
                yield Claim(origin, Element("router_service", key(quoted(face.device), "tcp", port)))
        else:
            yield Claim(origin, Element("public_service", key(held, "tcp", port)))


def _inner(face: Interface | None, router: Router) -> bool:
    """A side whose addresses are nobody's business on the other sides of a router: asked by their own nic alone."""
    return face is not None and router.forwards and face.purpose in ("guest", "tier", "control")


FEATURE = Feature("loadbalancer", (LoadBalancer,), Balancer, merge, contribute)
