"""Services that were stopped by command, and settings of the operator's."""

from pathlib import Path

import pytest

from holdfast import facts, wishes
from holdfast.desired import STOPPED, gather
from holdfast.errors import Rejected
from holdfast.feature import Claim, Pending, Service
from holdfast.marks import Marks
from holdfast.settings import Settings, parse
from holdfast.state import Unit


def test_a_wish_has_a_life(tmp_path: Path) -> None:
    directory = tmp_path / wishes.DIRECTORY
    directory.mkdir(parents=True)
    (directory / "keepalived.service").write_text("1000.0\n")
    (directory / "dnsmasq.service").write_text("nonsense\n")
    (directory / "sshd.service").write_text("1000.0\n")
    assert wishes.stopped(tmp_path, 1000.0) == {"keepalived.service"}
    assert wishes.stopped(tmp_path, 1000.0 + wishes.LIFE_S - 1) == {"keepalived.service"}
    assert wishes.stopped(tmp_path, 1000.0 + wishes.LIFE_S) == frozenset()
    assert wishes.stopped(tmp_path, 10.0) == frozenset()  # another boot's clock
    wishes.wish_started(tmp_path, "keepalived")
    assert wishes.stopped(tmp_path, 1000.0) == frozenset()


def test_who_is_wished_stopped_is_stopped_and_said_to_be(tmp_path: Path) -> None:
    del tmp_path
    claims = [Claim("redundancy", Service(name, wanted=True)) for name in ("keepalived.service", "conntrackd.service")]
    made = gather(claims, stopped=frozenset({"keepalived.service"}))
    units = {unit.name: unit.running for unit in made.state.values() if isinstance(unit, Unit)}
    assert units == {"keepalived.service": False, "conntrackd.service": True}
    assert made.pending == (Claim("redundancy", Pending("service keepalived.service", STOPPED)),)
    free = gather(claims)
    assert all(unit.running for unit in free.state.values() if isinstance(unit, Unit))
    assert free.pending == ()


@pytest.mark.parametrize(
    ("text", "named"),
    [
        (b'{"advert": 1}', "advert"),
        (b'{"advert_s": "fast"}', "advert_s"),
        (b'{"advert_s": -1}', "advert_s"),
        (b'{"advert_s": 0.01}', "advert_s"),
        (b'{"advert_s": 300}', "advert_s"),
        (b'{"advert_s": 1.9}', "advert_s: 1.9 s"),
        (b'{"advert_s": 2.0000001}', "advert_s"),
        (b'{"gateway_probe": 1}', "gateway_probe"),
        (b"advert_s: 1", "malformed"),
    ],
)
def test_settings_that_are_wrong_are_refused_by_name(text: bytes, named: str) -> None:
    with pytest.raises(Rejected, match=named):
        parse(text)


def test_settings() -> None:
    assert parse(b"{}") == Settings()
    assert parse(b'{"advert_s": 0.1, "gateway_probe": true}') == Settings(advert_s=0.1, gateway_probe=True)
    assert parse(b'{"advert_s": 0.95}') == Settings(advert_s=0.95)
    assert [parse(text) for text in (b'{"advert_s": 2}', b'{"advert_s": 2.0}')] == [Settings(advert_s=2)] * 2


def test_the_last_good_settings_hold_while_the_file_is_wrong(tmp_path: Path) -> None:
    marks = Marks(tmp_path / "marks")
    path = tmp_path / "etc/holdfast/settings.json"
    assert facts.settings(tmp_path, marks) == (Settings(), "")
    path.parent.mkdir(parents=True)
    path.write_text('{"advert_s": 0.1}')
    assert facts.settings(tmp_path, marks) == (Settings(advert_s=0.1), "")
    path.write_text('{"advert_s": 0.1')
    held, complaint = facts.settings(tmp_path, marks)
    assert held == Settings(advert_s=0.1)
    assert "settings.json" in complaint
    path.write_text('{"advert_s": 1.9}')
    marks.write("settings", path.read_bytes())  # an earlier version took it
    assert facts.settings(tmp_path, marks)[0] == Settings()
    path.unlink()
    assert facts.settings(tmp_path, marks) == (Settings(), "")
