"""Kernel parameters: their names, and their comparison."""

from pathlib import Path

import pytest

from holdfast.drivers.sysctl import Sysctls, relative_path
from holdfast.state import Change, Sysctl


@pytest.mark.parametrize(
    ("name", "path"),
    [
        ("net.ipv4.ip_forward", "net/ipv4/ip_forward"),
        ("net/ipv4/conf/eth0.10/rp_filter", "net/ipv4/conf/eth0.10/rp_filter"),
        ("net.ipv4.conf.eth0/10.rp_filter", "net/ipv4/conf/eth0.10/rp_filter"),
    ],
)
def test_the_first_separator_tells_what_separates(name: str, path: str) -> None:
    assert relative_path(name) == path


@pytest.mark.parametrize("name", ["", "../etc/passwd", "/etc/passwd", "net//x", "net/../../x", "net./.x", "a."])
def test_a_name_does_not_lead_out(name: str) -> None:
    with pytest.raises(ValueError, match="not the name"):
        relative_path(name)

    assert len(list(Sysctls().check([Change(None, Sysctl(name, "1"))]))) == 1
    assert list(Sysctls().observe({("Sysctl", name): Sysctl(name, "1")})) == []


def test_white_space_is_no_difference(tmp_path: Path) -> None:
    (tmp_path / "range").write_text("32768\t60999\n")
    wanted, other = Sysctl("range", " 32768  60999"), Sysctl("range", "1 2")

    assert list(Sysctls(tmp_path).observe({wanted.key: wanted})) == [wanted]
    assert list(Sysctls(tmp_path).observe({other.key: other})) == [Sysctl("range", "32768 60999")]


def test_a_parameter_that_is_absent_is_never_made(tmp_path: Path) -> None:
    failures = list(Sysctls(tmp_path).apply([Change(None, Sysctl("nope", "1"))]))

    assert [failure.reason for failure in failures] == ["this kernel has no such parameter"]
    assert list(tmp_path.iterdir()) == []
