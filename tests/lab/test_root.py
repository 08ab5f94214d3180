"""A router built beside the machine: its files under a directory, its network in a namespace."""

import json
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

pytestmark = pytest.mark.lab

NAMESPACE = f"hfroot-{os.getpid()}"
LINE = (
    "type=router name=r-1-VM eth0ip=10.1.1.1 eth0mask=255.255.255.0 eth1ip=169.254.10.2 eth1mask=255.255.0.0 "
    "eth2ip=203.0.113.10 eth2mask=255.255.255.0 gateway=203.0.113.1 dns1=192.0.2.53"
)


def run(*argv: str) -> str:
    return subprocess.run(argv, check=True, capture_output=True, text=True, timeout=60).stdout


def machine() -> tuple[str, ...]:
    """What the machine's own network looks like."""
    nft = run("nft", "list", "tables")
    return run("ip", "-o", "addr"), run("ip", "route", "show", "table", "all"), run("ip", "rule"), nft


@pytest.fixture
def namespace() -> Iterator[str]:
    run("ip", "netns", "add", NAMESPACE)
    try:
        for number in range(3):
            run("ip", "-n", NAMESPACE, "link", "add", f"eth{number}", "type", "veth", "peer", "name", f"peer{number}")
        yield NAMESPACE
    finally:
        run("ip", "netns", "del", NAMESPACE)


def holdfast(*argv: str, code: int = 0) -> str:
    done = subprocess.run(
        [sys.executable, "-c", "import sys; from holdfast.cli import main; sys.exit(main())", *argv],
        capture_output=True, text=True, timeout=60, check=False, env={**os.environ, "PYTHONPATH": "src"},
        cwd=Path(__file__).parents[2],
    )  # fmt: skip
    assert done.returncode == code, done.stdout + done.stderr
    return done.stdout + done.stderr


def test_a_router_is_built_without_touching_the_machine(tmp_path: Path, namespace: str) -> None:
    before = machine()
    line = tmp_path / "line"
    line.write_text(LINE)
    where = ["--root", str(tmp_path / "r"), "--netns", namespace]

    holdfast("boot", *where, "--line", str(line))

    assert "203.0.113.10/24" in run("ip", "-n", namespace, "-o", "addr")
    assert "inet holdfast" in run("ip", "netns", "exec", namespace, "nft", "list", "tables")
    assert (tmp_path / "r/etc/hosts").read_text().startswith("127.0.0.1")
    plan = json.loads(holdfast("plan", *where, "--json"))
    assert plan["changes"] == []
    assert "service dnsmasq.service waits for systemd" in plan["pending"]
    assert machine() == before


def test_apply_plan_history_show_diff_and_rollback(tmp_path: Path, namespace: str) -> None:
    line, message = tmp_path / "line", tmp_path / "vm_dhcp_entry.json"
    line.write_text(LINE)
    message.write_text(
        '{"host_name":"vm1","mac_address":"02:00:00:00:00:09","ipv4_address":"10.1.1.9","default_entry":true,'
        '"default_gateway":"10.1.1.1","remove":false,"type":"dhcpentry"}'
    )
    where = ["--root", str(tmp_path / "r"), "--netns", namespace]
    holdfast("boot", *where, "--line", str(line))

    planned = holdfast("plan", *where, str(message))
    assert "/etc/dhcphosts.txt" in planned
    assert "vm1" not in (tmp_path / "r/etc/dhcphosts.txt").read_text()

    assert "generation 2" in holdfast("apply", *where, str(message))
    assert "02:00:00:00:00:09,10.1.1.9,vm1,infinite" in (tmp_path / "r/etc/dhcphosts.txt").read_text()
    assert [int(text.split()[0]) for text in holdfast("history", *where).splitlines()] == [2, 1]
    assert "vm1" in holdfast("show", *where, "2")
    assert '+      "name": "vm1"' in holdfast("diff", *where, "1", "2")

    holdfast("rollback", *where, "1")

    assert "vm1" not in (tmp_path / "r/etc/dhcphosts.txt").read_text()
    assert "everything is as wanted" not in holdfast("status", *where)  # services wait for systemd
    assert len(holdfast("history", *where).splitlines()) == 3


def test_a_directory_alone_is_refused(tmp_path: Path) -> None:
    before = machine()

    assert "--root needs --netns" in holdfast("plan", "--root", str(tmp_path), code=2)

    assert machine() == before


def test_what_is_not_there_is_refused_by_name(tmp_path: Path, namespace: str) -> None:
    where = ["--root", str(tmp_path / "r"), "--netns", namespace]

    assert "no such file: nowhere.json" in holdfast("apply", *where, "nowhere.json", code=2)
    for verb in ("show", "rollback"):
        assert "there is no generation 7" in holdfast(verb, *where, "7", code=2)
