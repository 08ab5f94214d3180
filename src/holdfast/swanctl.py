"""What charon is told, in swanctl's own syntax: connections with their keys, one text each.  Pure."""

from base64 import b64decode, b64encode
from collections.abc import Iterator, Sequence
from hashlib import sha256
from typing import ClassVar, NamedTuple, TypeAlias

from holdfast.state import Key, Resource
from holdfast.texts import is_host_name, is_ipv4

UNIT = "strongswan.service"
L2TP = "L2TP-PSK"
"""The connection that all remote users share."""
FOLDER = "/etc/swanctl/conf.d"
SETTINGS = "/etc/strongswan.d/holdfast.conf"
KEY = "ike-"
"""A connection's key is called by its name with this before it."""
NAMES = "/run/holdfast/names-wanted.json"
"""Names of peers, for an ear that asks which addresses they have."""

Section: TypeAlias = "dict[str, str | Section]"
"""Settings of swanctl.conf(5): values as text, sections in sections."""

LISTS = frozenset({"local_addrs", "remote_addrs", "proposals", "esp_proposals", "local_ts", "remote_ts"})
"""Settings whose values are several, parted by commas."""

SETTINGS_TEXT = """\
# Written by holdfast: what charon loads, and nothing that answers neighbours, leases addresses or serves clients' DNS.
charon-systemd {
    load_modular = no
    load = random nonce openssl aes sha1 sha2 md5 hmac kdf gmp kernel-netlink socket-default vici
    install_virtual_ip = no
    journal {
        default = 1
        enc = 0
    }
}
swanctl {
    load = random openssl
}
"""
DPD_S, DPD_TIMEOUT_S = 30, 120
_SOONER = 10
"""A key is replaced when nine tenths of its life are over; rekeying that starts at the end comes too late."""


class Connection(Resource, frozen=True):
    """A connection that charon has loaded from the file at `path`; `digest` tells one text from another."""

    identity: ClassVar[tuple[str, ...]] = ("name",)
    name: str
    digest: str
    path: str

    @property
    def needs(self) -> tuple[Key, ...]:
        """Its text, and charon."""
        return (("File", self.path), ("Unit", UNIT))


class Tunnel(NamedTuple):
    """A site-to-site tunnel.  `local` is the address that the router speaks by, `local_id` what it says that it is;
    `peer` is the address or the name that the other side is known by, `addresses` where it is.

    `ike` and `esp` are proposals as charon writes them, `remotes` the networks behind the peer; lives in seconds;
    `version`: 0 either (2 where this side begins), 1, 2.
    """

    local: str
    local_id: str
    peer: str
    addresses: tuple[str, ...]
    network: str
    remotes: tuple[str, ...]
    ike: tuple[str, ...]
    esp: tuple[str, ...]
    ike_s: int
    esp_s: int
    key: str
    version: int = 0
    dpd: bool = False
    encap: bool = False
    passive: bool = False
    split: bool = False


def is_peer(text: str) -> bool:
    """Whether a tunnel's other side may be known by this: an address, or a name that no address is spelt like."""
    named = len(text) <= LONGEST_PEER and is_host_name(text) and not text.rpartition(".")[2].isdigit()
    return named or is_ipv4(text)


LONGEST_PEER = 190
"""As a management server has it; a file is called by it."""


def name_of(local: str, peer: str) -> str:
    """The name of the tunnel from an address to a peer, by which charon, its log and our files call it."""
    return f"vpn-{local}-{peer}".replace(".", "_")


def peer_of(name: str) -> str:
    """The peer in such a name; empty in any other."""
    vpn, _, rest = name.replace("_", ".").partition("-")
    local, _, peer = rest.partition("-")
    return peer if vpn == "vpn" and is_ipv4(local) and is_peer(peer) else ""


def is_ours(name: str) -> bool:
    """Whether a connection of this name is holdfast's to end; any other is the administrator's."""
    return name == L2TP or peer_of(name) != ""


def path_of(name: str) -> str:
    """Where a connection's text is kept, and found by charon when it starts."""
    return f"{FOLDER}/{name}.conf"


def digest(text: str) -> str:
    """What tells one text from another."""
    return sha256(text.encode()).hexdigest()[:16]


def tunnel(told: Tunnel) -> str:
    """The text of one tunnel.  IKEv1 has no exchange for several networks, so there each has its own."""
    name = name_of(told.local_id, told.peer)
    connection: Section = {
        "version": str(told.version),
        "local_addrs": told.local,
        "remote_addrs": ",".join(told.addresses),
        "proposals": ",".join(told.ike),
        "rekey_time": f"{_early(told.ike_s)}s",
        "over_time": f"{told.ike_s - _early(told.ike_s)}s",
        # Two sides that begin at once, or one that comes back: the newest is the one that counts.
        "unique": "replace",
        "mobike": "no",
        "encap": "yes" if told.encap else "no",
        # For good: the peer may come a day later.
        "keyingtries": "1" if told.passive else "0",
    }
    if told.dpd:
        connection |= {"dpd_delay": f"{DPD_S}s", "dpd_timeout": f"{DPD_TIMEOUT_S}s"}
    connection["local"] = {"auth": "psk", "id": told.local_id}
    # Who is known by a name may say that it is the name, or the address that it has: either has the key.
    connection["remote"] = {"auth": "psk", "id": told.peer if is_ipv4(told.peer) else "%any"}
    connection["children"] = dict(_children(name, told))
    owners = dict.fromkeys((told.local_id, told.peer, *told.addresses))
    return text({
        "connections": {name: connection},
        "secrets": {f"{KEY}{name}": _secret(told.key, *owners)},
    })  # fmt: skip


def _early(life_s: int) -> int:
    return life_s - max(1, life_s // _SOONER)


def _children(name: str, told: Tunnel) -> Iterator[tuple[str, Section]]:
    each = told.split or told.version == 1
    for at, remotes in enumerate([(remote,) for remote in told.remotes] if each else [told.remotes], start=1):
        child: Section = {
            "mode": "tunnel",
            "local_ts": told.network,
            "remote_ts": ",".join(remotes),
            "esp_proposals": ",".join(told.esp),
            "life_time": f"{told.esp_s}s",
            "rekey_time": f"{_early(told.esp_s)}s",
            # Begins at once, and again with a packet when the peer has ended or refused it.
            "start_action": "none" if told.passive else "trap|start",
            "dpd_action": "start" if told.dpd and not told.passive else "none",
        }
        yield (name if at == 1 else f"{name}-{at}"), child


def _secret(key: str, *owners: str) -> Section:
    """A key as base64, so that it may hold any character."""
    ids: Section = {f"id-{at}": owner for at, owner in enumerate(owners, start=1)}
    return {**ids, "secret": f"0s{b64encode(key.encode()).decode()}"}


_L2TP_IKE = "aes256-sha256-modp2048,aes128-sha256-modp2048,aes256-sha1-modp2048,aes128-sha1-modp2048,"
_L2TP_IKE += "aes256-sha1-modp1024,aes128-sha1-modp1024,3des-sha1-modp2048,3des-sha1-modp1024"
_L2TP_ESP = "aes256-sha256,aes128-sha256,aes256-sha1,aes128-sha1,3des-sha1"


def l2tp(server: str, key: str) -> str:
    """The text of the one connection that all remote users share: transport mode, L2TP alone, any peer.

    The proposals are those of the clients that come with operating systems.  The key belongs to any peer, so that a
    tunnel's own key, which belongs to its peer, is always the nearer one.
    """
    child: Section = {
        "mode": "transport", "local_ts": "dynamic[udp/1701]", "remote_ts": "dynamic[udp]",
        "esp_proposals": _L2TP_ESP, "start_action": "none", "dpd_action": "none",
    }  # fmt: skip
    connection: Section = {
        "version": "1", "local_addrs": server, "remote_addrs": "%any", "proposals": _L2TP_IKE, "unique": "never",
        "dpd_delay": f"{DPD_S}s", "dpd_timeout": f"{DPD_TIMEOUT_S}s",
        "local": {"auth": "psk", "id": server}, "remote": {"auth": "psk", "id": "%any"}, "children": {L2TP: child},
    }  # fmt: skip
    return text({"connections": {L2TP: connection}, "secrets": {f"{KEY}{L2TP}": _secret(key, server, "%any")}})


def text(section: Section) -> str:
    """A whole file."""
    return "# Written by holdfast.\n" + "".join(f"{line}\n" for line in _lines(section, ""))


def _lines(section: Section, indent: str) -> Iterator[str]:
    for name, value in section.items():
        if isinstance(value, str):
            yield f"{indent}{name} = {value}"
        else:
            yield f"{indent}{name} {{"
            yield from _lines(value, f"{indent}    ")
            yield f"{indent}}}"


def parse(written: str) -> Section:
    """Read a text of `text` back; ValueError if it is another's."""
    root: Section = {}
    path = [root]
    for line in written.splitlines():
        if line.startswith("#"):
            continue
        name, _, rest = line.lstrip().partition(" ")
        if rest == "{":
            inner: Section = {}
            path[-1][name] = inner
            path.append(inner)
        elif rest.startswith("= "):
            path[-1][name] = rest.removeprefix("= ")
        elif (name, rest) == ("}", "") and len(path) > 1:
            path.pop()
        else:
            raise ValueError("not a text that holdfast has written")
    if len(path) != 1:
        raise ValueError("the text ends too early")
    return root


def shared(secret: Section) -> tuple[bytes, Sequence[str]]:
    """A key of a parsed text, and who owns it."""
    value = secret["secret"]
    assert isinstance(value, str)  # noqa: S101 as `_secret` writes it
    return b64decode(value.removeprefix("0s")), [str(v) for name, v in secret.items() if name.startswith("id-")]
