"""What the boot line says of the router itself, beyond what scenarios show: what must be there, and what must not."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from holdfast.boot.line import command
from holdfast.config import EMPTY, Config, decode, merge
from holdfast.desired import Desired, desired
from holdfast.drivers.sysctl import Sysctls
from holdfast.features import control, resolver
from holdfast.router import Facts, Nic
from holdfast.state import File, State, Sysctl

NICS = (Nic("02:00:1f:00:00:01", "eth0"), Nic("0e:00:a9:1f:00:02", "eth1"), Nic("1e:00:c6:33:64:14", "eth2"))
ROUTER = (
    "name=r-31-VM type=router eth0ip=10.31.0.1 eth0mask=255.255.255.0 eth1ip=169.254.31.2 eth1mask=255.255.0.0 "
    "eth2ip=198.51.100.20 eth2mask=255.255.255.0 gateway=198.51.100.1 dns1=192.0.2.53"
)
LINES = {
    "router": ROUTER,
    "dhcpsrvr": "name=r-4-VM type=dhcpsrvr eth0ip=10.3.0.1 eth0mask=255.0.0.0 eth1ip=169.254.31.2 eth1mask=255.255.0.0",
    "ilbvm": "name=b-5-VM type=ilbvm eth0ip=10.31.0.9 eth0mask=255.255.255.0 eth1ip=169.254.31.2 eth1mask=255.255.0.0",
    "vpcrouter": "name=r-6-VM type=vpcrouter eth0ip=169.254.31.2 eth0mask=255.255.0.0 vpccidr=10.31.0.0/16 dns1=null",
}
GUESTS_ASK = {"router": "10.31.0.1", "dhcpsrvr": "10.3.0.1"}
"""The router's address where it answers names: what its own name means there.  `127.0.1.1` would be the asker."""


def wanted(line: str, nics: tuple[Nic, ...] = NICS) -> Desired:
    facts = Facts(nics)
    config: Config = merge(EMPTY, decode(command(line)), facts).config
    return desired(config, facts)


def text(state: State, path: str) -> str:
    file = state["File", path]
    assert isinstance(file, File)
    return file.text


@pytest.mark.parametrize("kind", LINES)
def test_every_kind_of_router_has_a_name_names_and_whom_to_ask(kind: str) -> None:
    meant = wanted(LINES[kind])
    name = LINES[kind].split()[0].removeprefix("name=")

    assert meant.conflicts == ()
    assert text(meant.state, "/etc/hostname") == f"{name}\n"
    assert meant.state["Sysctl", "kernel/hostname"] == Sysctl("kernel/hostname", name)
    assert f"{GUESTS_ASK.get(kind, '127.0.1.1')}\t{name}\n" in text(meant.state, "/etc/hosts")
    assert "127.0.0.1\tlocalhost\n" in text(meant.state, "/etc/hosts")
    assert ("127.0.1.1" in text(meant.state, "/etc/hosts")) is (kind not in GUESTS_ASK)
    assert text(meant.state, resolver.RESOLV).startswith("#")


@pytest.mark.parametrize("kind", LINES)
def test_sshd_listens_on_the_control_address_alone(kind: str) -> None:
    lines = text(wanted(LINES[kind]).state, control.CONFIGURATION).splitlines()

    assert [line for line in lines if line.startswith("Listen")] == ["ListenAddress 169.254.31.2"]
    assert [line for line in lines if line.startswith("Port")] == ["Port 3922"]


@pytest.mark.parametrize("kind", ["router", "dhcpsrvr", "ilbvm"])
def test_without_a_control_nic_sshd_is_told_nothing(kind: str) -> None:
    state = wanted(LINES[kind], NICS[:1]).state

    assert ("File", control.CONFIGURATION) not in state
    assert ("Unit", control.SSH) not in state


def test_the_key_is_roots_alone_and_there_is_none_without_one() -> None:
    key = "c3NoLWVkMjU1MTkgQUFBQUMzTnphQzFsWkRJMU5URTVBQUFBSU9NcXFua1Z6cm0wU2RHNlVPb3FLTHNhYmdINUM5b2tXaTBkaDJsOUdLSmw="
    file = wanted(f"{ROUTER} authorized_key={key}").state["File", control.KEYS]

    assert isinstance(file, File)
    assert file.mode == 0o600
    assert file.text.splitlines()[1].startswith(f"{control.LOGIN} ssh-ed25519 AAAA")
    assert ("File", control.KEYS) not in wanted(ROUTER).state


@pytest.mark.parametrize("name", ["r_1", "-", "localhost", "a.b", "x" * 64, "null"])
def test_a_name_that_no_host_can_have(name: str) -> None:
    state = wanted(ROUTER.replace("r-31-VM", name)).state

    assert text(state, "/etc/hostname") == "router\n"


def test_a_network_namespace_keeps_its_machines_name(tmp_path: Path) -> None:
    (tmp_path / "kernel").mkdir()
    (tmp_path / "kernel/hostname").write_text("laptop\n")
    name, forward = Sysctl("kernel/hostname", "r-31-VM"), Sysctl("net/ipv4/ip_forward", "1")
    state: State = {one.key: one for one in (name, forward)}

    assert [*Sysctls(tmp_path, whole=False).observe(state)] == [name]
    assert [*Sysctls(tmp_path).observe(state)] == [Sysctl("kernel/hostname", "laptop")]


@pytest.mark.skipif(os.geteuid() != 0, reason="a host name of its own takes root")
def test_the_kernel_takes_the_name() -> None:
    program = (
        f"import sys; sys.path[:0] = {[str(Path(__file__).parents[1] / 'src'), *sys.path]!r}\n"
        "from holdfast.drivers.sysctl import Sysctls\n"
        "from holdfast.state import Change, Sysctl\n"
        "print(*Sysctls().apply([Change(None, Sysctl('kernel/hostname', 'r-31-VM'))]))\n"
        "print(*(one.value for one in Sysctls().observe({('x',): Sysctl('kernel/hostname', 'r-31-VM')})))\n"
    )
    before = os.uname().nodename
    argv = ["unshare", "--uts", sys.executable, "-c", program]
    done = subprocess.run(argv, capture_output=True, text=True, check=True)

    assert done.stdout.split() == ["r-31-VM"]
    assert os.uname().nodename == before
