"""Texts of the remote access VPN: xl2tpd, pppd's options, its users.  Pure."""

from collections.abc import Mapping
from typing import ClassVar

from holdfast.state import File, Resource

UNIT = "xl2tpd.service"
CONFIGURATION = "/etc/xl2tpd/xl2tpd.conf"
OPTIONS = "/etc/ppp/options.xl2tpd"
SECRETS = "/etc/ppp/chap-secrets"
HOOK = "/opt/holdfast/libexec/holdfast-ppp"
MTU = 1410
"""Bytes: what is left of an Ethernet frame behind ESP, UDP, L2TP and PPP."""
IDLE_S = 1800


class Sessions(Resource, frozen=True):
    """The users who may be connected, by name."""

    identity: ClassVar[tuple[str, ...]] = ()
    allowed: tuple[str, ...]


def xl2tpd(server: str, first: str, last: str, local: str) -> str:
    """The daemon's text: it listens at the VPN's own address alone, and hands users on to pppd."""
    return (
        "; Written by holdfast.\n"
        "[global]\n"
        f"listen-addr = {server}\n"
        "port = 1701\n"
        "\n"
        "[lns default]\n"
        f"ip range = {first}-{last}\n"
        f"local ip = {local}\n"
        "require chap = yes\n"
        "refuse pap = yes\n"
        "require authentication = yes\n"
        "name = l2tpd\n"
        "length bit = yes\n"
        f"pppoptfile = {OPTIONS}\n"
    )


def options(local: str) -> str:
    """pppd's options: CHAP and nothing weaker, DNS by the router."""
    return (
        "# Written by holdfast.\n"
        "auth\nrequire-chap\nrequire-mschap-v2\nrefuse-pap\nrefuse-eap\nrefuse-mschap\n"
        f"ms-dns {local}\n"
        f"mtu {MTU}\nmru {MTU}\nidle {IDLE_S}\n"
        "noccp\nnodefaultroute\nlock\nhide-password\n"
        f"ip-up-script {HOOK}\nip-down-script {HOOK}\n"
    )


def chap_secrets(users: Mapping[str, str]) -> str:
    """Users and passwords, each quoted: a name is that name and nothing else."""
    lines = "".join(f"{_quoted(name)} * {_quoted(password)} *\n" for name, password in sorted(users.items()))
    return f"# Written by holdfast.\n{lines}"


def _quoted(word: str) -> str:
    escaped = word.replace("\\", "\\\\").replace('"', '\\"')
    return f'"{escaped}"'


def files(server: str, first: str, last: str, local: str, users: Mapping[str, str]) -> list[File]:
    """All of them.  pppd reads users and options anew for each call; only the daemon's own text needs a restart."""
    return [
        File(CONFIGURATION, xl2tpd(server, first, last, local), mode=0o600, restart=UNIT),
        File(OPTIONS, options(local), mode=0o600),
        File(SECRETS, chap_secrets(users), mode=0o600, secret=True),
    ]
