"""Health checks: what they make of what they see, and how the Java reader understands their results."""

import json
import os
import re
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path

import pytest

import java_reader
from holdfast import health
from holdfast.answers.get_router_monitor_results import results, says_words
from holdfast.health import FAILED, SUCCESS, UNKNOWN, WARNING, Asked, Outcome, Watched
from holdfast.scripts import health_checks, monitor_results
from holdfast.scripts.monitor_results import get_router_monitor_results

THRESHOLDS = "minDiskNeeded=100.0,maxCpuUsage=100.0,maxMemoryUsage=100.0;"
VMS = (
    "vmName=web1,macAddress=02:00:4C:5e:00:01,ip=10.1.1.11,dhcp=true,dns=true;"
    "vmName=db_1,macAddress=02:00:4c:5e:00:03,ip=10.1.1.13,dhcp=true,dns=true;"
    "vmName=raw,macAddress=02:00:4c:5e:00:04,ip=10.1.1.14,dhcp=false,dns=false;"
)
FORWARDS = (
    "sourceIp=203.0.113.12,sourcePortStart=2222,sourcePortEnd=2222,destIp=10.1.1.11,destPortStart=22,destPortEnd=22;"
    "sourceIp=203.0.113.12,sourcePortStart=5353,sourcePortEnd=5360,destIp=10.1.1.12,destPortStart=5353,destPortEnd=5360;"
)
SINGLE = [{"concat": ["203.0.113.12", "tcp", 2222]}, {"concat": ["10.1.1.11", 22]}]
RANGE = [{"concat": ["203.0.113.12", "udp", {"range": [5353, 5360]}]}, "10.1.1.12"]
MAPS = {"nftables": [{"map": {"elem": [SINGLE]}}, {"map": {"elem": [RANGE]}}, {"map": {"name": "empty"}}]}


def test_zero_of_anything_is_well() -> None:
    asked = Asked(data={"virtualMachines": "", "portForwarding": "", "haproxyData": "", "gateways": "gatewaysIps= "})

    for check in (
        health_checks.dhcp,
        health_checks.dns,
        health_checks.haproxy,
        health_checks.iptables,
        health_checks.gateways,
    ):
        found = check(asked, Path("/nonexistent"))
        assert found is not None
        assert found.success == SUCCESS, found


def test_each_vm_is_looked_for(tmp_path: Path) -> None:
    (tmp_path / "etc").mkdir()
    asked = Asked(data={"virtualMachines": VMS})
    (tmp_path / "etc/dhcphosts.txt").write_text("02:00:4c:5e:00:01,set:10_1_1_11,10.1.1.11,web1,infinite\n")
    (tmp_path / "etc/hosts").write_text("127.0.0.1\tlocalhost\n10.1.1.11\tweb1\n")

    assert health_checks.dhcp(asked, tmp_path) == Outcome(
        FAILED, "1 of 2 VMs in the DHCP server's list missing: db_1 02:00:4c:5e:00:03 10.1.1.13"
    )
    assert health_checks.dns(asked, tmp_path) == Outcome(SUCCESS, "all 1 VMs in the DNS server's list are there")
    (tmp_path / "etc/hosts").unlink()
    assert health_checks.dns(asked, tmp_path) == Outcome(
        FAILED, "1 of 1 VMs in the DNS server's list missing: web1 10.1.1.11"
    )


def test_each_port_forward_is_looked_for() -> None:
    wanted = health.forwards({"portForwarding": FORWARDS})

    assert health.unforwarded(MAPS, wanted) == []
    assert health.unforwarded({"nftables": []}, wanted) == [
        "203.0.113.12:2222 to 10.1.1.11",
        "203.0.113.12:5353 to 10.1.1.12",
    ]


def test_each_listener_is_looked_for() -> None:
    data = {
        "haproxyData": "sourceIp=203.0.113.13,sourcePortStart=80,protocol=tcp,vmIps=10.1.1.11 10.1.1.12;"
        "sourceIp=203.0.113.13,sourcePortStart=5514,protocol=udp;sourceIp=203.0.113.13,sourcePortStart=81,protocol=tcp;"
    }
    table = "# pxname,svname\n203_0_113_13-80,FRONTEND\n"

    assert health.unserved(table, health.listeners(data)) == ["203.0.113.13:81"]


def test_a_router_that_does_not_serve_asks_no_gateway() -> None:
    assert health_checks.gateways(Asked(serving=False, data={"gateways": "gatewaysIps=192.0.2.1 "}), Path("/")) is None


def test_thresholds() -> None:
    assert health.share("x", 90.04, 80).success == FAILED
    assert health.share("x", 90.04, None) == Outcome(SUCCESS, "x 90.0 %, no limit is set")
    assert health.room(99, 100) == Outcome(FAILED, "99 MB free, at least 100 MB are wanted")
    asked = Asked(data={"systemThresholds": THRESHOLDS})
    for check in (health_checks.cpu_usage, health_checks.memory_usage, health_checks.disk_space):
        assert (found := check(asked, Path("/"))) is not None
        assert found.success == SUCCESS


def test_another_template_is_a_warning_with_both_names(tmp_path: Path) -> None:
    (tmp_path / "etc").mkdir()
    (tmp_path / "etc/cloudstack-release").write_text("Cloudstack Release 4.22.0\n")
    said = "templateVersion=Cloudstack Release 4.22.1,scriptsVersion=d41d"

    found = health_checks.router_version(Asked(data={"routerVersion": said}), tmp_path)

    assert found is not None
    assert found.success == WARNING
    assert "4.22.0" in found.message
    assert "4.22.1" in found.message
    assert health_checks.router_version(Asked(data={}), tmp_path) is None


SHOW = "LoadState={}\nActiveState={}\nSubState=x\nNRestarts={}\nResult=exit-code\n"


@pytest.mark.parametrize(
    ("load", "active", "wanted", "success"),
    [
        ("loaded", "active", True, SUCCESS),
        ("loaded", "active", False, SUCCESS),
        ("loaded", "inactive", False, None),
        ("loaded", "inactive", True, FAILED),
        ("loaded", "activating", True, FAILED),
        ("masked", "inactive", True, FAILED),
        ("not-found", "inactive", False, None),
    ],
)
def test_a_service_is_what_systemd_says(
    load: str, active: str, wanted: bool, success: str | None, monkeypatch: pytest.MonkeyPatch  # noqa: FBT001 a parameter of the test
) -> None:  # fmt: skip
    monkeypatch.setattr(health_checks, "run", lambda _: SHOW.format(load, active, 3))

    found = health_checks.service(Watched("dhcp", "dnsmasq.service", wanted))

    assert (found.success if found else None) == success
    if found and active == "active":
        assert found.message.endswith("restarted 3 times by systemd")


# A run, and what is read of it.

Checks = dict[str, Callable[[Asked, Path], Outcome | None]]


@pytest.fixture
def router(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setattr("syslog.syslog", lambda *_: None)
    (tmp_path / "run/holdfast").mkdir(parents=True)
    ask(tmp_path, basic_min=3, advanced_min=10)
    return tmp_path


def ask(root: Path, **more: object) -> None:
    asked = {"watching": False, "checking": True, "services": [], "excluded": [], **more}
    (root / health.PLACE.lstrip("/")).write_text(json.dumps(asked))


def play(monkeypatch: pytest.MonkeyPatch, **checks: Callable[[Asked, Path], Outcome | None]) -> None:
    named = {f"{name}_check.py": check for name, check in checks.items()}
    monkeypatch.setattr(health_checks, "CHECKS", {"basic": named, "advanced": {}})


def read(root: Path, capsys: pytest.CaptureFixture[str], fresh: str) -> java_reader.Results:
    code = get_router_monitor_results([fresh], root)
    said = capsys.readouterr()
    return java_reader.monitor_results(code, said.out + said.err)


def broken(_asked: Asked, _root: Path) -> Outcome:
    raise KeyError("x")


def endless(_asked: Asked, _root: Path) -> Outcome:
    time.sleep(60)
    raise AssertionError


def test_results_are_read(router: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(monitor_results, "EACH_S", 0.05)
    play(
        monkeypatch,
        good=lambda _a, _r: Outcome(SUCCESS, "all\nis well"),
        bad=lambda _a, _r: Outcome(FAILED, 'FAILING, "quoted"'),
        none=lambda _a, _r: None,
        odd=broken,
        slow=endless,
    )
    found = read(router, capsys, "true")

    assert found.failing == ["bad_check.py"]
    seen = {check.name: (check.success, check.message) for check in found.checks}
    assert seen == {
        "good_check.py": (SUCCESS, "all is well"),
        "bad_check.py": (FAILED, 'FAILING, "quoted"'),
        "odd_check.py": (UNKNOWN, "could not be found out: KeyError: 'x'"),
        "slow_check.py": (UNKNOWN, "could not be found out: no result within 0 s"),
    }
    assert read(router, capsys, "false") == found  # as they are
    log = (router / "var/log/routerServiceMonitor.log").read_text()
    assert log.count("\n") == 1
    read(router, capsys, "true")
    assert (router / "var/log/routerServiceMonitor.log").read_text() == log  # told once
    play(monkeypatch, bad=lambda _a, _r: Outcome(SUCCESS, "1"))
    read(router, capsys, "true")
    assert (router / "var/log/routerServiceMonitor.log").read_text().endswith("bad_check.py: well again, 1\n")


def swallowing(_asked: Asked, _root: Path) -> Outcome:
    try:
        time.sleep(60)
    except OSError:
        time.sleep(60)
    raise AssertionError


def test_nothing_that_hangs_can_hold_a_run(
    router: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(monitor_results, "EACH_S", 0.4)
    monkeypatch.setattr(health_checks, "LOOK_S", 0.05)
    stuck = router / "stuck"
    stuck.mkdir()
    for name in ("ping", "nft", "systemctl"):
        (stuck / name).write_text("#!/bin/sh\ntrap '' TERM\nexec sleep 60\n")
        (stuck / name).chmod(0o755)
    monkeypatch.setenv("PATH", str(stuck), prepend=":")
    (router / "etc/holdfast").mkdir(parents=True)
    for name in ("etc/hosts", "etc/dhcphosts.txt", "etc/cloudstack-release", "etc/holdfast/template-version"):
        os.mkfifo(router / name)
    ask(
        router, basic_min=3, advanced_min=3, watching=True, services=[("dhcp", "dnsmasq.service", True)],
        data={
            "gateways": "gatewaysIps=192.0.2.1 192.0.2.2 ", "routerVersion": "templateVersion=x,scriptsVersion=y",
            "virtualMachines": "vmName=a,macAddress=02:00:00:00:00:01,ip=10.1.1.2,dhcp=true,dns=true;",
            "portForwarding": "sourceIp=192.0.2.9,sourcePortStart=80,destIp=10.1.1.2;",
        },
    )  # fmt: skip
    monkeypatch.setitem(health_checks.CHECKS["basic"], "swallowing_check.py", swallowing)
    before = sorted(path for path in router.rglob("*") if "run/holdfast" not in str(path))

    began = time.monotonic()
    found = read(router, capsys, "true")

    assert time.monotonic() - began < 12  # one box each for four of them
    seen = {check.name: (check.success, check.message) for check in found.checks}
    late = {f"{name}_check.py" for name in ("gateways", "iptables", "swallowing")} | {"dhcp.service"}
    assert {
        name for name, (success, text) in seen.items() if (success, "no result within" in text) == (UNKNOWN, True)
    } == late
    assert {seen[f"{name}_check.py"][0] for name in ("dhcp", "dns", "router_version")} == {UNKNOWN}
    assert seen["memory_usage_check.py"][0] == SUCCESS  # the others are told all the same
    assert sorted(path for path in router.rglob("*") if "run/holdfast" not in str(path)) == before


def test_before_any_run_there_are_no_results(router: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert read(router, capsys, "false") == ([], [])


def test_what_is_excluded_or_off_is_not_run(
    router: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    play(monkeypatch, bad=lambda _a, _r: Outcome(FAILED, "x"), good=lambda _a, _r: Outcome(SUCCESS, "x"))
    ask(router, basic_min=3, excluded=["bad_check.py"])
    assert [check.name for check in read(router, capsys, "true").checks] == ["good_check.py"]
    ask(router, basic_min=0)
    assert read(router, capsys, "true").checks == []
    ask(router, basic_min=3, checking=False)
    assert read(router, capsys, "true").failing == []


def test_the_timer_runs_what_is_due(router: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    ran = []

    def counted(_asked: Asked, _root: Path) -> Outcome:
        ran.append(1)
        return Outcome(SUCCESS, "x")

    play(monkeypatch, good=counted)

    assert monitor_results.health([], router) == 0
    assert monitor_results.health([], router) == 0
    assert len(ran) == 1
    held = json.loads((router / health.RESULTS).read_text())
    held["basic"]["lastRun"]["start"] = time.strftime("%Y-%m-%d %H:%M:%S", time.localtime(time.time() - 200))
    (router / health.RESULTS).write_text(json.dumps(held))
    monitor_results.health([], router)
    assert len(ran) == 2


def test_who_comes_second_waits_no_longer_than_it_may(
    router: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(monitor_results, "TURN_S", 0.1)
    play(monkeypatch, bad=lambda _a, _r: Outcome(FAILED, "x"))
    with monitor_results._turn(router, 0) as mine:  # noqa: SLF001 as another run would
        assert mine
        assert read(router, capsys, "true").checks == []


@pytest.mark.parametrize("argv", [[], ["yes"], ["true", "false"], ["true;id"], ["null"]])
def test_nothing_else_is_understood(argv: list[str], router: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert get_router_monitor_results(argv, router) == 2
    assert "usage" in capsys.readouterr().err


def test_what_the_agent_wrote_and_is_none_is_a_failure(router: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (router / health.PLACE.lstrip("/")).write_text("[1]")

    with pytest.raises(java_reader.Unreadable):
        read(router, capsys, "true")


def test_older_servers_read_true_and_false() -> None:
    held = {"basic": {"a": {"success": FAILED, "lastUpdate": "1", "lastRunDuration": "1", "message": ""}}}
    held["basic"]["b"] = {**held["basic"]["a"], "success": WARNING}

    found = java_reader.monitor_results(0, results(held, words=False))

    assert [(check.name, check.success) for check in found.checks] == [("a", "false"), ("b", "true")]
    assert found.failing == ["a"]
    assert [says_words(text) for text in ("Cloudstack Release 4.21.1 x", "Release 4.22.0", "5.0", "")] == [
        False, True, True, True,
    ]  # fmt: skip


def programs(router: Path, monkeypatch: pytest.MonkeyPatch, **texts: str) -> None:
    """Programs that a check would start, as scripts that come first in PATH."""
    (router / "bin").mkdir()
    for name, text in texts.items():
        (router / "bin" / name).write_text(f"#!/bin/sh\n{text}\n")
        (router / "bin" / name).chmod(0o755)
    monkeypatch.setenv("PATH", str(router / "bin"), prepend=":")


def test_gateways_are_asked_at_once_so_several_dead_ones_have_failed(
    router: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    programs(router, monkeypatch, ping='case "$*" in *192.0.2.1) exit 0;; esac; sleep 0.3; exit 1')
    addresses = " ".join(f"192.0.2.{number}" for number in range(1, 26))

    began = time.monotonic()
    found = health_checks.gateways(Asked(data={"gateways": f"gatewaysIps={addresses} "}), router)

    assert found is not None
    assert (found.success, found.message[:28]) == (FAILED, "24 of 25 gateways missing: 1")
    assert time.monotonic() - began < 9  # one after the other: 21.6


def test_sixty_four_dead_gateways_are_told_within_the_time_of_a_check(
    router: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    programs(router, monkeypatch, ping="sleep 1; exit 1")
    addresses = " ".join(f"192.0.2.{number}" for number in range(1, 65))
    ask(router, basic_min=3, data={"gateways": f"gatewaysIps={addresses} "})

    found = {check.name: (check.success, check.message) for check in read(router, capsys, "true").checks}

    assert found["gateways_check.py"][0] == FAILED
    assert found["gateways_check.py"][1].startswith("64 of 64 gateways missing: ")


def test_a_ping_that_does_not_end_says_nothing_of_a_gateway(
    router: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    programs(router, monkeypatch, ping="trap '' TERM; exec sleep 60")
    ask(router, basic_min=3, data={"gateways": "gatewaysIps=192.0.2.1 "})

    found = {check.name: (check.success, check.message) for check in read(router, capsys, "true").checks}

    assert found["gateways_check.py"][0] == UNKNOWN
    assert "ping does not end" in found["gateways_check.py"][1]


def test_the_unit_has_room_for_all_that_ask_at_once() -> None:
    unit = (Path(__file__).parents[1] / "system/holdfast-health.service").read_text()
    (most,) = re.findall(r"^TasksMax=(\d+)$", unit, re.MULTILINE)

    assert int(most) >= 2 * health_checks._AT_ONCE + 8  # noqa: SLF001 a thread and a program each, and whoever asks them


def _always(outcome: Outcome, _asked: Asked, _root: Path) -> Outcome:
    return outcome


def test_what_cannot_be_found_out_is_not_well_again(
    router: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    said = [Outcome(word, "x") for word in (FAILED, UNKNOWN, UNKNOWN, FAILED, UNKNOWN, WARNING, UNKNOWN, SUCCESS)]
    told = []
    for outcome in said:
        play(monkeypatch, one=partial(_always, outcome))
        found = read(router, capsys, "true")
        assert [check.success for check in found.checks] == [outcome.success]
        told.append(len((router / "var/log/routerServiceMonitor.log").read_text().splitlines()))

    assert told == [1, 1, 1, 1, 1, 2, 2, 2]
    play(monkeypatch, one=lambda _a, _r: Outcome(UNKNOWN, "x"))
    assert get_router_monitor_results(["true"], router) == 0
    assert '"before"' not in capsys.readouterr().out


@pytest.mark.parametrize("dead", [FileNotFoundError(), ConnectionRefusedError()])
def test_a_dead_haproxy_has_failed_and_a_silent_one_is_not_known(
    dead: OSError, monkeypatch: pytest.MonkeyPatch
) -> None:
    raised: list[OSError] = [dead, TimeoutError()]

    def ask(_: str) -> str:
        raise raised.pop(0)

    monkeypatch.setattr("holdfast.haproxy_stats.ask", ask)
    asked = Asked(data={"haproxyData": "sourceIp=203.0.113.13,sourcePortStart=80,protocol=tcp;"})
    found = health_checks.haproxy(asked, Path("/"))
    assert found == Outcome(FAILED, "haproxy does not run, and is to have 1 listeners")
    with pytest.raises(TimeoutError):
        health_checks.haproxy(asked, Path("/"))


def test_a_firewall_without_its_table_has_failed(router: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    programs(router, monkeypatch, nft='echo "Error: ${NFT:-No such file or directory}" >&2; exit 1')
    asked = Asked(data={"portForwarding": FORWARDS})

    found = health_checks.iptables(asked, router)

    assert found is not None
    assert (found.success, "No such file" in found.message) == (FAILED, True)
    monkeypatch.setenv("NFT", "Operation not permitted")
    with pytest.raises(OSError, match="not permitted"):
        health_checks.iptables(asked, router)
