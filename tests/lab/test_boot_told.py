"""What else the boot line tells a router that starts: the console's password, and whom to ask for the time."""

from collections.abc import Iterator

import pytest
from replay import BOOT_LINE, HOLDFAST, Site, said, site

from holdfast.boot.line import command
from holdfast.login import hashed

pytestmark = [pytest.mark.lab, pytest.mark.appliance]

WORD, NEXT = "Zk4n0tShown", "q7KdLm2xT9"
LINE = f"{BOOT_LINE.strip()} vmpassword={WORD} ntpserverlist=192.0.2.123,time.example\n"
# The daemon itself refuses to run in a container, whose clock is everybody's.
CLOCK = "[Service]\nType=exec\nExecStart=/bin/sleep infinity\n"


@pytest.fixture(scope="module")
def told() -> Iterator[Site]:
    with site("told") as made:
        made.router.write("/var/cache/cloud/cmdline", LINE, mode=0o666)
        made.router.write("/etc/systemd/system/systemd-timesyncd.service", CLOCK)
        made.router.boot()
        yield made


def held(made: Site) -> str:
    """Root's field of the shadow file."""
    lines = made.router.read("/etc/shadow").splitlines()
    return next(line.split(":")[1] for line in lines if line.startswith("root:"))


def test_the_password_opens_the_console_and_is_shown_nowhere(told: Site) -> None:
    router = told.router
    assert held(told) == hashed(WORD, "r-10-VM")
    assert told.plan()["changes"] == []

    router.shell(["chpasswd"], stdin=b"root:somebody else's")
    assert held(told) != hashed(WORD, "r-10-VM")
    shown = [router.shell([HOLDFAST, *words]) for words in (["plan"], ["plan", "--json"], ["converge"], ["status"])]
    shown += [router.shell([HOLDFAST, "history"]), router.shell([HOLDFAST, "show", "1"])]

    assert "~ password of root  [cmdline/vmpassword]" in shown[0].text
    assert "~ password of root  [cmdline/vmpassword]" in shown[2].text, said(shown[2])
    assert held(told) == hashed(WORD, "r-10-VM")
    journal = router.journal(1000)
    for text in (*(done.text + done.errors for done in shown), journal):
        assert WORD not in text
        assert "$6$" not in text
    assert WORD.encode() not in told.path("/etc/cloudstack/cmdline.json").read_bytes()
    assert router.shell(["stat", "-Lc", "%a", "/etc/cloudstack/cmdline.json", "/etc/shadow"]).text == "400\n640\n"


def test_another_line_brings_another_password(told: Site) -> None:
    done = told.router.command("cmd_line.json", command(LINE.replace(WORD, NEXT)))
    assert done.code == 0, said(done)
    assert held(told) == hashed(NEXT, "r-10-VM")
    assert told.plan()["changes"] == []
    assert told.router.command("cmd_line.json", command(LINE)).code == 0


def test_time_is_asked_for_where_the_line_says(told: Site) -> None:
    router = told.router
    merged = router.shell(["systemd-analyze", "cat-config", "systemd/timesyncd.conf"]).text

    assert merged.endswith("\n[Time]\nNTP=192.0.2.123 time.example\n")
    assert router.active("systemd-timesyncd.service")
    first = router.shell(["systemctl", "show", "-P", "InvocationID", "systemd-timesyncd.service"]).text
    done = router.command("cmd_line.json", command(LINE.replace(",time.example", "")))
    assert done.code == 0, said(done)
    assert router.active("systemd-timesyncd.service")
    assert router.shell(["systemctl", "show", "-P", "InvocationID", "systemd-timesyncd.service"]).text != first


def test_without_an_agent_a_change_of_role_is_carried_out_all_the_same(told: Site) -> None:
    """Within the bounds of its own unit: whatever a role can move is put right there."""
    router = told.router
    router.shell(["systemctl", "stop", "holdfast-agent.service", "holdfast-role.path"])
    for words in (
        "ip address delete 203.0.113.10/24 dev eth2", "ip link set eth0 down", "sysctl -qw net.ipv4.ip_forward=0",
        "nft delete table inet holdfast", "systemctl stop ssh.service", "rm /etc/resolv.conf",
    ):  # fmt: skip
        done = router.shell(words.split())
        assert done.code == 0, said(done)
    assert told.plan()["changes"] != []
    router.shell(["touch", "/run/holdfast/role.moved"])

    done = router.shell(["systemctl", "start", "holdfast-role.service"])

    assert done.code == 0, said(done)
    assert told.plan()["changes"] == []
    assert router.active("ssh.service")
    assert router.shell(["systemctl", "start", "holdfast-agent.service", "holdfast-role.path"]).code == 0
