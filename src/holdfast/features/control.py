"""The way in for the management server: ssh on the control nic alone, by its key."""

from collections.abc import Iterator

from holdfast.feature import Claim, Feature, Service
from holdfast.nft import Element, key, quoted
from holdfast.router import Router
from holdfast.ssh_key import authorized
from holdfast.state import File

SSH_PORT = 3922
SSH = "ssh.service"
CONFIGURATION = "/etc/ssh/sshd_config.d/holdfast.conf"
KEYS = "/etc/ssh/holdfast_keys"
LOGIN = 'command="exec /opt/holdfast/libexec/holdfast-login"'
"""What this key runs: all that it asks for but the server's own patch, which would unpack another agent over us."""


def contribute(_bag: None, router: Router) -> Iterator[Claim]:
    """sshd bound to the control address (and the guest's, where the boot line asks), and the firewall open there."""
    faces = [*router.of("control"), *(router.of("guest") if router.boot.sshonguest else ())]
    keys = authorized(router.boot.other.get("authorized_key", ""))
    if keys:
        # A file of its own: what the image or an operator lets in stays, so nobody is locked out by a line without a
        # key.  sshd reads it with every login.
        lines = ("# Written by holdfast: the management server's.", *(f"{LOGIN} {each}" for each in keys))
        text = "".join(f"{line}\n" for line in lines)
        yield Claim("cmdline/authorized_key", File(KEYS, text, mode=0o600))
    if not faces:
        return
    addresses = [address for face in faces for address, _ in face.addresses]
    yield Claim("cmdline/control", File(CONFIGURATION, _configuration(addresses), mode=0o600, reload=SSH))
    yield Claim("cmdline/control", Service(SSH, wanted=True))
    for face in faces:
        yield Claim("cmdline/control", Element("router_service", key(quoted(face.device), "tcp", str(SSH_PORT))))


def _configuration(addresses: list[str]) -> str:
    return "".join([
        "# Written by holdfast: ssh for the management server alone.\n",
        f"Port {SSH_PORT}\n",
        *(f"ListenAddress {address}\n" for address in addresses),
        "PermitRootLogin prohibit-password\n",
        "PasswordAuthentication no\n",
        "KbdInteractiveAuthentication no\n",
        # Ours first: an adopted router has the server's key in both, and the first line that fits says what it runs.
        f"AuthorizedKeysFile {KEYS} .ssh/authorized_keys\n",
        # Management servers' ssh clients are old: those of 4.6 know these and no newer ones.  Others never choose them.
        "PubkeyAcceptedAlgorithms +ssh-rsa\n",
        "HostKeyAlgorithms +ssh-rsa\n",
        "KexAlgorithms +diffie-hellman-group14-sha1\n",
        # They open many connections at once; by default every third above ten is refused.
        "MaxStartups 1000\n",
        "X11Forwarding no\n",
        "UseDNS no\n",
    ])  # fmt: skip


FEATURE = Feature("control", (), None, None, contribute)
