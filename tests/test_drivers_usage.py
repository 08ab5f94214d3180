"""The usage table's driver, against nft in a program's place: when it looks, when it writes, and what it keeps."""

from collections.abc import Sequence
from pathlib import Path

import msgspec
import pytest

from holdfast import usage_totals
from holdfast.drivers import ruleset
from holdfast.drivers import usage as driver
from holdfast.marks import Marks
from holdfast.run import CommandFailed
from holdfast.state import Change
from holdfast.usage import Counted, Usage
from holdfast.usage_table import Count, names

NIC = "1e:00:c6:33:64:14"
ONE = Usage((Counted(NIC, "eth2", ("203.0.113.21",)),), ("eth0",), lasting=True)
TWO_ADDRESSES = msgspec.structs.replace(ONE, nics=(Counted(NIC, "eth2", ("203.0.113.21", "203.0.113.22")),))
ANOTHER = msgspec.structs.replace(ONE, inside=("eth0", "eth4"))


class Nft:
    """A table as text, the ruleset's generation, and what was asked of it."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.text, self.generation, self.counters = "", 7, dict[str, Count]()
        self.asked: list[str] = []
        self.refuses = False
        monkeypatch.setattr(driver, "run", self.run)
        monkeypatch.setattr(ruleset, "run", self.run)
        monkeypatch.setattr(driver, "generation", lambda: self.generation)
        monkeypatch.setattr(usage_totals, "read_counters", lambda: dict(self.counters))

    def run(self, argv: Sequence[str], stdin: str = "") -> str:
        self.asked.append(argv[1] if argv[1] != "-f" else "commit")
        if "list" in argv:
            if not self.text:
                raise CommandFailed("nft: No such file or directory")
            return self.text
        if self.refuses and "delete table" not in stdin:
            raise CommandFailed("nft: Could not process rule: File exists")
        self.generation += 1
        self.text = "" if argv[1] == "delete" else f"table {len(self.asked)}\n\tcounter x {{\n\t}}\n\n{stdin}"
        return ""


@pytest.fixture
def nft(monkeypatch: pytest.MonkeyPatch) -> Nft:
    return Nft(monkeypatch)


@pytest.fixture
def usages(tmp_path: Path) -> driver.Usages:
    return driver.Usages(Marks(tmp_path / "marks"), tmp_path)


def apply(usages: driver.Usages, wanted: Usage | None) -> None:
    before = next(iter(usages.observe({})), None)
    assert list(usages.apply([Change(before, wanted)])) == []
    assert list(usages.observe({})) == ([wanted] if wanted else [])


def test_made_once_and_then_only_looked_at_when_somebody_wrote(nft: Nft, usages: driver.Usages) -> None:
    apply(usages, ONE)
    nft.asked.clear()

    assert list(usages.observe({})) == [ONE]
    assert nft.asked == []
    nft.generation += 1
    assert list(usages.observe({})) == [ONE]
    assert list(usages.observe({})) == [ONE]
    assert nft.asked == ["-n"]


def test_another_address_of_the_same_nic_is_no_transaction(nft: Nft, usages: driver.Usages) -> None:
    apply(usages, ONE)
    nft.asked.clear()

    apply(usages, TWO_ADDRESSES)

    assert nft.asked == []
    note = msgspec.json.decode(usages.marks.read("usage"))
    assert note["usage"]["nics"][0]["addresses"] == ["203.0.113.21", "203.0.113.22"]


def test_other_hands_are_seen_and_put_right(nft: Nft, usages: driver.Usages) -> None:
    apply(usages, ONE)
    nft.text += "another rule\n"
    nft.generation += 1

    assert list(usages.observe({})) != [ONE]
    apply(usages, ONE)


def test_a_table_that_was_made_anew_begins_where_it_was(nft: Nft, usages: driver.Usages, tmp_path: Path) -> None:
    usage_totals.save(tmp_path, {names(NIC)[0]: Count(3, 900), "out_gone": Count(1, 50)}, lasting=True)
    apply(usages, ONE)

    assert "add counter inet holdfast_usage out_1e00c6336414 { packets 3 bytes 900 ; }" in nft.text
    assert "add counter inet holdfast_usage out_gone { packets 1 bytes 50 ; }" in nft.text


def test_what_the_kernel_counts_is_newer_than_what_was_written(nft: Nft, usages: driver.Usages, tmp_path: Path) -> None:
    usage_totals.save(tmp_path, {names(NIC)[0]: Count(3, 900)}, lasting=True)
    apply(usages, ONE)
    nft.counters = dict.fromkeys(names(NIC), Count(9, 9000))

    apply(usages, ANOTHER)
    assert "add counter" not in nft.text

    nft.refuses = True  # a chain of another shape, as after an upgrade
    apply(usages, ONE)
    assert "delete table" in nft.text
    assert nft.text.count("{ packets 9 bytes 9000 ; }") == 4


def test_nothing_wanted_is_no_table(nft: Nft, usages: driver.Usages) -> None:
    apply(usages, ONE)
    apply(usages, None)

    assert nft.text == ""
