"""Scripts that other rooms answer, as the Java reader understands them: the good, the empty and the failing case."""

import json
import re
from collections.abc import Callable
from pathlib import Path

import pytest

import java_reader
from holdfast import haproxy_stats, role_report, usage_totals
from holdfast.answers.checkrouter import ALONE, UNKNOWN, Seen, pair
from holdfast.scripts import netusage
from holdfast.usage_table import Count, names

ROOT = Path(__file__).parents[1]
Run = Callable[..., tuple[int, str]]
TABLE = (
    "# pxname,svname,qcur,qmax,scur,smax,status,\n203_0_113_13-80,web1,0,0,7,9,UP,\n203_0_113_13-80,web2,0,0,4,9,UP,\n"
)


@pytest.fixture
def run(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> Run:
    monkeypatch.setattr("syslog.syslog", lambda *_: None)

    def ran(script: Callable[..., int], *arguments: object) -> tuple[int, str]:
        code = script(*arguments)
        said = capsys.readouterr()
        return code, said.out + said.err

    return ran


# checkrouter.sh


def seen(role: str, *, held: bool, up: bool) -> Seen:
    return Seen(role=role, runs=True, virtual="10.1.1.1", held=held, outer={"eth2": up}, word="PRIMARY")


def test_a_role_is_read_by_servers_of_both_kinds() -> None:
    serving = seen("MASTER", held=True, up=True)
    assert java_reader.role(0, pair(serving)) == "PRIMARY"
    assert java_reader.role(0, pair(serving._replace(word="MASTER")), older=True) == "MASTER"
    assert java_reader.role(0, pair(seen("BACKUP", held=False, up=False))) == "BACKUP"
    assert java_reader.role(0, pair(seen("MASTER", held=False, up=False))) == "FAULT"
    assert (java_reader.role(0, ALONE), java_reader.role(0, UNKNOWN)) == ("PRIMARY", "UNKNOWN")


def test_a_router_that_knows_nothing_yet_answers_all_the_same(
    run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(role_report, "line", lambda _root, line=role_report.line: line(tmp_path, 0))

    assert java_reader.role(*run(role_report.checkrouter, [])) == "UNKNOWN"
    assert java_reader.role(*run(role_report.checkrouter, ["null"])) == "UNKNOWN"
    with pytest.raises(java_reader.Unreadable, match="usage"):
        java_reader.role(*run(role_report.checkrouter, ["x"]))
    with pytest.raises(java_reader.Unreadable):
        java_reader.role(0, " \n")


# get_haproxy_stats.sh


def test_connections_are_one_number_or_none(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(haproxy_stats, "ask", lambda _: TABLE)
    asked = ["203.0.113.13", "80"]

    assert java_reader.connections(*run(haproxy_stats.get_haproxy_stats, asked)) == 5
    monkeypatch.setattr(haproxy_stats, "ask", lambda _: TABLE.replace("UP", "DOWN"))
    assert java_reader.connections(*run(haproxy_stats.get_haproxy_stats, asked)) == 0
    for words in (["203.0.113.99", "80"], ["203.0.113.13"], []):
        with pytest.raises(java_reader.Unreadable):
            java_reader.connections(*run(haproxy_stats.get_haproxy_stats, words))


# netusage.sh and vpc_netusage.sh


@pytest.fixture
def counting(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A router with one public nic, 203.0.113.13, and what it has counted: 1, 2, 3 and 4 bytes."""
    nic = "eth2"
    place = tmp_path / "run/holdfast/marks/usage"
    place.parent.mkdir(parents=True)
    nics = [{"nic": nic, "device": nic, "addresses": ["203.0.113.13"]}]
    place.write_text(json.dumps({"usage": {"nics": nics, "lasting": False}}))
    held = {name: Count(0, size) for size, name in enumerate(names(nic), 1)}
    monkeypatch.setattr(usage_totals, "read_counters", lambda: held)
    monkeypatch.setattr(usage_totals, "reset", lambda _: None)
    return tmp_path


def test_counters_are_pairs(run: Run, counting: Path) -> None:
    for script, words in (
        (netusage.netusage, "-g"),
        (netusage.netusage, "-g -l 203.0.113.13"),
        (netusage.vpc_netusage, "-l 203.0.113.13 -g"),
    ):
        code, text = run(script, words.split(), counting)
        assert re.fullmatch(r"(\d+:)+", text)
        assert java_reader.usage(code, text) == (4, 6)


def test_what_is_not_there_counts_nothing(run: Run, counting: Path) -> None:
    assert java_reader.usage(*run(netusage.netusage, ["-g", "-l", "203.0.113.99"], counting)) == (0, 0)
    assert java_reader.usage(*run(netusage.vpc_netusage, ["-l", "203.0.113.99", "-g"], counting)) == (0, 0)
    assert java_reader.usage(*run(netusage.vpc_netusage, ["-l", "203.0.113.13", "-n"], counting)) == (0, 0)
    for words in ("-c", "-r", "-a eth2", "-d eth2"):
        assert java_reader.succeeded(*run(netusage.netusage, words.split(), counting)) == ""
    for words in ("-l 203.0.113.13 -c -v 10.10.0.0/16", "-l 203.0.113.13 -r", "-l 203.0.113.13 -d"):
        assert java_reader.succeeded(*run(netusage.vpc_netusage, words.split(), counting)) == ""


def test_counters_that_cannot_be_read_are_none_and_no_zero(
    run: Run, counting: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(usage_totals, "read_counters", dict)
    for script, words in ((netusage.netusage, ["-g"]), (netusage.vpc_netusage, ["-l", "203.0.113.13", "-g"])):
        assert run(script, words, counting) == (1, "")
    for words in (["-g", "-r"], ["-a", "eth0;id"], ["-g", "-l", "$(id)"], ["--help"], [], ["-g", "x"], ["-a", "-r"]):
        assert run(netusage.netusage, words, counting)[0] == 2
        assert run(netusage.vpc_netusage, words, counting)[0] == 2


# checkbatchs2svpn.sh: the reader's rules


def test_tunnels_are_read_up_to_the_first_item_that_is_none() -> None:
    text = "192.0.2.77:0:IPsec SA found;Site-to-site VPN have connected&192.0.2.88:11:no SA&"
    found = java_reader.tunnels(0, f"{text}\n")
    assert {peer: tunnel.up for peer, tunnel in found.items()} == {"192.0.2.77": True, "192.0.2.88": False}
    assert list(java_reader.tunnels(0, "192.0.2.77:0:a:b&192.0.2.88:0:c&")) == []
    assert java_reader.tunnels(0, "") == {}
    with pytest.raises(java_reader.Unreadable):
        java_reader.tunnels(1, text)


# The page


def test_every_script_is_on_the_page() -> None:
    page = (ROOT / "docs/features/scripts.md").read_text()
    rows = set(re.findall(r"`([\w.-]+)`", "\n".join(line.split("|")[1] for line in page.splitlines() if "|" in line)))

    assert {path.name for path in (ROOT / "system/bin").iterdir()} - {"holdfast"} - rows == set()
