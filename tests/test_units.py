"""The units of the router: how much of the machine each of them can touch, as systemd itself reckons it."""

import re
import shutil
import subprocess
from pathlib import Path

import pytest

SYSTEM = Path(__file__).resolve().parents[1] / "system"
EXPOSED = {
    "holdfast-agent.service": 6.0,
    # They do a boot's whole convergence, and a hypervisor's boot line may come through a device.
    "cloud-early-config.service": 5.0,
    "holdfast-boot-line.service": 5.0,
    "dnsmasq.service": 5.0,
    # pppd is its child: it needs devices, and routes for each user.
    "xl2tpd.service": 5.0,
}
"""The units that may be exposed more than others: 0 is nothing at all, 10 the whole machine."""
OTHERS = 3.0
UNITS = sorted(SYSTEM.glob("*.service"))


@pytest.mark.skipif(not shutil.which("systemd-analyze"), reason="who reckons it is systemd")
@pytest.mark.parametrize("unit", UNITS, ids=lambda path: path.name)
def test_no_unit_is_exposed_more_than_its_work_needs(unit: Path) -> None:
    argv = ["systemd-analyze", "security", "--offline=true", "--no-pager", str(unit)]
    told = subprocess.run(argv, capture_output=True, text=True, check=True).stdout

    level = re.search(r"exposure level for \S+: (\d+\.\d)", told)
    assert level, told
    assert float(level[1]) <= EXPOSED.get(unit.name, OTHERS)


@pytest.mark.parametrize("unit", UNITS, ids=lambda path: path.name)
def test_no_unit_can_gain_rights(unit: Path) -> None:
    text = unit.read_text()

    assert "NoNewPrivileges=yes" in text
    assert re.search(r"^CapabilityBoundingSet=", text, re.MULTILINE)
    assert "ProtectSystem=strict" in text


@pytest.mark.parametrize("unit", UNITS, ids=lambda path: path.name)
def test_each_unit_comes_back_and_says_where_it_is_explained(unit: Path) -> None:
    text = unit.read_text()

    assert re.search(r"^Documentation=", text, re.MULTILINE)
    again = re.search(r"^Restart=(always|on-failure)$", text, re.MULTILINE)
    assert again or unit.with_suffix(".timer").exists(), "who is started by a clock is started by it again"


def test_the_closed_firewall_comes_first_and_the_late_line_last() -> None:
    order = {
        unit.name: {
            kind: set(" ".join(re.findall(rf"^{kind}=(.*)$", unit.read_text(), re.MULTILINE)).split())
            for kind in ("After", "Before")
        }
        for unit in UNITS
    }

    assert {"network-pre.target", "cloud-early-config.service"} <= order["holdfast-closed.service"]["Before"]
    assert "holdfast-closed.service" in order["cloud-early-config.service"]["After"]
    assert "holdfast-settle.service" in order["cloud-early-config.service"]["After"]
    assert "cloud-early-config.service" in order["holdfast-boot-line.service"]["After"]
    assert "cloud-early-config.service" not in order["holdfast-agent.service"]["After"]
