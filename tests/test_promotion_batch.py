"""The batch that is worked out ahead, the word by which it is refused, and announcements as a level."""

import os
import re
import subprocess
from collections.abc import Iterable, Mapping
from pathlib import Path

import pytest
from msgspec.structs import replace

from holdfast import conntrackd, promotion, promotion_file
from holdfast.config import Config
from holdfast.desired import desired
from holdfast.drivers.announcement import Announcements
from holdfast.marks import Marks
from holdfast.router import Facts, Nic, Role
from holdfast.state import Announcement, Change, Key, Link, Resource, Route, State
from test_redundancy import ISOLATED, TIERS, bags, facts, line, mac

HERE = facts(mac(1), mac(2), mac(3))
MACS = {nic.name: nic.mac for nic in HERE.nics}


def state(*resources: Resource) -> dict[Key, Resource]:
    return {resource.key: resource for resource in resources}


def commands(text: str) -> list[str]:
    return [said for said in text.splitlines() if not said.startswith("#")]


def ways(config: Config, seen: Facts, role: Role) -> set[Resource]:
    held = desired(config, replace(seen, role=role)).state.values()
    return {one for one in held if isinstance(one, Link | Route)}


@pytest.mark.parametrize("kind", ["vpc", "isolated"])
def test_it_is_exactly_what_the_two_roles_differ_in(kind: str, tmp_path: Path) -> None:
    nics = (Nic("02:00:47:00:00:0e", "eth0"), Nic("0e:00:a9:47:00:3c", "eth1"), Nic("1e:00:c6:33:64:47", "eth2"))
    seen = HERE if kind == "vpc" else Facts(nics, Role.BACKUP)
    config = bags(TIERS if kind == "vpc" else [{"type": "cmdline", "cmd_line": ISOLATED}], seen)
    promotion_file.prepare(tmp_path, config, seen, 7)
    text = (tmp_path / promotion.PATH.lstrip("/")).read_text()

    missing = ways(config, seen, Role.MASTER) - ways(config, seen, Role.BACKUP)
    assert missing, "a promotion gives links and routes"
    assert len(commands(text)) == len(missing)
    outer = "eth1" if kind == "vpc" else "eth2"
    assert re.search(rf"^link set dev {outer}( mtu \d+)? up$", text, re.MULTILINE)
    assert re.search(rf"^route replace unicast default via \S+ dev {outer} ", text, re.MULTILINE)
    assert text.startswith(f"# generation 000007\n# nic {outer} {seen.mac(outer)}\n")
    back = (tmp_path / promotion.BACK.lstrip("/")).read_text()
    assert back.startswith(f"# generation 000007\n# nic {outer} {seen.mac(outer)}\n")
    assert re.search(rf"^link set dev {outer}( mtu \d+)? down$", back, re.MULTILINE)
    assert not re.search(r" up$|^route .* dev ", back, re.MULTILINE), "what goes goes with its link"


def test_links_come_first_and_ways_to_gateways_last() -> None:
    serving = state(
        Route("default", gateway="192.0.2.1", device="eth1"),
        Route("192.0.2.1/32", device="eth1"),
        Link("eth1", mtu=1450),
        Route("10.0.0.0/8", table=1003, kind="throw"),
    )
    assert commands(promotion.batch(state(Link("eth1", up=False, mtu=1450)), serving, 1, {})) == [
        "link set dev eth1 mtu 1450 up",
        "route replace throw 10.0.0.0/8 table 1003 proto 77",
        "route replace unicast 192.0.2.1/32 dev eth1 table 254 proto 77",
        "route replace unicast default via 192.0.2.1 dev eth1 table 254 proto 77",
    ]


def test_what_is_no_word_for_ip_is_left_to_the_convergence() -> None:
    assert commands(promotion.batch({}, state(Link("eth1"), Link("eth2\nlink delete eth0")), 1, {})) == [
        "link set dev eth1 up"
    ]


def test_a_router_that_always_serves_has_none_and_an_older_one_goes(tmp_path: Path) -> None:
    path = tmp_path / promotion.PATH.lstrip("/")
    promotion_file.prepare(tmp_path, bags(TIERS, HERE), HERE, 3)
    assert path.stat().st_mode & 0o777 == 0o600
    promotion_file.prepare(tmp_path, bags([line(redundant_router="0"), *TIERS[1:]], HERE), HERE, 4)
    assert not path.exists()
    assert not (tmp_path / promotion.BACK.lstrip("/")).exists()


def test_an_equal_one_is_not_written_again(tmp_path: Path) -> None:
    path = tmp_path / promotion.PATH.lstrip("/")
    promotion_file.leave(tmp_path, {}, state(Link("eth1")), 3, MACS)
    before = path.stat().st_ino
    promotion_file.leave(tmp_path, {}, state(Link("eth1")), 3, MACS)
    assert path.stat().st_ino == before
    promotion_file.leave(tmp_path, {}, state(Link("eth1")), 4, MACS)
    assert path.read_text().startswith("# generation 000004\n")


HOOK = Path(__file__).parent.parent / "system/libexec/holdfast-role"


class Hooked:
    """The hook's own text with its places moved, and an `ip` that writes down that it was called."""

    def __init__(self, root: Path) -> None:
        self.root = root
        for name in ("run/holdfast/vrrp", "etc/cloudstack/generations/000012", "sys/class/net/eth1", "bin"):
            (root / name).mkdir(parents=True)
        (root / "etc/cloudstack/current").symlink_to("generations/000012")
        self.mac("eth1", MACS["eth1"])
        (root / "bin/ip").write_text(f'#!/bin/sh\necho "$@" >>{root}/called\n')
        (root / "bin/ip").chmod(0o755)
        text = HOOK.read_text().replace("PATH=", f"PATH={root}/bin:")
        for place in ("/run/holdfast", "/etc/cloudstack", "/sys/class/net"):
            text = text.replace(place, f"{root}{place}")
        (root / "hook").write_text(text)

    def mac(self, device: str, mac: str) -> None:
        (self.root / f"sys/class/net/{device}/address").write_text(f"{mac}\n")

    def left(self, generation: int) -> None:
        promotion_file.leave(self.root, {}, state(Link("eth1"), Link("eth7")), generation, {**MACS, "eth7": mac(7)})

    def says(self, word: str) -> bool:
        """Whether the batch of a promotion was run."""
        return self.runs(word) == "promotion"

    def runs(self, word: str) -> str:
        """Which batch was run, empty for none."""
        called = self.root / "called"
        called.unlink(missing_ok=True)
        subprocess.run(["/bin/sh", self.root / "hook", "INSTANCE", "inside", word, "240"], check=True, timeout=10)
        assert self.read("role") == {"STOP": "BACKUP"}.get(word, word)
        return called.read_text().replace("-force -batch ", "").strip() if called.exists() else ""

    def read(self, name: str) -> str:
        return (self.root / "run/holdfast" / name).read_text().strip()

    def tell(self, name: str, text: str) -> None:
        (self.root / "run/holdfast/vrrp" / name).write_text(text)


@pytest.fixture
def hooked(tmp_path: Path) -> Hooked:
    return Hooked(tmp_path)


def test_the_hook_runs_the_batch_at_a_promotion_alone(hooked: Hooked) -> None:
    hooked.left(12)
    assert [hooked.says(word) for word in ("MASTER", "BACKUP", "FAULT", "MASTER", "STOP")] == [
        True, False, False, True, False,
    ]  # fmt: skip
    assert (hooked.root / "run/holdfast/role.moved").exists()


def test_the_way_back_is_taken_at_once_where_the_peer_serves_already(hooked: Hooked) -> None:
    hooked.left(12)
    ways = [("MASTER", "promotion"), ("BACKUP", "demotion"), ("BACKUP", ""), ("FAULT", ""), ("BACKUP", "")]
    assert [hooked.runs(word) for word, _ in ways] == [batch for _, batch in ways]

    for stepped_back in ("FAULT", "STOP"):
        assert hooked.runs("MASTER") == "promotion"
        assert hooked.runs(stepped_back) == "", "it forwards until the peer serves"
        assert hooked.runs("BACKUP") == ""

    hooked.says("MASTER")
    (hooked.root / "run/holdfast/leaving").write_text("12.5\n")
    assert hooked.runs("BACKUP") == "", "it hands over on purpose"
    (hooked.root / "run/holdfast/leaving").unlink()
    hooked.says("MASTER")
    hooked.left(11)
    assert hooked.runs("BACKUP") == "", "made before the last command"


def test_the_hook_refuses_a_batch_for_another_generation_or_another_nic(hooked: Hooked) -> None:
    hooked.left(11)
    assert not hooked.says("MASTER"), "made before the last command"
    hooked.left(12)
    hooked.mac("eth1", mac(9))
    assert not hooked.says("MASTER"), "another card bears the name now"
    (hooked.root / "run/holdfast/promotion").write_text("link set dev eth1 up\n")
    assert not hooked.says("MASTER"), "whoever made it did not say for what"
    (hooked.root / "run/holdfast/promotion").unlink()
    assert not hooked.says("MASTER")


def test_the_gateways_macs_are_set_when_the_links_are_up_and_at_a_promotion_alone(hooked: Hooked) -> None:
    hooked.left(12)
    (hooked.root / "run/holdfast/neighbours").write_text("")
    assert hooked.runs("MASTER").split() == ["promotion", "neighbours"]
    assert hooked.runs("BACKUP") == "demotion"


@pytest.mark.parametrize(
    ("own", "peers", "raised"),
    [
        ("0\n", "", "1"), ("3\n", "", "4"), ("0\n", "5\n", "6"), ("7\n", "5\n", "8"), ("9\n", "9\n", "10"),
        ("14\n", "3\n", "14"), ("2\n", "14\n", "14"), ("", "", "1"), ("x", "99\n", "1"), ("08\n", "-1\n", "1"),
    ],
)  # fmt: skip
def test_each_promotion_raises_the_term_above_both(own: str, peers: str, raised: str, hooked: Hooked) -> None:
    hooked.tell("term", own)
    if peers:
        hooked.tell("peer_term", peers)
    hooked.says("MASTER")
    assert hooked.read("vrrp/term") == raised
    hooked.says("BACKUP")
    assert hooked.read("vrrp/term") == raised, "who steps back keeps it"


def test_a_pipe_that_nobody_reads_holds_nobody_up(hooked: Hooked) -> None:
    os.mkfifo(hooked.root / "run/holdfast/wake")
    hooked.says("MASTER")


class Neighbours:
    """Who hears the announcements."""

    def __init__(self, root: Path) -> None:
        self.root, self.heard = root, list[tuple[str, list[str]]]()
        (root / "run/holdfast").mkdir(parents=True)
        self.driver = Announcements(Marks(root / "run/holdfast/marks"), root, self.hear)

    def hear(self, device: str, addresses: Iterable[str]) -> None:
        self.heard.append((device, list(addresses)))

    def word(self, text: str) -> None:
        (self.root / "run/holdfast/role.by").write_text(text)

    def run(self, wanted: Mapping[str, tuple[str, ...]]) -> list[tuple[str, list[str]]]:
        """One run, as the spine makes it; what was heard."""
        self.heard.clear()
        desired = state(*(Announcement(device, addresses) for device, addresses in wanted.items()))
        seen: State = {one.key: one for one in self.driver.observe(desired)}
        changes = [Change(seen.get(key), desired.get(key)) for key in sorted(seen.keys() | desired.keys())]
        assert not list(self.driver.apply([one for one in changes if one.before != one.after]))
        assert {one.key: one for one in self.driver.observe(desired)} == desired, "it sticks"
        return list(self.heard)


def test_neighbours_hear_once_of_each_address_and_anew_after_each_promotion(tmp_path: Path) -> None:
    near = Neighbours(tmp_path)
    one, two = ("203.0.113.5",), ("203.0.113.5", "203.0.113.9")
    near.word("100 7\n")

    assert near.run({"eth1": one}) == [("eth1", [*one])]
    assert near.run({"eth1": one}) == []
    assert near.run({"eth1": two}) == [("eth1", ["203.0.113.9"])]
    assert near.run({"eth1": two, "eth4": one}) == [("eth4", [*one])]
    near.word("200 9\n")
    assert near.run({"eth1": two, "eth4": one}) == [("eth1", [*two]), ("eth4", [*one])]
    assert near.run({}) == []
    assert near.run({"eth1": two}) == [("eth1", [*two])]


def test_a_damaged_note_costs_one_announcement(tmp_path: Path) -> None:
    near = Neighbours(tmp_path)
    near.run({"eth1": ("203.0.113.5",)})
    (tmp_path / "run/holdfast/marks/announced").write_bytes(b'{"word":')
    assert near.run({"eth1": ("203.0.113.5",)}) == [("eth1", ["203.0.113.5"])]


@pytest.mark.parametrize(
    ("own", "peer", "since_s", "due"),
    [
        (0, 0, 49.9, False), (0, 0, 50, True), (1000, 990, 10, False), (1000, 200, 4.9, False),
        (1000, 200, 5, True), (200, 1000, 10, False), (100_000, 95_000, 30, False), (100_000, 80_000, 30, True),
    ],
)  # fmt: skip
def test_who_serves_tells_all_again_in_time_or_where_too_few_were_heard(
    own: int, peer: int, since_s: float, *, due: bool
) -> None:
    assert conntrackd.resync_due(own, peer, since_s) == due


def test_a_backup_forgets_only_what_is_far_too_much_and_seldom() -> None:
    assert conntrackd.refill_due(100_000, 1000, 300)
    assert not conntrackd.refill_due(100_000, 1000, 299)
    assert not conntrackd.refill_due(1100, 1000, 10_000)
