"""The usage table's text, what is written down of it, and how the Java reader understands what the scripts print."""

import json
from pathlib import Path

import pytest

import java_reader
from holdfast import usage_totals
from holdfast.answers.netusage import NOTHING, holder, of_all, of_nic
from holdfast.scripts import netusage
from holdfast.usage import Counted, Usage, program
from holdfast.usage_table import Count, counts, names

NIC, OTHER = "1e:00:c6:33:64:14", "06:00:c6:33:64:15"
ONE = Usage((Counted(NIC, "eth2", ("203.0.113.21",)),), ("eth0",))
TWO = Usage((*ONE.nics, Counted(OTHER, "eth3", ("198.51.100.12",))), ("eth0",), lasting=True)
HELD = {
    name: Count(at, at * 100)
    for at, name in enumerate([*names(NIC), *names(OTHER)], 1)
}  # fmt: skip


def test_each_nic_has_four_counters_of_its_own() -> None:
    assert names(NIC) == ("out_1e00c6336414", "in_1e00c6336414", "own_out_1e00c6336414", "own_in_1e00c6336414")
    assert len({*names(NIC), *names(OTHER), *names("eth2")}) == 12


def test_what_counts_is_never_made_anew_and_never_taken_away() -> None:
    text = program(ONE, HELD, {})

    assert "add counter" not in text
    assert "delete" not in text
    assert 'leaves oifname "eth2" meta l4proto tcp counter name "own_out_1e00c6336414" accept\n' in text
    assert "eth3" not in text


def test_a_new_counter_begins_where_it_was_written_down() -> None:
    text = program(TWO, names(NIC), {names(OTHER)[0]: Count(7, 900)})

    assert text.count("add counter") == 4
    assert "add counter inet holdfast_usage out_0600c6336415 { packets 7 bytes 900 ; }\n" in text
    assert "add counter inet holdfast_usage in_0600c6336415 { packets 0 bytes 0 ; }\n" in text


def test_a_nic_that_is_absent_has_counters_and_no_rules() -> None:
    text = program(Usage((Counted(NIC, ""),), ()), (), {})

    assert text.count("add counter") == 4
    assert "counter name" not in text
    assert "add element" not in text


def test_the_reader_adds_up_sent_and_received() -> None:
    assert of_nic(HELD, NIC) == "100:200:300:400:"
    assert java_reader.pairs(of_nic(HELD, NIC)) == (400, 600)
    assert of_all(HELD) == "600:800:1000:1200:"
    assert java_reader.pairs(of_all(HELD)) == (1600, 2000)
    assert java_reader.pairs(of_nic({}, NIC)) == (0, 0)
    assert java_reader.pairs(NOTHING) == (0, 0)


def test_an_address_has_one_nic_or_none() -> None:
    nics = [(counted.nic, counted.addresses) for counted in TWO.nics]

    assert holder(nics, "198.51.100.12") == OTHER
    assert holder(nics, "198.51.100.1") == ""


def test_only_this_tables_counters_are_read() -> None:
    listing = {
        "nftables": [
            {"metainfo": {}},
            {"counter": {"table": "holdfast_usage", "name": "out_a", "packets": 1, "bytes": 2}},
            {"counter": {"table": "another", "name": "out_a", "packets": 3, "bytes": 4}},
        ]
    }
    assert counts(listing) == {"out_a": Count(1, 2)}


@pytest.mark.parametrize("lasting", [True, False])
def test_what_is_written_down_is_read_back(tmp_path: Path, lasting: bool) -> None:  # noqa: FBT001 a parameter of the test
    assert usage_totals.saved(tmp_path, lasting=lasting) == {}
    usage_totals.save(tmp_path, HELD, lasting=lasting)
    usage_totals.save(tmp_path, HELD, lasting=lasting)

    assert usage_totals.saved(tmp_path, lasting=lasting) == HELD
    assert usage_totals.saved(tmp_path, lasting=not lasting) == {}
    place = tmp_path / (usage_totals.PATH if lasting else usage_totals.PASSING)
    assert [path.name for path in place.parent.iterdir()] == ["usage.json"]


@pytest.mark.parametrize("text", ["", "[]", "{", '{"a": 1}', '{"a": ["x", 2]}', '{"a": [1]}', "\xff"])
def test_what_is_not_ours_is_nothing(tmp_path: Path, text: str) -> None:
    place = tmp_path / usage_totals.PATH
    place.parent.mkdir(parents=True)
    place.write_text(text, "latin-1")

    assert usage_totals.saved(tmp_path, lasting=True) == {}


class Kernel:
    """Counters in the kernel's place, and the order of what is done to them."""

    def __init__(self) -> None:
        self.counters = dict(HELD)
        self.done: list[str] = []


@pytest.fixture
def kernel(monkeypatch: pytest.MonkeyPatch) -> Kernel:
    kernel = Kernel()

    def reset(gone: object) -> None:
        assert isinstance(gone, set)
        kernel.done.append("reset")
        kernel.counters.update(dict.fromkeys(gone, Count(0, 0)))

    save = usage_totals.save

    def saved(root: Path, totals: dict[str, Count], *, lasting: bool) -> None:
        kernel.done.append("save")
        save(root, totals, lasting=lasting)

    monkeypatch.setattr(usage_totals, "read_counters", lambda: dict(kernel.counters))
    monkeypatch.setattr(usage_totals, "reset", reset)
    monkeypatch.setattr(usage_totals, "save", saved)
    monkeypatch.setattr("syslog.syslog", lambda *_: None)
    return kernel


def noted(root: Path, usage: Usage | None) -> None:
    """What the driver leaves for the scripts."""
    nics = [{"nic": one.nic, "device": one.device, "addresses": one.addresses} for one in usage.nics] if usage else []
    place = root / "run/holdfast/marks/usage"
    place.parent.mkdir(parents=True, exist_ok=True)
    place.write_text(json.dumps({"usage": {"nics": nics, "lasting": usage.lasting} if usage else None}))


def test_what_is_told_is_kept_before(tmp_path: Path, kernel: Kernel, capsys: pytest.CaptureFixture[str]) -> None:
    noted(tmp_path, TWO)

    assert netusage.vpc_netusage(["-l", "198.51.100.12", "-g"], tmp_path) == 0
    assert capsys.readouterr() == ("500:600:700:800:", "")
    assert kernel.done == ["save"]
    assert usage_totals.saved(tmp_path, lasting=True) == HELD


def test_a_reset_is_of_one_address(tmp_path: Path, kernel: Kernel, capsys: pytest.CaptureFixture[str]) -> None:
    noted(tmp_path, TWO)

    assert netusage.vpc_netusage(["-l", "198.51.100.12", "-r"], tmp_path) == 0
    assert kernel.done == ["save", "reset"]
    assert usage_totals.saved(tmp_path, lasting=True) == {name: HELD[name] for name in names(NIC)}
    netusage.vpc_netusage(["-l", "203.0.113.21", "-g"], tmp_path)
    netusage.vpc_netusage(["-l", "198.51.100.12", "-g"], tmp_path)
    assert capsys.readouterr().out == "100:200:300:400:0:0:0:0:"


def test_without_a_public_nic_there_is_nothing_to_tell(
    tmp_path: Path, kernel: Kernel, capsys: pytest.CaptureFixture[str]
) -> None:
    noted(tmp_path, None)

    assert netusage.netusage(["-g"], tmp_path) == 0
    assert netusage.netusage(["-r"], tmp_path) == 0
    assert capsys.readouterr() == ("", "")
    assert kernel.done == ["save", "reset"]


def test_what_cannot_be_told_is_a_failure_without_a_word(
    tmp_path: Path, kernel: Kernel, capsys: pytest.CaptureFixture[str]
) -> None:
    assert netusage.netusage(["-g"], tmp_path) == 1  # nothing has been applied yet
    noted(tmp_path, ONE)
    kernel.counters = {}
    assert netusage.netusage(["-g"], tmp_path) == 1
    assert capsys.readouterr() == ("", "")  # the reader would take it for a number


@pytest.mark.parametrize("argv", [["-c"], ["-a", "eth2"], ["-aeth2"], ["-d", "eth3"]])
def test_what_the_agent_does_itself_needs_no_call(argv: list[str], tmp_path: Path) -> None:
    assert netusage.netusage(argv, tmp_path) == 0
    assert list(tmp_path.iterdir()) == []
