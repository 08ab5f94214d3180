"""The way in for the management server: ssh on the control nic alone."""

from collections.abc import Iterator

from holdfast.feature import Claim, Feature, Service
from holdfast.nft import Element, key, quoted
from holdfast.router import Router
from holdfast.state import File

SSH_PORT = 3922
SSH = "ssh.service"


def contribute(_bag: None, router: Router) -> Iterator[Claim]:
    """sshd bound to the control address (and the guest's, where the boot line asks), and the firewall open there."""
    faces = [*router.of("control"), *(router.of("guest") if router.boot.sshonguest else ())]
    if not faces:
        return
    addresses = [address for face in faces for address, _ in face.addresses]
    text = "".join([
        "# Written by holdfast: ssh for the management server alone.\n",
        f"Port {SSH_PORT}\n",
        *(f"ListenAddress {address}\n" for address in addresses),
        "PermitRootLogin prohibit-password\n",
        "PasswordAuthentication no\n",
    ])  # fmt: skip
    yield Claim("cmdline/control", File("/etc/ssh/sshd_config.d/holdfast.conf", text, mode=0o600, reload=SSH))
    yield Claim("cmdline/control", Service(SSH, wanted=True))
    for face in faces:
        yield Claim("cmdline/control", Element("router_service", key(quoted(face.device), "tcp", str(SSH_PORT))))


FEATURE = Feature("control", (), None, None, contribute)
