"""A router that starts: closed until it knows, called by its name, reached by its management server and nobody else."""

import re
import shutil
import time
from base64 import b64encode
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import NamedTuple

import pytest
from replay import BOOT_LINE, HOLDFAST, Site, said, site

from holdfast.boot.line import command
from holdfast.lab.host import Host
from holdfast.lab.process import Result, must
from holdfast.lab.world import Management, World

pytestmark = pytest.mark.lab

CONTROL, MOVED = "169.254.216.73", "169.254.216.74"
PUBLIC, GUEST = "203.0.113.10", "10.1.1.1"
OLD_CLIENT = (
    "-oKexAlgorithms=diffie-hellman-group14-sha1", "-oHostKeyAlgorithms=ssh-rsa", "-oPubkeyAcceptedAlgorithms=ssh-rsa",
    "-oCiphers=aes128-ctr", "-oMACs=hmac-sha1",
)  # fmt: skip
"""What a management server of 4.6 knows."""


class Started(NamedTuple):
    """A router with its management side, the world, a host among its guests, and the key that it was told."""

    site: Site
    mgmt: Management
    world: World
    guest: Host
    key: Path
    line: str

    def ssh(self, *words: str, options: Sequence[str] = (), address: str = CONTROL) -> Result:
        """Log in as the management server does, and run something."""
        fixed = (
            "-oStrictHostKeyChecking=no",
            "-oUserKnownHostsFile=/dev/null",
            "-oBatchMode=yes",
            "-oConnectTimeout=5",
            "-oLogLevel=ERROR",
        )
        own = ("ssh", "-F", "none", "-p", "3922", "-i", str(self.key), *fixed, *options, f"root@{address}")
        return self.mgmt.run([*own, *words], timeout_s=30)

    def listening(self) -> set[str]:
        """Where sshd listens."""
        text = self.site.router.shell(["ss", "-Hltnp"]).text
        return {line.split()[3] for line in text.splitlines() if '"sshd"' in line}

    def boots(self, line: str) -> Result:
        """Give it another line and let it take it."""
        self.site.router.write("/var/cache/cloud/cmdline", line)
        return self.site.router.shell([HOLDFAST, "boot"])


@pytest.fixture(scope="module")
def started(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Started]:
    key = tmp_path_factory.mktemp("key") / "id_rsa"
    with site("boot") as made:
        must(["ssh-keygen", "-q", "-t", "rsa", "-b", "2048", "-N", "", "-f", str(key)])
        encoded = b64encode(key.with_suffix(".pub").read_bytes()).decode()
        line = f"{BOOT_LINE.strip()} authorized_key={encoded}\n"
        mgmt = made.lab.mgmt(made.lab.segment("control"), "169.254.0.1/16")
        world = made.lab.world(made.lab.segment("public"), "203.0.113.1/24", ("192.0.2.10",))
        guest = Host(made.lab._place, "neighbour")  # noqa: SLF001 a host that asks nobody for its address
        made.lab.hosts["neighbour"] = guest
        guest.address(guest.plug(made.lab.segment("guest"), "02:00:4c:5e:00:01"), "10.1.1.9/24")
        guest.route("default", GUEST)
        made.router.write("/var/cache/cloud/cmdline", line, mode=0o666)
        made.router.boot()
        yield Started(made, mgmt, world, guest, key, line)


def test_the_management_server_logs_in_by_its_key(started: Started) -> None:
    done = started.ssh("/opt/cloud/bin/checkrouter.sh")

    assert (done.code, done.text) == (0, "Status: PRIMARY\n"), said(done)


def test_so_does_one_with_an_old_client(started: Started) -> None:
    done = started.ssh("/opt/cloud/bin/checkrouter.sh", options=OLD_CLIENT)

    assert (done.code, done.text) == (0, "Status: PRIMARY\n"), said(done)


def test_many_at_once_are_let_in(started: Started) -> None:
    words = " & ".join(["ssh_ /bin/true || echo refused"] * 25)
    fixed = "-F none -q -p 3922 -oStrictHostKeyChecking=no -oUserKnownHostsFile=/dev/null -oBatchMode=yes"
    text = f"ssh_() {{ ssh {fixed} -i {started.key} root@{CONTROL} $*; }}; {words} & wait"

    assert started.mgmt.run(["sh", "-c", text]).text == ""


def test_a_message_is_dropped_and_taken_as_the_server_does_it(started: Started, tmp_path: Path) -> None:
    name = "vm_dhcp_entry.json.0b3c8c1e-1111-4c00-9d00-000000000031"
    message = tmp_path / name
    message.write_text(
        '{"host_name":"vm1","mac_address":"02:00:4c:5e:00:01","ipv4_address":"10.1.1.9","default_entry":true,'
        '"default_gateway":"10.1.1.1","remove":false,"type":"dhcpentry"}'
    )
    own = ["scp", "-O", "-q", "-F", "none", "-P", "3922", "-i", str(started.key), "-oStrictHostKeyChecking=no"]
    own += ["-oUserKnownHostsFile=/dev/null", "-oBatchMode=yes", str(message), f"root@{CONTROL}:/var/cache/cloud/"]
    copied = started.mgmt.run(own)
    assert copied.code == 0, said(copied)

    done = started.ssh("/opt/cloud/bin/update_config.py", name)

    assert done.code == 0, said(done)
    assert "vm1" in started.site.router.read("/etc/hosts")


def test_it_listens_on_the_control_address_and_nowhere_else(started: Started) -> None:
    assert started.listening() == {f"{CONTROL}:3922"}
    for host, address in ((started.guest, GUEST), (started.world, PUBLIC), (started.guest, CONTROL)):
        for port in (22, 3922):
            host.cannot_reach(address, port, timeout_s=0.2)


def test_nobody_logs_in_by_a_password_or_another_key(started: Started, tmp_path: Path) -> None:
    stranger = tmp_path / "id"
    must(["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", str(stranger)])
    passwords = ("-oPreferredAuthentications=password,keyboard-interactive", "-oPubkeyAuthentication=no")
    asked = started.ssh("true", options=passwords)
    other = started._replace(key=stranger).ssh("true", options=("-oIdentitiesOnly=yes",))

    for done in (asked, other):
        assert done.code == 255, said(done)
        assert "Permission denied (publickey)" in done.errors


def test_the_key_and_the_line_are_roots_alone(started: Started) -> None:
    done = started.site.router.shell(
        ["stat", "-c", "%a %U %n", "/etc/ssh/holdfast_keys", "/var/cache/cloud", "/var/cache/cloud/cmdline"]
    )

    assert done.text.splitlines()[:2] == ["600 root /etc/ssh/holdfast_keys", "700 root /var/cache/cloud"]


def test_it_bears_its_name(started: Started) -> None:
    router = started.site.router
    assert router.shell(["uname", "-n"]).text == "r-10-VM\n"
    router.shell(["hostname", "somebody"])

    done = router.shell([HOLDFAST, "converge"])

    assert "kernel/hostname" in done.text
    assert router.shell(["uname", "-n"]).text == "r-10-VM\n"
    assert router.shell(["getent", "ahostsv4", "r-10-VM"]).text.split()[0] == GUEST
    assert [line for line in router.read("/etc/resolv.conf").splitlines() if line[0] != "#"] == [
        "nameserver 8.8.8.8",
        "nameserver 8.8.4.4",
    ]


def test_whatever_ends_sshd_it_comes_back(started: Started) -> None:
    router = started.site.router
    for signal in ("TERM", "KILL"):
        router.shell(["systemctl", "kill", f"--signal={signal}", "--kill-whom=main", "ssh.service"])
        router.eventually(lambda: started.ssh("true").code == 0, "lets its management server in again", 5)


def test_while_sshd_refuses_its_configuration_the_one_that_runs_goes_on(started: Started) -> None:
    router, main = started.site.router, "/etc/ssh/sshd_config"
    before = router.read(main)
    router.write(main, f"{before}\nNoSuchWord yes\n")
    try:
        done = router.command("cmd_line.json", command(started.line.replace(CONTROL, MOVED)))
        assert done.code == 4, said(done)  # the way back fails as well: the fault is in a file that is not Holdfast's
        assert "ssh.service" in done.text, said(done)
        assert started.listening() == {f"{CONTROL}:3922"}
        assert CONTROL in router.read("/etc/ssh/sshd_config.d/holdfast.conf")
        assert started.ssh("true").code == 0
    finally:
        router.write(main, before)
    assert router.shell([HOLDFAST, "converge"]).code == 0
    assert started.site.plan()["changes"] == []


def test_it_follows_its_control_address(started: Started) -> None:
    done = started.boots(started.line.replace(CONTROL, MOVED))
    assert done.code == 0, said(done)
    assert started.listening() == {f"{MOVED}:3922"}
    assert started.ssh("true", address=MOVED).code == 0
    assert started.boots(started.line).code == 0
    assert started.ssh("true").code == 0


def test_host_keys_outlive_a_reboot_and_are_made_where_there_are_none(started: Started) -> None:
    router = started.site.router

    def keys() -> list[str]:
        return sorted(started.mgmt.run(["ssh-keyscan", "-p", "3922", CONTROL]).text.splitlines())

    before = keys()
    assert len(before) == 3
    router.reboot()
    assert keys() == before
    router.shell(["sh", "-c", "rm /etc/ssh/ssh_host_*"])
    router.power_cut()
    router.boot()
    fresh = keys()
    assert len(fresh) == 3
    assert not set(fresh) & set(before)
    assert started.site.plan()["changes"] == []


def test_closed_until_the_firewall_is_in_force(started: Started) -> None:
    router = started.site.router
    early = "/usr/lib/systemd/system/cloud-early-config.service"
    shutil.move(started.site.path(early), started.key.with_name("unit"))
    router.shell(["ln", "-s", "/dev/null", early])
    router.power_cut()
    router.boot()
    try:
        _closed(started)
    finally:
        started.site.path(early).unlink()
        shutil.move(started.key.with_name("unit"), started.site.path(early))

    done = router.shell([HOLDFAST, "boot"])

    assert done.code == 0, said(done)
    assert started.site.plan()["changes"] == []
    listed = router.shell(["nft", "list", "tables"]).text
    assert listed == "table inet holdfast\ntable inet holdfast_usage\n"
    started.mgmt.pings(CONTROL)
    kept = router.shell(["nft", "list", "ruleset"]).text
    again = router.shell(["systemctl", "restart", "holdfast-closed.service"])
    assert again.code == 0, said(again)
    assert router.shell(["nft", "list", "ruleset"]).text == kept


def _closed(started: Started) -> None:
    """Links, addresses, forwarding and a listening sshd by hand: nothing comes in, nothing goes through."""
    router = started.site.router
    for words in (
        "ip link set eth0 up", "ip link set eth1 up", "ip link set eth2 up", f"ip address add {GUEST}/24 dev eth0",
        f"ip address add {CONTROL}/16 dev eth1", f"ip address add {PUBLIC}/24 dev eth2",
        "sysctl -qw net.ipv4.ip_forward=1", "systemctl start ssh.service",
    ):  # fmt: skip
        done = router.shell(words.split())
        assert done.code == 0, said(done)
    assert started.listening()
    for host, address in ((started.mgmt, CONTROL), (started.guest, GUEST), (started.world, PUBLIC)):
        host.cannot_ping(address, timeout_s=0.3)
        host.cannot_reach(address, 3922, timeout_s=0.3)
        assert router.shell(["ping", "-c1", "-W2", host.addresses[-1]]).code == 0  # answers to its own questions
    started.world.route("10.1.1.0/24", PUBLIC)
    started.guest.cannot_ping("192.0.2.10")
    started.world.cannot_ping("10.1.1.9")
    assert router.shell(["ping", "-c1", "-W2", "127.0.0.1"]).code == 0
    units = ["holdfast-closed.service", "network-pre.target"]
    asked = router.shell(["systemctl", "show", "-p", "ActiveEnterTimestampMonotonic", *units])
    closed, links = map(int, re.findall(r"=(\d+)", asked.text))
    assert 0 < closed <= links


def test_a_line_that_comes_late_is_found_by_the_router_itself(started: Started) -> None:
    text = (
        "import sys; sys.path.insert(0, '/opt/holdfast/lib'); from holdfast import boot; "
        "found = boot.find(late=lambda text: False); print(found and (found.fresh, found.source))"
    )
    router = started.site.router
    find = ["/usr/bin/python3", "-IS", "-c", text]
    router.reboot()
    assert router.shell(find).text == "None\n"
    time.sleep(0.1)
    router.write("/var/cache/cloud/cmdline", started.line)
    assert router.shell(find).text == "(True, '/var/cache/cloud/cmdline')\n"


def test_what_says_that_a_boot_is_done_is_not_the_last_ones(started: Started) -> None:
    router = started.site.router
    router.write("/var/cache/cloud/boot_up_done", "of another boot\n")
    router.reboot()
    assert router.read("/var/cache/cloud/boot_up_done") == ""


FULL = {
    "/etc/systemd/system/var-cache-cloud.mount": "[Unit]\nBefore=local-fs.target\n[Mount]\nWhat=tmpfs\n"
    "Where=/var/cache/cloud\nType=tmpfs\nOptions=size=16k,mode=0700\n",
    "/etc/systemd/system/cloud-early-config.service.d/full.conf": "[Unit]\nRequires=var-cache-cloud.mount\n"
    "After=var-cache-cloud.mount\n[Service]\nExecStartPre=/bin/cp /var/lib/line /var/cache/cloud/cmdline\n"
    "ExecStartPre=-/bin/dd if=/dev/zero of=/var/cache/cloud/fill bs=4k\n",
}
"""A place for messages without any room, where there is nothing but the boot line."""


def test_with_no_room_for_the_boot_line_it_comes_up_all_the_same(started: Started) -> None:
    router = started.site.router
    router.write("/var/lib/line", started.line)
    for path, text in FULL.items():
        router.write(path, text)
    try:
        router.reboot()
        assert "No space left" in router.read("/var/log/routerServiceMonitor.log")
        assert router.shell(["cp", "/var/lib/line", "/var/cache/cloud/more"]).code != 0, "it is full"
        started.guest.pings(GUEST)
        assert started.ssh("/opt/cloud/bin/checkrouter.sh").code == 0
    finally:
        for path in FULL:
            (router.container.root / path[1:]).unlink()
        router.reboot()


def test_with_nothing_whole_on_its_disk_it_still_lets_somebody_in(started: Started) -> None:
    router = started.site.router
    assert "vm1" in router.read("/etc/hosts")
    kept = {path: path.read_bytes() for path in router.container.root.glob("etc/cloudstack/generations/*/meta.json")}
    for path, text in kept.items():
        path.write_bytes(text[: len(text) // 2])
    try:
        router.reboot()
        done = started.ssh("holdfast", "status")
        assert done.code == 4, said(done)
        assert "meta.json" in said(done)
        assert "vm1" not in router.read("/etc/hosts")
    finally:
        for path, text in kept.items():
            path.write_bytes(text)
        router.reboot()
    assert "vm1" in router.read("/etc/hosts")
