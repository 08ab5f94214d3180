"""What is asked and answered is noted: bounded, without secrets, for root alone, and at no script's expense."""

import errno
import os
import stat
import sys
import syslog
from collections.abc import Callable
from pathlib import Path

import pytest

import java_reader
from holdfast import calls, past
from holdfast.calls import LARGEST, LOG, LONGEST, called, shown
from holdfast.cli import COMMANDS
from holdfast.generation import Meta
from holdfast.scripts import small

KEY = "-----BEGIN~PRIVATE~KEY-----^MIIE~example^-----END~PRIVATE~KEY-----^"
HOME = "/usr/local/cloud/systemvm/conf"


@pytest.fixture
def journal(monkeypatch: pytest.MonkeyPatch) -> list[tuple[int, str]]:
    said: list[tuple[int, str]] = []
    monkeypatch.setattr("syslog.syslog", lambda level, text: said.append((level, text)))
    return said


@pytest.fixture
def root(tmp_path: Path, journal: list[tuple[int, str]]) -> Path:
    (tmp_path / "var/log").mkdir(parents=True)
    assert journal == []
    return tmp_path


def answering(text: str, code: int = 0, errors: str = "") -> Callable[[list[str]], int]:
    def script(_argv: list[str]) -> int:
        sys.stdout.write(text)
        sys.stderr.write(errors)
        return code

    return script


def test_an_answer_is_printed_and_noted(
    root: Path, journal: list[tuple[int, str]], capsys: pytest.CaptureFixture[str]
) -> None:
    assert called("netusage.sh", answering("12:34:"), ["-g"], str(root)) == 0
    assert called("x.sh", answering("a\n", 3, "error: b\n"), [], str(root)) == 3

    said = capsys.readouterr()
    assert (said.out, said.err) == ("12:34:a\n", "error: b\n")
    assert journal == [
        (syslog.LOG_INFO, "holdfast: netusage.sh -g: exit 0: 12:34:"),
        (syslog.LOG_WARNING, "holdfast: x.sh: exit 3: a; error: b"),
    ]
    found = list(past.calls(root))
    assert [(call.words, call.code, call.answer) for call in found] == [
        ("netusage.sh -g", 0, "12:34:"),
        ("x.sh", 3, "a; error: b"),
    ]
    assert 0 <= found[0].seconds < 60
    assert stat.S_IMODE((root / LOG).stat().st_mode) == 0o600


def test_what_is_raised_goes_on_and_is_noted(root: Path) -> None:
    out = sys.stdout

    def bug(_argv: list[str]) -> int:
        raise KeyError("x")

    def usage(_argv: list[str]) -> int:
        sys.exit(2)

    with pytest.raises(KeyError):
        called("x.sh", bug, [], str(root))
    with pytest.raises(SystemExit):
        called("y.sh", usage, [], str(root))

    assert [(call.code, call.answer) for call in past.calls(root)] == [(1, "KeyError: 'x'"), (2, "")]
    assert sys.stdout is out


@pytest.mark.parametrize(
    ("script", "argv", "secrets"),
    [
        ("savepassword.sh", ["-v", "10.1.1.1", "-p", "s3cret"], ["s3cret"]),
        ("savepassword.sh", ["-p", "10.9.9.9", "-v", "10.1.1.1"], ["10.9.9.9"]),
        ("savepassword.sh", ["-ps3cret", "s3cret", "--p=s3cret"], ["s3cret"]),
        (
            "keystore-setup",
            [f"{HOME}/agent.properties", f"{HOME}/cloud.jks", "ksPassw0rd", "365", f"{HOME}/cloud.csr"],
            ["ksPassw0rd", "365"],
        ),
        (
            "keystore-cert-import",
            [f"{HOME}/a.properties", "jnG97c", f"{HOME}/cloud.jks", "ssh", f"{HOME}/c.crt", KEY, f"{HOME}/c.key", KEY],
            ["jnG97c", "MIIE", "PRIVATE"],
        ),
    ],
)
def test_no_secret_among_the_words_is_noted(
    script: str, argv: list[str], secrets: list[str], root: Path, journal: list[tuple[int, str]]
) -> None:
    called(script, answering("", 2), argv, str(root))

    noted = (root / LOG).read_text() + str(journal) + " ".join(shown(script, argv))
    assert "(hidden)" in noted
    assert not [secret for secret in secrets if secret in noted]


def test_what_is_noted_is_one_bounded_line_whatever_is_said(root: Path, capsys: pytest.CaptureFixture[str]) -> None:
    odd = "a\tb\x1b[31m\r\nc\u2028d\x00\x85e"
    called("x.sh", answering(odd), [f"{odd}\udc80" * 50] * 30, str(root))
    called("y.sh", answering("1234567890\n" * 100_000), [], str(root))

    lines = (root / LOG).read_bytes().decode().split("\n")
    assert len(lines) == 3
    assert all(line.count("\t") == 4 and line.replace("\t", "").isprintable() for line in lines[:2])
    first, second = past.calls(root)
    assert first.words.endswith("…")
    assert len(first.words) < 2000
    assert len(second.answer) == LONGEST
    assert len(capsys.readouterr().out) > 1_100_000


def test_the_log_is_bounded(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(calls, "LARGEST", 2000)
    for number in range(200):
        called("x.sh", answering(f"number {number}"), [], str(root))

    assert sorted(path.name for path in (root / "var/log").iterdir()) == [
        f"{Path(LOG).name}{end}" for end in ("", ".1")
    ]
    assert sum(path.stat().st_size for path in (root / "var/log").iterdir()) < 4500
    assert [call.answer for call in past.calls(root)][-1] == "number 199"
    assert LARGEST <= 1 << 20


@pytest.mark.parametrize("trouble", ["full", "pipe", "directory", "link", "nowhere"])
def test_a_log_that_cannot_be_written_fails_no_script(
    trouble: str, root: Path, journal: list[tuple[int, str]], monkeypatch: pytest.MonkeyPatch
) -> None:
    log = root / LOG
    if trouble == "full":
        monkeypatch.setattr("os.write", lambda *_: (_ for _ in ()).throw(OSError(errno.ENOSPC, "No space left")))
    elif trouble == "pipe":
        os.mkfifo(log)
    elif trouble == "directory":
        log.mkdir()
    elif trouble == "link":
        log.symlink_to(root / "elsewhere")
    else:
        (root / "var/log").rmdir()

    assert called("x.sh", answering("all is well"), [], str(root)) == 0

    assert journal[0][1] == "holdfast: x.sh: exit 0: all is well"
    assert journal[1][1].startswith("holdfast: this answer is in the journal alone: ")
    assert not (root / "elsewhere").exists()


def test_a_line_that_was_cut_hides_no_other(root: Path) -> None:
    (root / LOG).write_bytes(b"1.0\t0\t0.1\tx.sh\tgood\n2.0\t0\t\xff\n\n3.0\t0\t0.1\ty.sh\tgood, too\n4.0\t")

    assert [call.answer for call in past.calls(root)] == ["good", "good, too"]


def test_history_is_generations_and_answers_by_their_time() -> None:
    metas = [Meta(number=2, created=30, cause="b", parent=1, digests={}), Meta(number=1, created=10, cause="a", parent=0, digests={}, refused=("x",))]  # fmt: skip # noqa: E501 two generations
    asked = [past.Call(20, "netusage.sh -g", 0, 0.1, "1:2:"), past.Call(40, "x.sh", 1, 0.1, "")]

    lines = past.lines(metas, asked)

    assert [(line[:6], line[27:]) for line in lines] == [
        ("exit 1", "x.sh: no text"),
        ("     2", "b"),
        ("exit 0", "netusage.sh -g: 1:2:"),
        ("     1", "a  (1 refused)"),
    ]


def test_a_script_that_cannot_do_its_work_is_alerted(root: Path) -> None:
    assert called("prepare_pxe.sh", small.prepare_pxe, ["02:00:00:00:00:01"], str(root)) == 1
    called("getRouterAlerts.sh", answering("", 2), [], str(root))  # who asks is told, and nobody else need be

    (line,) = (root / "var/log/routerServiceMonitor.log").read_text().splitlines()
    assert "prepare_pxe.sh 02:00:00:00:00:01: error: this router serves no baremetal hosts" in line
    assert java_reader.alerts(0, line).texts == [line]


def test_commands_of_the_agent_are_noted_but_for_a_look_and_a_change_of_roles() -> None:
    assert {name for name, command in COMMANDS.items() if getattr(command, "func", None) is not called} == {
        "holdfast-follow",
        "holdfast-plan",
    }


def test_a_service_that_cannot_be_managed_is_alerted_and_a_question_about_it_is_not(root: Path) -> None:
    log = root / "var/log/routerServiceMonitor.log"
    called("manage_service.sh", answering("haproxy does not run\n", 3), ["status", "haproxy"], str(root))
    assert not log.exists()

    called("manage_service.sh", answering("", 3, "not as wanted: haproxy.service\n"), ["start", "haproxy"], str(root))
    assert "manage_service.sh start haproxy: not as wanted: haproxy.service" in log.read_text()
