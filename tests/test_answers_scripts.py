"""Each script's real output, as the Java reader understands it: the good, the empty and the failing case."""

import json
import os
import subprocess
import sys
import zipfile
from collections.abc import Callable
from pathlib import Path

import pytest

import java_reader
from holdfast import alerts
from holdfast.answers.diagnostics import command, parts
from holdfast.answers.get_diagnostics_files import may_read, wanted
from holdfast.answers.get_router_alerts import alerts as told
from holdfast.answers.get_template_version import versions
from holdfast.scripts import cks_iso, diagnostics, files, router_alerts, small, version

RELEASE = "Cloudstack Release 4.22.0 Fri Oct 24 10:11:12 UTC 2025"
MD5 = "d41d8cd98f00b204e9800998ecf8427e"

Ran = tuple[int, str]
Run = Callable[..., Ran]


@pytest.fixture
def run(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> Run:
    """Call a script's function; exit status, and what reaches the server: both streams together."""
    monkeypatch.setattr("syslog.syslog", lambda *_: None)

    def ran(script: Callable[..., int], argv: list[str], *more: object) -> Ran:
        code = script(argv, *more)
        said = capsys.readouterr()
        return code, said.out + said.err

    return ran


# get_template_version.sh


@pytest.fixture
def router(tmp_path: Path) -> Path:
    """A router's files, as far as these scripts look."""
    for name in ("etc/holdfast", "var/cache/cloud", "var/log", "root", "run/holdfast"):
        (tmp_path / name).mkdir(parents=True)
    (tmp_path / "etc/cloudstack-release").write_text(f"{RELEASE}\n")
    (tmp_path / "var/cache/cloud/cloud-scripts-signature").write_text(f"{MD5}\n")
    (tmp_path / "var/cache/cloud/boot_up_done").touch()
    return tmp_path


def test_the_version_is_two_words(router: Path, run: Run) -> None:
    for argv in ([], ["null"]):
        assert java_reader.version(*run(version.get_template_version, argv, router)) == (RELEASE, f"{MD5}\n")


def test_a_setting_is_told_instead(router: Path, run: Run) -> None:
    (router / "etc/holdfast/template-version").write_text("Cloudstack Release 4.20.0\n# not this\n")
    (router / "var/cache/cloud/cloud-scripts-signature").unlink()

    template, scripts = java_reader.version(*run(version.get_template_version, [], router))

    assert template == "Cloudstack Release 4.20.0"
    assert scripts.startswith("holdfast-")


def test_without_a_release_the_question_fails(router: Path, run: Run) -> None:
    (router / "etc/cloudstack-release").unlink()

    with pytest.raises(java_reader.Unreadable):
        java_reader.version(*run(version.get_template_version, [], router))


def test_a_router_that_is_not_up_says_so_in_time(router: Path, run: Run) -> None:
    (router / "var/cache/cloud/boot_up_done").unlink()

    code, text = run(version.get_template_version, [], router, 0.1)

    assert (code, text) == (1, "error: the router is not up after 0 s\n")


@pytest.mark.parametrize("word", ["a&b", "a & b\n", "a\nb"])
def test_no_word_adds_another(word: str) -> None:
    assert java_reader.version(0, versions(word, word)) == ("a b", "a b\n")


# getRouterAlerts.sh


def log(*lines: str) -> list[str]:
    return [f"2026-03-01 10:00:{line}" for line in lines]


def test_alerts_are_read_oldest_first_and_the_last_second_is_remembered() -> None:
    text = told(log("01,000 a", "02,500 b, with a comma", "02,900 c"), "2026-03-01 10:00:00", "2026-03-01 10:00:09")

    found = java_reader.alerts(0, f"{text}\n")

    assert [alert[24:] for alert in found.texts] == ["a", "b, with a comma", "c"]
    assert found.last == "2026-03-01 10:00:02"
    assert java_reader.alerts(0, told(log("02,900 c"), found.last, "2026-03-01 10:00:09")) == ([], "")


def test_an_alert_of_the_present_second_waits() -> None:
    lines = log("01,000 a", "02,000 b")

    assert told(lines, "1970-01-01 00:00:00", "2026-03-01 10:00:02") == lines[0]
    assert told([*lines, *log("02,900 c")], lines[0][:19], "2026-03-01 10:00:03") == "\\n".join(
        [
            lines[1],
            *log("02,900 c"),
        ]
    )


def test_no_text_can_make_two_alerts_or_no_time_of_one() -> None:
    text = told([*log("01,000 a\\nb\\n", "02,000 \\n"), "no time", "", "2026-03-01"], "", "2027-01-01 00:00:00")

    assert len(java_reader.alerts(0, text).texts) == 2


def test_of_a_long_log_the_newest_is_told() -> None:
    lines = [f"2026-03-01 {n // 3600:02}:{n // 60 % 60:02}:{n % 60:02},000 {'x' * 90}" for n in range(9000)]

    text = told(lines, "", "2027-01-01 00:00:00")

    assert len(text) <= 64 * 1024
    assert java_reader.alerts(0, text).last == lines[-1][:19]


def test_the_script_reads_both_halves_of_the_log(router: Path, run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(alerts, "LARGEST", 200)
    monkeypatch.setattr("time.time", lambda: 1_700_000_000.25)
    for number in range(12):
        alerts.alert(router, [f"number {number}: {'y' * 30}"])
    logs = [router / f"var/log/routerServiceMonitor.log{end}" for end in (".1", "")]

    found = java_reader.alerts(*run(router_alerts.get_router_alerts, ["1970-01-01", "00:00:00"], router))

    assert [path.exists() for path in logs] == [True, True]
    assert sum(path.stat().st_size for path in logs) < 700  # it is bounded
    assert found.texts[-1].endswith(f"number 11: {'y' * 30}")
    assert java_reader.alerts(*run(router_alerts.get_router_alerts, found.last.split(), router)).texts == []


def test_a_router_without_alerts_says_so(router: Path, run: Run) -> None:
    assert run(router_alerts.get_router_alerts, ["1970-01-01", "00:00:00"], router) == (0, "No Alerts\n")


@pytest.mark.parametrize("argv", [["x"], ["1970-01-01"], ["1970-01-01", "00:00:00;id"], ["-h"]])
def test_no_other_time_is_understood(argv: list[str], router: Path, run: Run) -> None:
    assert run(router_alerts.get_router_alerts, argv, router)[0] == 2


# filesystem_writable_check.py


def test_a_disk_that_can_be_written_to(router: Path, run: Run) -> None:
    assert run(files.filesystem_writable_check, ["null"], router) == (0, "")
    assert list((router / "root").iterdir()) == []


def test_a_disk_that_cannot(router: Path, run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    def refused(*_: object) -> int:
        raise OSError(30, "Read-only file system")

    monkeypatch.setattr("os.open", refused)

    assert java_reader.file_system(*run(files.filesystem_writable_check, [], router)) == "Read-only file system"


# diagnostics.py


@pytest.mark.parametrize(
    ("words", "program"),
    [
        ("ping 8.8.8.8 -c 3", "ping -c 3 8.8.8.8"),
        ("ping 8.8.8.8", "ping -c 4 8.8.8.8"),
        ("ping6 2001:db8::1", "ping -6 -c 4 2001:db8::1"),
        ("traceroute 8.8.8.8 -m 10", "traceroute -m 10 8.8.8.8"),
        ("traceroute6 host.example", "traceroute -6 -m 20 host.example"),
        ("arping 10.1.1.11 -I eth0 -c 2", "arping -I eth0 -c 2 10.1.1.11"),
        ("ping fe80::1%eth0 -s 1400 -M do", "ping -c 4 -s 1400 -M do fe80::1%eth0"),
    ],
)
def test_what_an_operator_asks_is_run(words: str, program: str) -> None:
    assert " ".join(command(words.split())) == program


@pytest.mark.parametrize(
    "words",
    [
        "", "sh -c id", "ping", "ping -f 8.8.8.8", "ping 8.8.8.8 -c 100000", "ping 8.8.8.8 ;id", "ping $(id)",
        "ping 8.8.8.8 -c", "ping 8.8.8.8 -c -1", "ping -I ../../x 8.8.8.8", "ping 8.8.8.8 9.9.9.9",
        "arping -U 10.1.1.1",
        "ping `id`", "ping -p ff 8.8.8.8", "traceroute 8.8.8.8 --help", "ping 8.8.8.8 -c ٣", "ping -- -f",
        "ping 8.8.8.8 -W 1e9", "/bin/ping 8.8.8.8", "ping -8.8.8.8", "ping --flood 8.8.8.8", "ping 8.8.8.8\x00-f",
        "ping -c3 8.8.8.8", "traceroute -i;id 8.8.8.8", "arping -I eth0/../x 10.1.1.1", "null",
    ],
)  # fmt: skip
def test_nothing_else_is_run_and_the_reader_is_told(words: str, run: Run) -> None:
    out, errors, code = java_reader.diagnostics(*run(diagnostics.diagnostics, words.split()))

    assert (out, code) == ("", "2")
    assert errors.startswith("refused: ")


def test_three_parts_whatever_is_printed() -> None:
    assert java_reader.diagnostics(0, parts("a && b\n", "c&&d", 1)) == ("a & & b", "c& &d", "1")
    assert java_reader.diagnostics(0, parts("", "", 0)) == ("", "", "0")


def test_a_program_that_is_not_there_is_told(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", "/nonexistent")

    found = java_reader.diagnostics(*run(diagnostics.diagnostics, ["traceroute", "192.0.2.1"]))

    assert found == ("", "traceroute is not installed on this router", "127")


# get_diagnostics_files.py and cleanup.sh

ASKED = [
    "iptables", "ipaddr", "iprule", "iproute", "/etc/cloudstack-release", "/etc/dnsmasq.conf", "[/bin/id", "-u]",
    "/etc/haproxy/haproxy.cfg", "/var/log/routerServiceMonitor.log", "/etc/shadow", "/etc/cloudstack/vmpassword.json",
    "/root/.ssh/id_rsa", "/var/log/../../etc/shadow", "/var/log/link", "/etc/ipsec.d/ipsec.vpn-1.secrets",
]  # fmt: skip


def test_what_is_asked_for_is_collected_and_secrets_are_not(router: Path, run: Run) -> None:
    (router / "etc/haproxy").mkdir()
    (router / "etc/haproxy/haproxy.cfg").write_text("listen stats\n\tstats auth admin1:AdMiN123\n\tmode http\n")
    (router / "etc/shadow").write_text("root:hash\n")
    (router / "var/log/link").symlink_to(router / "etc/shadow")
    (router / "var/log/routerServiceMonitor.log").write_text("2026-03-01 10:00:00,000 a\n")

    path = java_reader.archive(*run(files.get_diagnostics_files, ASKED, router))

    place = router / path.lstrip("/")
    assert place.stat().st_mode & 0o777 == 0o600
    with zipfile.ZipFile(place) as archive:
        names = set(archive.namelist())
        held = b"".join(archive.read(name) for name in names)
        info = archive.read("fileinfo.txt").decode()
    assert names == {
        "iptables.txt", "ipaddr.txt", "iprule.txt", "iproute.txt", "fileinfo.txt", "etc/cloudstack-release",
        "etc/haproxy/haproxy.cfg", "var/log/routerServiceMonitor.log",
    }  # fmt: skip
    assert b"root:hash" not in held
    assert b"AdMiN123" not in held
    assert b"stats auth admin1:(secret)" in held
    assert info.count("refused") == 8
    assert "/etc/dnsmasq.conf: No such file or directory" in info

    assert run(files.cleanup, [path], router) == (0, "")
    assert not place.exists()
    assert run(files.cleanup, [path], router) == (0, "")


def test_archives_do_not_pile_up(router: Path, run: Run) -> None:
    for _ in range(6):
        java_reader.archive(*run(files.get_diagnostics_files, ["/etc/cloudstack-release"], router))

    assert len(list((router / "root").iterdir())) == 3


def test_a_full_disk_is_told(router: Path, run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    full = os.statvfs_result((4096, 4096, 0, 0, 0, 0, 0, 0, 0, 255))
    monkeypatch.setattr("os.statvfs", lambda _: full)

    with pytest.raises(java_reader.Unreadable, match="too little room"):
        java_reader.archive(*run(files.get_diagnostics_files, [], router))


@pytest.mark.parametrize(
    "path",
    [
        "/etc/passwd", "/root/diagnostics_files_1.zip", "/root/../etc/diagnostics_files_20250101.zip", "", "-rf",
        "/root/diagnostics_files_20250101.zip;id", "/root/diagnostics_files_20250101.zip\n",
        "/root/x/diagnostics_files_20250101.zip",
    ],
)  # fmt: skip
def test_nothing_else_is_removed(path: str, router: Path, run: Run) -> None:
    assert run(files.cleanup, [path], router)[0] == 2


def test_of_a_link_the_link_is_removed(router: Path, run: Run) -> None:
    (router / "etc/passwd").write_text("x")
    link = router / "root/diagnostics_files_20250101101112.zip"
    link.symlink_to(router / "etc/passwd")

    assert run(files.cleanup, [f"/root/{link.name}"], router) == (0, "")
    assert (link.is_symlink(), (router / "etc/passwd").read_text()) == (False, "x")


@pytest.mark.parametrize(
    "word",
    [
        "-rf", "--help", "-", "/", "", "/etc", "/etc/cloudstack-release/", "/etc//cloudstack-release", "/var/log/../x",
        "etc/hosts", "/etc/../etc/shadow", "/proc/1/environ", "/var/log/journal/x", "/var/log/cloud.log\n/etc/shadow",
        "/var/log/-x", "/var/log/a b", "[ls", "/root/.ssh/authorized_keys", "/etc/haproxy/../shadow", "/var/log/x;id",
    ],
)  # fmt: skip
def test_no_other_file_goes_out(word: str, router: Path, run: Run) -> None:
    path = java_reader.archive(*run(files.get_diagnostics_files, ["/etc/cloudstack-release", word], router))

    with zipfile.ZipFile(router / path.lstrip("/")) as archive:
        assert sorted(archive.namelist()) == ["etc/cloudstack-release", "fileinfo.txt"]
        told = archive.read("fileinfo.txt").decode().splitlines()
    assert len(told) == (2 if word else 1)


def test_neither_links_nor_pipes_nor_what_is_endless_go_out(router: Path, run: Run) -> None:
    (router / "etc/shadow").write_text("root:hash\n")
    (router / "var/log/dir").symlink_to(router / "etc")
    (router / "var/log/zero").symlink_to("/dev/zero")
    (router / "var/log/ring").symlink_to(router / "var/log/ring")
    os.mkfifo(router / "var/log/pipe")
    (router / "var/log/big.log").write_bytes(b"x" * (files.LONGEST + 5) + b"end")

    words = [f"/var/log/{name}" for name in ("dir/shadow", "zero", "ring", "pipe", "big.log", "none")]
    path = java_reader.archive(*run(files.get_diagnostics_files, words, router))

    with zipfile.ZipFile(router / path.lstrip("/")) as archive:
        assert sorted(archive.namelist()) == ["fileinfo.txt", "var/log/big.log"]
        text = archive.read("var/log/big.log")
    assert (len(text), text[-3:]) == (files.LONGEST, b"end")


def test_what_should_be_a_file_and_is_a_pipe_holds_nobody(router: Path, run: Run) -> None:
    for name in ("etc/cloudstack-release", "var/log/routerServiceMonitor.log"):
        (router / name).unlink(missing_ok=True)
        os.mkfifo(router / name)

    with pytest.raises(java_reader.Unreadable):
        java_reader.version(*run(version.get_template_version, [], router))
    with pytest.raises(java_reader.Unreadable, match="not a file"):
        java_reader.alerts(*run(router_alerts.get_router_alerts, [], router))


def test_a_program_that_does_not_end_is_stopped(run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "ping").write_text("#!/bin/sh\necho begun\nexec sleep 60\n")  # as where a name is asked for in vain
    (tmp_path / "ping").chmod(0o755)
    monkeypatch.setenv("PATH", str(tmp_path), prepend=":")
    monkeypatch.setattr(diagnostics, "LONGEST_S", 0.3)

    found = java_reader.diagnostics(*run(diagnostics.diagnostics, ["ping", "host.example"]))

    assert found == ("begun", "stopped after 0 s", "124")


def test_the_recorded_default_list_is_allowed() -> None:
    asked = [
        "iptables", "ipaddr", "iprule", "iproute", "/etc/cloudstack-release", "/etc/dnsmasq.conf", "/etc/dhcphosts.txt",
        "/etc/dhcpopts.txt", "/etc/dnsmasq.d/cloud.conf", "/etc/dnsmasq-resolv.conf", "/var/lib/misc/dnsmasq.leases",
        "/var/log/dnsmasq.log", "/etc/hosts", "/etc/resolv.conf", "/etc/haproxy/haproxy.cfg", "/var/log/haproxy.log",
        "/etc/ipsec.d/l2tp.conf", "/var/log/cloud.log", "/var/log/routerServiceMonitor.log", "/var/log/daemon.log",
    ]  # fmt: skip

    assert wanted(asked).refused == []
    assert not any(may_read(path) for path in ("/var/log/", "/var/log/private/x", "/var/log/a/b/c", "/var/log/.x"))


# The rest


def test_what_means_nothing_does_nothing(run: Run) -> None:
    assert run(small.bumpup_priority, []) == (0, "")
    assert run(small.bumpup_priority, ["null"]) == (0, "")


def test_what_cannot_be_is_refused_in_words(run: Run) -> None:
    for script in (small.prepare_pxe, small.baremetal_snat):
        code, text = run(script, ["a", "b"])
        assert code == 1
        assert "baremetal" in text
    for script, word in ((small.monitor_service, "systemd"), (small.setup_tf_route, "TFTP")):
        code, text = run(script, ["a", "b"])
        assert (code, word in text) == (1, True)


def test_a_router_without_a_drive_serves_no_iso(run: Run, router: Path) -> None:
    code, text = run(cks_iso.cks_iso, ["true"], router)
    assert (code, "there is no drive" in text) == (1, True)
    (router / "dev").mkdir()
    (router / "dev/cdrom").write_bytes(b"a file is no drive")
    assert run(cks_iso.cks_iso, ["true"], router) == (code, text)
    assert run(cks_iso.cks_iso, ["false"], router) == (0, "")
    assert run(cks_iso.cks_iso, ["false"], router) == (0, "")
    assert run(cks_iso.cks_iso, ["maybe"], router)[0] == 2
    assert run(cks_iso.cks_iso, ["true", "false"], router)[0] == 2


def test_scripts_that_are_there_are_named(run: Run, router: Path) -> None:
    (router / "opt/cloud/bin").mkdir(parents=True)
    (router / "opt/cloud/bin/keystore-setup").touch()

    here, gone = "/opt/cloud/bin/keystore-setup", "/opt/cloud/bin/keystore*"
    assert run(small.patched, [here], router) == (0, f"{here}\n")
    assert run(small.patched, ["/opt/cloud/bin/keystore-cert-import"], router) == (2, "")
    assert run(small.patched, [gone], router)[0] == 2
    assert run(small.patched, ["/etc/shadow"], router)[0] == 2


SHIMS = sorted((Path(__file__).parents[1] / "system/bin").glob("*"))


@pytest.mark.parametrize("shim", SHIMS, ids=lambda path: path.name)
def test_every_shim_starts_what_there_is_and_what_it_answers_is_noted(shim: Path) -> None:
    lines = dict(line.split(" import ")[::-1] for line in shim.read_text().splitlines() if line.startswith("from "))
    noted = lines.pop("called", "") == "from holdfast.calls"
    ((function, source),) = lines.items()
    module = source.removeprefix("from ")
    call = shim.read_text().splitlines()[-1]

    assert shim.stat().st_mode & 0o111
    assert callable(getattr(__import__(module, fromlist=[function]), function))
    if noted:
        assert call == f'sys.exit(called("{shim.name}", {function}, sys.argv[1:]))'
    else:
        assert module == "holdfast.client"  # the agent notes what it does, see `holdfast.cli`
        assert call in (f'sys.exit(main("{shim.name}", sys.argv[1:]))', "sys.exit(holdfast(sys.argv[1:]))")


@pytest.mark.parametrize(
    "name", ["netusage", "version", "router_alerts", "files", "small", "diagnostics", "monitor_results"]
)
def test_scripts_that_are_asked_often_import_little(name: str) -> None:
    source = Path(__file__).parents[1] / "src"
    program = (
        f"import sys; sys.path.insert(0, {str(source)!r}); import holdfast.scripts.{name}, json; "
        "print(json.dumps(sorted(sys.modules)))"
    )
    done = subprocess.run([sys.executable, "-IS", "-c", program], capture_output=True, text=True, check=True)

    assert {"msgspec", "argparse", "zipfile", "asyncio"} & set(json.loads(done.stdout)) == set()
