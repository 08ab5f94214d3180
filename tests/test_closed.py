"""The static ruleset before the first link is up: it lets nothing in that any later firewall would refuse."""

import re
from pathlib import Path

from holdfast import program
from holdfast.nft import TABLE
from holdfast.state import Ruleset

ROOT = Path(__file__).resolve().parents[1]
SCRIPT = (ROOT / "system/libexec/holdfast-closed").read_text()
UNIT = (ROOT / "system/holdfast-closed.service").read_text()
CHAIN = re.compile(r"^\tchain (\S+) \{(.*?)^\t\}", re.MULTILINE | re.DOTALL)


def chains(text: str) -> dict[str, list[str]]:
    """The lines of each chain that has any."""
    found: dict[str, list[str]] = {}
    for name, body in CHAIN.findall(text):
        found.setdefault(name, []).extend(line.strip() for line in body.splitlines() if line.strip())
    return found


def test_it_bears_the_firewalls_name_and_so_gives_way_to_it() -> None:
    assert f"\ntable inet {TABLE} {{\n" in SCRIPT
    assert f"nft list table inet {TABLE} " in SCRIPT


def test_all_that_it_accepts_the_firewall_accepts_too() -> None:
    firewall = next(one for one in program.assemble([], {}) if isinstance(one, Ruleset)).text
    closed = chains(SCRIPT)

    assert closed.keys() == {"input", "forward"}
    for name, (hook, *rules) in closed.items():
        assert hook == f"type filter hook {name} priority filter; policy drop;"
        assert f"chain {name} {{ {hook} }}" in firewall
        assert [rule for rule in rules if rule not in chains(firewall)[name]] == []
    assert len(closed["forward"]) == 1


def test_it_comes_before_any_link() -> None:
    before = re.search(r"^Before=(.*)$", UNIT, re.MULTILINE)

    assert before is not None
    assert {"network-pre.target", "cloud-early-config.service"} <= set(before[1].split())
    assert "Wants=network-pre.target" in UNIT
    assert "DefaultDependencies=no" in UNIT
