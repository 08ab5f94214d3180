"""What conntrackd is told, when, and when again."""

from collections.abc import Sequence
from pathlib import Path

from holdfast import conntrackd
from holdfast.drivers.handover import TO_SERVE, TO_STAND_BY, TO_TELL_AGAIN, Handovers
from holdfast.marks import Marks
from holdfast.run import CommandFailed
from holdfast.state import Change, Handover

MASTER, BACKUP, FAULT = Handover("MASTER"), Handover("BACKUP"), Handover("FAULT")


class Bench:
    """A router with a real mark and systemd's real way of saying what runs; the client notes what it asks."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self.asked: list[str] = []
        self.refuses = ""
        self.driver = Handovers(Marks(root / "run/holdfast/marks"), root, self.client)

    def client(self, argv: Sequence[str], stdin: str = "", *, timeout_s: float = 60) -> str:
        del stdin
        assert argv[0] == "conntrackd"
        assert timeout_s <= 15
        self.asked.append(" ".join(argv[1:]))
        if self.asked[-1] == self.refuses:
            raise CommandFailed("conntrackd: can't connect: Connection refused")
        return ""

    def starts(self, invocation: str) -> None:
        units = self.root / "run/systemd/units"
        units.mkdir(parents=True, exist_ok=True)
        (units / "invocation:conntrackd.service").unlink(missing_ok=True)
        (units / "invocation:conntrackd.service").symlink_to(invocation)

    def stops(self) -> None:
        (self.root / "run/systemd/units/invocation:conntrackd.service").unlink()

    def said_anew(self, text: str) -> None:
        (self.root / "run/holdfast/role.by").write_text(text)

    def becomes(self, role: Handover | None) -> list[str]:
        """One run, as the spine makes it: only what differs is applied; what was asked, and then what was refused."""
        self.asked.clear()
        seen = next(iter(self.driver.observe({})), None)
        if seen == role:
            return []
        failures = list(self.driver.apply([Change(seen, role)]))
        return [*self.asked, *(failure.reason for failure in failures)]

    def observed(self) -> list[Handover]:
        return list(self.driver.observe({}))


def test_who_serves_learns_what_it_has_and_tells_everything_afterwards_and_only_once(tmp_path: Path) -> None:
    bench = Bench(tmp_path)
    bench.starts("aa")

    assert bench.becomes(MASTER) == ["-f", "-R", "-B"]
    assert bench.becomes(MASTER) == []
    assert bench.observed() == [MASTER]


def test_who_stands_by_asks_the_peer_and_a_fault_is_no_more_than_that(tmp_path: Path) -> None:
    bench = Bench(tmp_path)
    bench.starts("aa")

    assert bench.becomes(BACKUP) == ["-f internal", "-n"]
    assert bench.becomes(FAULT) == ["-f internal", "-n"]
    assert bench.becomes(MASTER) == ["-f", "-R", "-B"]


def test_nothing_that_is_asked_for_empties_the_table_that_a_promotion_lives_on() -> None:
    assert "DisableExternalCache on" in conntrackd.configuration("eth0", "10.1.1.2", [])
    asked = {request for requests in (TO_SERVE, TO_STAND_BY, TO_TELL_AGAIN) for request in requests}
    assert not {option for request in asked for option in request} & {"-t", "-F"}


def test_while_conntrackd_does_not_run_there_is_nothing_to_tell_and_its_start_is_seen(tmp_path: Path) -> None:
    bench = Bench(tmp_path)

    assert bench.becomes(MASTER) == []
    assert bench.observed() == [MASTER]

    bench.starts("aa")
    assert bench.observed() == []
    assert bench.becomes(MASTER) == ["-f", "-R", "-B"]


def test_a_run_that_ended_by_itself_has_forgotten_everything(tmp_path: Path) -> None:
    bench = Bench(tmp_path)
    bench.starts("aa")
    bench.becomes(BACKUP)
    bench.starts("bb")

    assert bench.becomes(BACKUP) == ["-f internal", "-n"]
    bench.stops()
    assert bench.becomes(BACKUP) == []


def test_who_was_backup_for_a_moment_takes_over_again(tmp_path: Path) -> None:
    bench = Bench(tmp_path)
    bench.starts("aa")
    bench.becomes(MASTER)
    bench.said_anew("4711 300\n")

    assert bench.becomes(MASTER) == ["-f", "-R", "-B"]
    assert bench.becomes(MASTER) == []


def test_what_was_not_told_is_told_again_from_the_start(tmp_path: Path) -> None:
    bench = Bench(tmp_path)
    bench.starts("aa")
    bench.refuses = "-R"

    assert bench.becomes(MASTER) == ["-f", "-R", "conntrackd: can't connect: Connection refused"]
    assert bench.observed() == []

    bench.refuses = ""
    assert bench.becomes(MASTER) == ["-f", "-R", "-B"]


def test_a_router_that_is_no_longer_one_of_a_pair_forgets(tmp_path: Path) -> None:
    bench = Bench(tmp_path)
    bench.starts("aa")
    bench.becomes(MASTER)

    assert bench.becomes(None) == []
    assert bench.observed() == []


def test_a_damaged_mark_is_no_mark(tmp_path: Path) -> None:
    bench = Bench(tmp_path)
    bench.starts("aa")
    bench.becomes(MASTER)
    (tmp_path / "run/holdfast/marks/handover").write_bytes(b'{"role"')

    assert bench.becomes(MASTER) == ["-f", "-R", "-B"]
