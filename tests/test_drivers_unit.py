"""What systemctl(1) prints, understood, and what follows from it.  The samples are what systemd 252 printed."""

import os
import time
from collections.abc import Sequence
from pathlib import Path

import pytest
from msgspec.structs import replace

from holdfast.drivers.unit import Units, parse_show, systemd_runs
from holdfast.marks import Marks
from holdfast.run import CommandFailed
from holdfast.state import Change, File, Resource, State, Unit

NAME = "dnsmasq.service"
CONF, HOSTS = "/etc/dnsmasq.conf", "/etc/hosts.d/a"
UNIT = Unit(NAME, running=True, restart="r1", reload="l1", files=(CONF, HOSTS))
FILES = (File(CONF, "port=53\n", restart=NAME), File(HOSTS, "10.0.0.1 a\n", reload=NAME))


def block(
    active: str = "active", invocation: str = "f17c7e96e72b4a048123356000146f1d", load: str = "loaded", **more: str
) -> str:
    said = {
        "LoadState": load,
        "ActiveState": active,
        "UnitFileState": "static",
        "InactiveExitTimestampMonotonic": str(time.monotonic_ns() // 1000),
        "NeedDaemonReload": "no",
        "InvocationID": invocation,
    } | more
    return "".join(f"{name}={value}\n" for name, value in said.items())


class Systemctl:
    """Answers `show` with the given blocks, notes every other call, and fails those that it is told to."""

    def __init__(self, *blocks: str, fail: str = "") -> None:
        self.blocks = blocks
        self.fail = fail
        self.shows = 0
        self.verbs: list[str] = []

    def __call__(self, argv: Sequence[str], stdin: str = "", *, timeout_s: float = 60) -> str:
        del stdin, timeout_s
        assert argv[0] == "systemctl"
        if argv[1] == self.fail:
            raise CommandFailed(f"systemctl {self.fail}: refused")
        if argv[1] == "show":
            self.shows += 1
            return "\n".join(self.blocks)
        self.verbs.append(" ".join(word for word in argv[1:] if word != "--"))
        return ""


class House:
    def __init__(self, base: Path) -> None:
        self.marks = Marks(base / "marks")
        self.root = base / "root"
        for file in FILES:
            path = self.root / file.path.lstrip("/")
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(file.text)
        time.sleep(0.03)  # a start within the grain of file times is not known to be later

    def units(self, systemctl: Systemctl) -> Units:
        return Units(self.marks, self.root, run=systemctl)

    def seen(self, systemctl: Systemctl, unit: Unit = UNIT, files: tuple[File, ...] = FILES) -> list[Unit]:
        return list(self.units(systemctl).observe(state(unit, *files)))

    def apply(self, systemctl: Systemctl, unit: Unit = UNIT) -> list[str]:
        units = self.units(systemctl)
        before = next(iter(units.observe(state(unit, *FILES))), None)
        return [failure.reason for failure in units.apply([Change(before, unit)])]


def state(*resources: Resource) -> State:
    return {one.key: one for one in resources}


@pytest.fixture
def house(tmp_path: Path) -> House:
    return House(tmp_path)


def test_blocks_are_matched_by_position() -> None:
    found = parse_show("\n".join([block(), block("inactive", "", "not-found")]), ["a.service", "alias.service"])

    assert found["a.service"].up
    assert found["alias.service"].down


def test_a_block_too_few_is_an_error() -> None:
    with pytest.raises(ValueError, match="shorter"):
        parse_show(block(), ["a.service", "b.service"])


def test_all_units_are_asked_for_at_once_and_none_not_at_all(house: House) -> None:
    both = Systemctl(block(), block("inactive"))
    nothing = Systemctl()
    other = Unit("haproxy.service", running=False)

    assert len(list(house.units(both).observe(state(UNIT, other, *FILES)))) == 2
    assert both.shows == 1
    assert list(house.units(nothing).observe(state(*FILES))) == []
    assert nothing.shows == 0


def test_a_start_after_the_files_has_read_them_and_is_noted(house: House) -> None:
    systemctl = Systemctl(block())

    assert house.seen(systemctl) == [UNIT]

    os.utime(house.root / "etc/dnsmasq.conf")  # touched later, but the note knows better by now
    assert house.seen(systemctl) == [UNIT]


def test_a_start_before_a_file_was_written_has_not_read_it(house: House) -> None:
    systemctl = Systemctl(block())
    time.sleep(0.03)
    (house.root / "etc/dnsmasq.conf").write_text(FILES[0].text)

    assert house.seen(systemctl) == [replace(UNIT, restart="")]
    (house.root / "etc/hosts.d/a").write_text(FILES[1].text)
    assert house.seen(systemctl) == [replace(UNIT, restart="", reload="")]


def test_a_file_that_is_about_to_change_has_not_been_read(house: House) -> None:
    systemctl = Systemctl(block())
    hosts = replace(FILES[1], text="10.0.0.2 b\n")

    assert house.seen(systemctl, files=(FILES[0], hosts)) == [replace(UNIT, reload="")]
    assert house.seen(systemctl, UNIT, (FILES[0], replace(hosts, path="/absent"))) == [UNIT]
    assert house.seen(systemctl, replace(UNIT, files=("/absent",)))[0].restart == UNIT.restart


def test_an_absent_file_has_not_been_read(house: House) -> None:
    unit = replace(UNIT, files=("/etc/absent",))

    assert house.seen(Systemctl(block()), unit) == [replace(unit, restart="", reload="")]


def test_a_note_counts_only_for_its_invocation(house: House) -> None:
    house.seen(Systemctl(block(invocation="one")))
    (house.root / "etc/dnsmasq.conf").write_text(FILES[0].text)
    newer = replace(UNIT, restart="r2", reload="l2")

    assert house.seen(Systemctl(block(invocation="one")), newer) == [UNIT]
    old = block(invocation="two", InactiveExitTimestampMonotonic="1")
    assert house.seen(Systemctl(old), newer) == [replace(newer, restart="", reload="")]


@pytest.mark.parametrize(
    ("active", "wanted", "seen"),
    [
        ("active", True, True),
        ("reloading", True, True),
        ("inactive", True, False),
        ("failed", True, False),
        ("activating", True, False),
        ("deactivating", True, False),
        ("inactive", False, False),
        ("failed", False, False),
        ("active", False, True),
        ("activating", False, True),
        ("deactivating", False, True),
    ],
)
def test_what_is_neither_up_nor_down_is_never_what_is_wanted(
    house: House,
    active: str,
    wanted: bool,  # noqa: FBT001 a table of cases
    seen: bool,  # noqa: FBT001 a table of cases
) -> None:
    (unit,) = house.seen(Systemctl(block(active)), replace(UNIT, running=wanted))

    assert unit.running is seen


def test_a_new_restart_digest_restarts_and_is_noted(house: House) -> None:
    systemctl = Systemctl(block())
    house.seen(systemctl)
    newer = replace(UNIT, restart="r2", reload="l2")

    assert house.apply(systemctl, newer) == []

    assert systemctl.verbs == [f"reset-failed {NAME}", f"restart {NAME}"]
    assert house.seen(systemctl, newer) == [newer]


def test_a_new_reload_digest_reloads(house: House) -> None:
    systemctl = Systemctl(block())
    house.seen(systemctl)

    assert house.apply(systemctl, replace(UNIT, reload="l2")) == []

    assert systemctl.verbs[-1] == f"reload-or-restart {NAME}"


@pytest.mark.parametrize("active", ["inactive", "failed", "activating"])
def test_a_dead_unit_is_started_past_its_start_limit(house: House, active: str) -> None:
    systemctl = Systemctl(block(active))

    assert house.apply(systemctl) == []

    assert systemctl.verbs == [f"reset-failed {NAME}", f"start {NAME}"]
    assert house.marks.read(f"unit.{NAME}") == b"", "what does not run has read nothing"


def test_an_unwanted_unit_is_stopped(house: House) -> None:
    systemctl = Systemctl(block())

    assert house.apply(systemctl, Unit(NAME, running=False)) == []

    assert systemctl.verbs == [f"stop {NAME}"]


def test_a_masked_unit_is_named_and_left_alone(house: House) -> None:
    systemctl = Systemctl(block("inactive", "", "masked", UnitFileState="masked"))
    units = house.units(systemctl)
    list(units.observe(state(UNIT)))

    assert [failure.reason for failure in units.check([Change(None, UNIT)])] == [f"{NAME} is masked"]
    assert house.apply(systemctl) == [f"{NAME} is masked"]
    assert f"start {NAME}" not in systemctl.verbs
    assert house.seen(systemctl, Unit(NAME, running=False)) == [Unit(NAME, running=False)]


def test_changed_unit_files_are_read_first(house: House) -> None:
    systemctl = Systemctl(block("inactive", NeedDaemonReload="yes"))

    assert house.apply(systemctl) == []

    assert systemctl.verbs[0] == "daemon-reload"


@pytest.mark.parametrize("verb", ["start", "show"])
def test_what_systemd_refuses_is_a_failure_with_its_words(house: House, verb: str) -> None:
    assert house.apply(Systemctl(block("inactive"), fail=verb)) == [f"systemctl {verb}: refused"]


def test_a_failed_restart_leaves_the_note_as_it_was(house: House) -> None:
    house.seen(Systemctl(block()))

    assert house.apply(Systemctl(block(), fail="restart"), replace(UNIT, restart="r2")) == [
        "systemctl restart: refused"
    ]

    assert house.seen(Systemctl(block()), replace(UNIT, restart="r2")) == [UNIT]


def test_where_systemd_does_not_run_nothing_is_seen_and_every_change_says_so(house: House) -> None:
    systemctl = Systemctl(block())
    units = Units(house.marks, house.root, available=False, run=systemctl)

    assert list(units.observe(state(UNIT))) == []
    assert [failure.reason for failure in units.apply([Change(None, UNIT)])] == ["systemd does not run here"]
    assert (systemctl.shows, systemctl.verbs) == (0, [])


def test_systemd_runs_where_it_left_its_sign(tmp_path: Path) -> None:
    assert not systemd_runs(tmp_path)

    (tmp_path / "run/systemd/system").mkdir(parents=True)

    assert systemd_runs(tmp_path)


def start(house: House, name: str, invocation: str) -> Path:
    """Leave the link that systemd keeps while a service runs."""
    link = house.root / f"run/systemd/units/invocation:{name}"
    link.parent.mkdir(parents=True, exist_ok=True)
    link.unlink(missing_ok=True)
    link.symlink_to(invocation)
    return link


def test_a_service_that_should_not_run_and_does_not_is_not_asked_after(house: House) -> None:
    link = start(house, NAME, "one")
    stopped, socket = Unit("haproxy.service", running=False), Unit("a.socket", running=False)
    systemctl = Systemctl(block(invocation="one"), block("inactive"))

    assert list(house.units(systemctl).observe(state(UNIT, stopped, socket, *FILES))) == [UNIT, stopped, socket]
    assert systemctl.shows == 1

    link.unlink()
    assert house.seen(Systemctl(block("inactive"))) == [replace(UNIT, running=False, restart="", reload="")]


def test_a_second_look_asks_again_only_if_something_may_have_changed(house: House) -> None:
    start(house, NAME, "one")
    systemctl = Systemctl(block(invocation="one"))
    units = house.units(systemctl)

    for _ in range(3):
        assert list(units.observe(state(UNIT, *FILES))) == [UNIT]
    assert systemctl.shows == 1

    start(house, NAME, "two")
    list(units.observe(state(UNIT, *FILES)))
    assert systemctl.shows == 2

    list(units.apply([Change(UNIT, replace(UNIT, reload="l2"))]))
    asked = systemctl.shows
    list(units.observe(state(UNIT, *FILES)))
    assert systemctl.shows == asked + 1
