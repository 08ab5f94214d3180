"""Translating haproxy texts, and what is said of a running haproxy; texts are judged by the real `haproxy -c`."""

import json
import re
import shutil
import socket
import subprocess
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from holdfast import haproxy_reload, haproxy_stats
from holdfast.answers.get_haproxy_stats import NoListenerError, average_sessions
from holdfast.haproxy import excess, translate

EXAMPLES = Path(__file__).parents[1].parent / "shared/reference/examples"
RECORDED = sorted(EXAMPLES.glob("*/S*/*LoadBalancerConfig.json"))
OWN = re.compile(
    r"\t# The next lines are holdfast's.*\n\tsetenv HOLDFAST_TEXT [0-9a-f]{32}\n"
    r"\tstats socket /run/haproxy/holdfast.*\n"
    r"\tmworker-max-reloads \d+\n\tlocalpeer holdfast\n"
    r"|peers holdfast\n\tpeer .*\n\ttable .*\n\Z"
    r"| srvkey addr peers holdfast"
)
HAPROXY = shutil.which("haproxy") or ""
needs_haproxy = pytest.mark.skipif(not HAPROXY, reason="haproxy is not installed here")


def theirs(text: str) -> str:
    """A text without what is ours in it."""
    return OWN.sub("", text)


def body(*lines: str) -> list[str]:
    """Only the translated lines, without our own."""
    return theirs(translate(["global", *lines]).text).split("\n")[1:-1]


def judge(text: str, directory: Path) -> subprocess.CompletedProcess[str]:
    path = directory / "haproxy.cfg"
    path.write_text(text)
    return subprocess.run([HAPROXY, "-c", "-f", path], capture_output=True, text=True, check=False)


@pytest.fixture(scope="module")
def pem(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("pem") / "a.pem"
    argv = ["openssl", "req", "-x509", "-newkey", "rsa:2048", "-nodes", "-days", "9", "-subj", "/CN=a"]
    argv += ["-keyout", str(path)]
    cert = subprocess.run(argv, capture_output=True, text=True, check=True).stdout
    path.write_text(cert + path.read_text())
    return path


@needs_haproxy
@pytest.mark.parametrize("path", RECORDED, ids=lambda path: f"{path.parts[-3]}-{path.stem}")
def test_recorded_texts_are_taken_by_todays_haproxy(path: Path, pem: Path, tmp_path: Path) -> None:
    sent = json.loads(path.read_bytes())["rules"][0]["configuration"]
    text, said = translate(sent)
    done = judge(text.replace("/etc/cloudstack/ssl/203_0_113_13-443.pem", str(pem)), tmp_path)
    assert done.returncode == 0, done.stderr
    if not said:
        assert theirs(text) == "".join(f"{element}\n" for element in sent)
    assert bool(said) is (path.parts[-3] == "4.6.1" or "\tappsession" in json.dumps(sent).replace("\\t", "\t"))


def test_what_is_not_translated_stays_byte_for_byte_and_in_order() -> None:
    sent = [
        "\n# é  comment ",
        "global",
        "\tmaxconn 4096\n\tdaemon",
        "\t ",
        "",
        "listen  a",
        "\tbind 10.0.0.1:80 \n\n",
        "\t#x",
    ]
    assert theirs(translate(sent).text) == "".join(f"{element}\n" for element in sent)
    assert translate(sent).said == ()


def test_swapped_lines_and_changed_certificates_are_other_texts() -> None:
    a, b = "\tserver x_0 10.0.0.1:80", "\tserver x_1 10.0.0.2:80"
    texts = {
        translate(["global", "listen x", a, b]).text,
        translate(["global", "listen x", b, a]).text,
        translate(["global", "listen x", a, b], {"n": "one"}).text,
        translate(["global", "listen x", a, b], {"n": "two"}).text,
    }
    assert len(texts) == 4
    assert translate(["global", "listen x", a, b]) == translate(["global\nlisten x", f"{a}\n{b}"])


def test_our_lines_stand_in_global_and_are_there_without_one() -> None:
    lines = translate(["# head", "  global", "\tdaemon", "defaults"]).text.splitlines()
    assert lines[:2] == ["# head", "  global"]
    assert lines[6:9] == ["\tlocalpeer holdfast", "\tdaemon", "defaults"]
    assert translate(["defaults"]).text.startswith("global\n\t#")


@pytest.mark.parametrize(
    ("sent", "became"),
    [
        ("listen a 203.0.113.1:80", ["listen a", "\tbind 203.0.113.1:80"]),
        ("listen  vmops 0.0.0.0:9", ["listen  vmops", "\tbind 0.0.0.0:9"]),
        ("listen a 10.0.0.1:80,10.0.0.2:81", ["listen a", "\tbind 10.0.0.1:80,10.0.0.2:81"]),
        ("listen a", ["listen a"]),
        ("listen a 10.0.0.1:80 ssl", ["listen a 10.0.0.1:80 ssl"]),
        ("\toption forceclose", ["\toption httpclose"]),
        ("\tno option  forceclose ", ["\tno option  httpclose "]),
        ("\toption forceclosed", ["\toption forceclosed"]),
        ("\tappsession X len 5", ["\tappsession X len 5"]),
        ("\tappsession X len 5 timeout 3h mode elsewhere", ["\tappsession X len 5 timeout 3h mode elsewhere"]),
        ("\tappsession X,lower len 5 timeout 3h", ["\tappsession X,lower len 5 timeout 3h"]),
        (
            "\tappsession S len 52 timeout 3h request-learn mode query-string ",
            [
                "\tstick-table type string len 52 size 200k expire 3h",
                "\tstick store-response res.cook(S)",
                "\tstick on req.cook(S)",
                "\tstick on urlp(S)",
            ],
        ),
    ],
)
def test_lines_that_are_translated_and_lines_that_only_look_so(sent: str, became: list[str]) -> None:
    assert body(sent) == became
    assert bool(translate(["global", sent]).said) is (became != [sent])


def test_what_was_translated_is_said_with_its_lines() -> None:
    said = translate(["global", "listen a 10.0.0.1:80\n\toption forceclose", "listen b 10.0.0.1:81"]).said
    assert said == (
        "lines 2, 4: an address on a `listen` line got a `bind` line of its own",
        "line 3: `option forceclose` is `option httpclose` now",
    )


@pytest.mark.parametrize("path", RECORDED, ids=lambda path: f"{path.parts[-3]}-{path.stem}")
def test_nothing_that_servers_send_is_more_than_balancing(path: Path) -> None:
    assert list(excess(json.loads(path.read_bytes())["rules"][0]["configuration"])) == []


@pytest.mark.parametrize(
    "line",
    [
        "program x",
        "\tcookie a\nprogram x",
        "\tcommand /bin/sh",
        "\tlua-load-per-thread x",
        "\toption external-check",
        "\tno option\n\tinsecure-fork-wanted",
        "\tuid 0",
        "\tuser root",
        "\tchroot /",
        "\tunsetenv HOLDFAST_TEXT",
        "\tstats socket /tmp/x",
        "\tstats  socket",
        '\tstats "socket" /tmp/x',
        "\tlua\\-load x",
        "\toption exter'nal'-check",
    ],
)
def test_more_than_balancing_is_found_however_it_is_spelt(line: str) -> None:
    assert [index for index, _ in excess(["global", line])] == [1]


@needs_haproxy
@pytest.mark.parametrize("count", [1, 50, 51, 70, 300])
def test_networks_of_a_rule_may_be_many(count: int, tmp_path: Path) -> None:
    networks = [f"10.{n // 250}.{n % 250}.0/24" for n in range(count)]
    acl = f"\tacl network_allowed src {' '.join(networks)} \n\ttcp-request connection reject if !network_allowed"
    timeouts = "\tmode tcp\n\ttimeout connect 1s\n\ttimeout client 1s\n\ttimeout server 1s"
    sent = ["global", "listen a", timeouts, "\tbind 127.0.0.1:8", acl]
    assert re.findall(r"10\.\d+\.\d+\.0/24", translate(sent).text) == networks
    assert judge(translate(sent).text, tmp_path).returncode == 0


@needs_haproxy
@pytest.mark.parametrize("options", ["", "request-learn", "prefix", "prefix request-learn mode query-string"])
def test_every_form_of_appsession_is_taken(options: str, tmp_path: Path) -> None:
    timeouts = "\tmode http\n\ttimeout connect 1s\n\ttimeout client 1s\n\ttimeout server 1s"
    sticky = f"\tappsession A.B-c_1 len 52 timeout 3h {options}"
    text, said = translate(["global", "listen a", timeouts, "\tbind 127.0.0.1:8", "\tserver a 127.0.0.1:9", sticky])
    assert judge(text, tmp_path).returncode == 0
    assert len(said) == 1


HEAD = "# pxname,svname,qcur,qmax,scur,smax,status,\n"


@pytest.mark.parametrize(
    ("rows", "said"),
    [
        ("a,x,0,0,3,9,UP,\n", "3"),
        ("a,x,0,0,3,9,UP,\na,y,0,0,4,9,UP 1/3,\na,BACKEND,0,0,7,9,UP,\n", "3"),
        ("a,x,0,0,3,9,DOWN,\na,y,0,0,8,9,no check,\n", "8"),
        ("a,x,0,0,3,9,MAINT,\n", "0"),
        ("a,FRONTEND,0,0,3,9,OPEN,\na,BACKEND,0,0,3,9,UP,\n", "0"),
    ],
)
def test_the_average_is_of_servers_that_are_up(rows: str, said: str) -> None:
    table = HEAD + rows.replace("a,", "203_0_113_1-80,") + "203_0_113_1-8080,x,0,0,99,99,UP,\n\n"
    assert average_sessions(table, "203.0.113.1", 80) == said


def test_no_listener_and_no_table_are_no_number() -> None:
    with pytest.raises(NoListenerError):
        average_sessions(HEAD, "203.0.113.1", 80)
    with pytest.raises(ValueError, match="head"):
        average_sessions("", "203.0.113.1", 80)


@pytest.fixture
def speaker(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[dict[str, str]]:
    """A socket that answers like haproxy's: it waits for the end of the question, answers and closes."""
    answers: dict[str, str] = {}
    server = socket.socket(socket.AF_UNIX)
    server.bind(str(tmp_path / "s"))
    server.listen()

    def serve() -> None:
        while True:
            try:
                line, _ = server.accept()
            except OSError:
                return
            with line:
                asked = b""
                while part := line.recv(100):
                    asked += part
                line.sendall(answers.get(asked.decode(), "Unknown command\n").encode())

    thread = threading.Thread(target=serve)
    thread.start()
    monkeypatch.setattr(haproxy_stats.ask, "__defaults__", (str(tmp_path / "s"), 5.0))
    yield answers
    server.shutdown(socket.SHUT_RDWR)
    server.close()
    thread.join()


def test_the_script_prints_one_integer_alone(speaker: dict[str, str], capsys: pytest.CaptureFixture[str]) -> None:
    speaker["show stat\n"] = f"{HEAD}203_0_113_1-80,x,0,0,70000,9,UP,\n"
    assert haproxy_stats.get_haproxy_stats(["203.0.113.1", "80"]) == 0
    assert capsys.readouterr().out == "70000"
    assert haproxy_stats.get_haproxy_stats(["203.0.113.1", "81"]) == 1
    speaker["show stat\n"] = ""
    assert haproxy_stats.get_haproxy_stats(["203.0.113.1", "80"]) == 1
    assert capsys.readouterr().out == ""


@pytest.mark.parametrize("argv", [[], ["203.0.113.1"], ["203.0.113.1", "٣"], ["203.0.113.1", "65536"], ["a", "80"]])
def test_the_script_takes_an_address_and_a_port(argv: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    assert haproxy_stats.get_haproxy_stats(argv) == 2
    assert capsys.readouterr().err.startswith("usage: ")


def test_a_worker_is_known_by_its_process_and_its_text(speaker: dict[str, str]) -> None:
    assert haproxy_reload.worker() == ("", "")
    speaker["show info;show env HOLDFAST_TEXT\n"] = "Name: HAProxy\nPid: 12\nUptime: 1\n\nHOLDFAST_TEXT=abc\n\n"
    assert haproxy_reload.worker() == ("12", "abc")
    speaker["show info;show env HOLDFAST_TEXT\n"] = "Pid: 12\n\nVariable not found\n"
    assert haproxy_reload.worker() == ("12", "")


def test_a_port_of_another_program_is_found_before_anybody_is_silenced() -> None:
    with socket.socket() as other, socket.socket() as own:
        for held, option in ((other, socket.SO_REUSEADDR), (own, socket.SO_REUSEPORT)):
            held.setsockopt(socket.SOL_SOCKET, option, 1)
            held.bind(("127.0.0.1", 0))
            held.listen()
        theirs_at, ours_at = other.getsockname()[1], own.getsockname()[1]
        binds = f"listen a\n\tbind 127.0.0.1:{ours_at},127.0.0.1:{theirs_at} ssl\n\tbind *:{theirs_at}\n\tbind unix@x\n"
        said = list(haproxy_reload.taken(f"{binds}\tbind-process 1\n\tbind :::99999\n"))
    assert [text.partition(": [")[0] for text in said] == [f"127.0.0.1:{theirs_at}", f"*:{theirs_at}"]
