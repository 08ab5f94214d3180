"""The store and its lock: laws 7 and 9 against a power cut at every operation, kill -9, and damage of every kind."""

import errno
import os
import random
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from hashlib import sha256
from pathlib import Path

import msgspec
import pytest

from holdfast.disk import Disk
from holdfast.errors import Failed
from holdfast.generation import Held, surplus
from holdfast.lock import locked
from holdfast.store import SHARED_BY, Damaged, Generation, Retention, Store
from power_cut import RecordingDisk, Tree

DAY = 86_400
SOURCE = Path(__file__).parent.parent / "src"


def bags(number: int) -> dict[str, bytes]:
    return {"ips": b'{"n": %d}' % number, "hosts": b'{"always": "the same"}', "rules": b"[%d]" % (number * 7)}


def add(store: Store, number: int) -> int:
    made = store.propose(bags(number), events=[(f"{number}.json", b"%d" % number)], cause=f"test {number}")
    store.accept(made)
    return made


def filled(root: Path, count: int, retention: Retention = Retention()) -> Store:  # noqa: B008 immutable
    store = Store(root, retention=retention)
    for number in range(1, count + 1):
        add(store, number)
    return store


def names(directory: Path) -> list[str]:
    return sorted(each.name for each in directory.iterdir())


def whole(found: Generation | None) -> Generation:
    assert found is not None
    return found


# --- a generation is written and read


def test_a_fresh_machine_has_no_generation(tmp_path: Path) -> None:
    store = Store(tmp_path / "cloudstack")
    assert store.load() is None
    assert store.damage == []
    assert store.history() == []


def test_a_generation_is_read_as_it_was_written(tmp_path: Path) -> None:
    store = Store(tmp_path / "cloudstack", clock=lambda: 1234.5)
    messages = [("ip.json", b'{"a":1}\n'), ("odd\udcff.json", b"\xff\x00\xfe"), ("empty.json", b"")]
    number = store.propose(bags(1), events=messages, cause="update_config", refused=[["rules[1]", "7", "no such nic"]])
    assert store.load() is None, "a proposal is not current"
    assert store.read(number).documents == bags(1)
    store.accept(number)
    found = whole(Store(tmp_path / "cloudstack").load())
    assert found.documents == bags(1)
    assert found.number == found.meta.number == 1
    assert found.meta.parent == 0
    assert found.meta.created == 1234.5
    assert found.meta.events == ("ip.json", "odd\\udcff.json", "empty.json")
    assert found.meta.refused == (["rules[1]", "7", "no such nic"],)
    assert found.meta.digests["ips.json"] == sha256(bags(1)["ips"]).hexdigest()
    assert [data for _, data in store.messages(1)] == [data for _, data in messages]


def test_every_path_that_operators_know_still_reads(tmp_path: Path) -> None:
    (tmp_path / "ips.json").write_bytes(b"what CloudStack's own agent left")
    (tmp_path / "theirs.json").symlink_to("/nowhere")
    store = filled(tmp_path, 1)
    assert (tmp_path / "current").readlink() == Path("generations/000001")
    assert (tmp_path / "ips.json").readlink() == Path("current/ips.json")
    assert (tmp_path / "ips.json").read_bytes() == bags(1)["ips"]
    assert (tmp_path / "ips.json.before-000001").read_bytes() == b"what CloudStack's own agent left"
    assert not (tmp_path / "command.json").exists()
    add(store, 2)
    assert (tmp_path / "ips.json").read_bytes() == bags(2)["ips"]
    store.accept(store.propose({"other": b"{}"}, cause="bags went"))
    assert not (tmp_path / "ips.json").is_symlink()
    assert (tmp_path / "other.json").read_bytes() == b"{}"
    assert (tmp_path / "theirs.json").is_symlink(), "another hand's link is left alone"


def test_nobody_else_can_read_it(tmp_path: Path) -> None:
    filled(tmp_path / "cloudstack", 1)
    for path in (tmp_path / "cloudstack").rglob("*"):
        if not path.is_symlink():
            assert path.stat().st_mode & 0o7777 == (0o700 if path.is_dir() else 0o400), path


@pytest.mark.parametrize("name", ["meta", "command", "../x", "a/b", "", ".hidden", "x\n", "a" * 65])
def test_a_document_cannot_be_another_file(tmp_path: Path, name: str) -> None:
    with pytest.raises(ValueError, match="no name for a document"):
        Store(tmp_path).propose({name: b"{}"}, cause="test")
    assert list(tmp_path.iterdir()) == []


def test_a_discarded_proposal_leaves_nothing(tmp_path: Path) -> None:
    store = filled(tmp_path, 2)
    store.discard(store.propose(bags(3), cause="did not hold"))
    assert names(tmp_path / "generations") == ["000001", "000002"]
    assert whole(store.load()).documents == bags(2)
    assert add(store, 3) == 3


def test_a_proposal_left_by_a_crash_is_never_used(tmp_path: Path) -> None:
    Store(tmp_path).propose(bags(99), cause="first, crashed")
    assert Store(tmp_path).load() is None
    filled(tmp_path, 2)
    left = Store(tmp_path).propose(bags(99), cause="crashed")
    (tmp_path / "current").unlink()
    store = Store(tmp_path)
    assert whole(store.load()).documents == bags(2), "not even when the way to the current one is lost"
    assert store.damage == [f"{tmp_path}/current: missing"]
    assert add(store, 3) == left + 1
    assert [meta.cause for meta in store.history()] == ["test 3", "test 2", "test 1"]


# --- sharing, retention


def test_unchanged_documents_share_an_inode_but_never_more_than_ten(tmp_path: Path) -> None:
    filled(tmp_path, 20)
    generations = tmp_path / "generations"
    hosts = [(generations / f"{n:06d}" / "hosts.json").stat().st_ino for n in range(1, 21)]
    ips = [(generations / f"{n:06d}" / "ips.json").stat().st_ino for n in range(1, 21)]
    assert len(set(hosts)) == 2
    assert max(hosts.count(inode) for inode in hosts) == SHARED_BY
    assert len(set(ips)) == 20


def test_a_damaged_document_is_not_shared_with_the_next_generation(tmp_path: Path) -> None:
    store = filled(tmp_path, 3)
    damaged = tmp_path / "generations/000003/hosts.json"
    damaged.chmod(0o600)
    damaged.write_bytes(b"x")  # in place: all three generations have it
    with pytest.raises(Damaged, match="no generation is whole"):
        store.load()
    add(store, 4)
    assert whole(store.load()).documents == bags(4)
    assert store.damage == []


def test_history_is_pruned_and_the_last_of_each_day_stays(tmp_path: Path) -> None:
    now = [100.0 * DAY]
    store = Store(tmp_path, retention=Retention(last=3, days=4), clock=lambda: now[0])
    for number in range(1, 21):
        add(store, number)
        now[0] += DAY / 2
    assert [meta.number for meta in store.history()] == [20, 19, 18, 16, 14]
    assert names(tmp_path / "generations") == ["000014", "000016", "000018", "000019", "000020"]


def test_the_size_budget_counts_shared_bytes_once(tmp_path: Path) -> None:
    big = os.urandom(40_000)
    store = Store(tmp_path, retention=Retention(size=100_000))
    for number in range(8):
        store.accept(store.propose({"big": big, "n": b"%d" % number}, cause="shared"))
    assert len(store.history()) == 8
    for _ in range(4):
        store.accept(store.propose({"big": os.urandom(40_000)}, cause="all new"))
    assert [meta.number for meta in store.history()] == [12, 11]


def test_the_current_generation_and_its_parent_stay_whatever_they_cost() -> None:
    held = [Held(number, 0.0, {number: 1000}) for number in (9, 8, 7, 6)]
    assert surplus(held, frozenset({9, 7}), Retention(size=10)) == [8, 6]
    assert surplus(held, frozenset({9, 7}), Retention(last=0, days=0)) == [8, 6]


def test_a_generation_of_unknown_age_goes_with_its_number() -> None:
    held = [Held(number, None, {}) for number in (3, 2, 1)]
    assert surplus(held, frozenset(), Retention(last=2)) == [1]


# --- the power goes between any two operations


Story = Callable[[Store], None]


def propose_and_accept(store: Store) -> None:
    store.accept(store.propose(bags(50), events=[("m.json", b"{}")], cause="new"))


def propose_and_discard(store: Store) -> None:
    store.discard(store.propose(bags(50), events=[("m.json", b"{}")], cause="new"))


def other_bags(store: Store) -> None:
    store.accept(store.propose({"fresh": b"{}", "ips": bags(50)["ips"]}, cause="bags come and go"))


def after_a_crash(store: Store) -> None:
    store.propose(bags(98), cause="abandoned")
    propose_and_accept(store)


CUTS: dict[str, tuple[int, Retention, Story]] = {
    "first ever": (0, Retention(), propose_and_accept),
    "ordinary": (2, Retention(), propose_and_accept),
    "full copies": (10, Retention(), propose_and_accept),
    "pruning": (5, Retention(last=2, days=0), propose_and_accept),
    "bags come and go": (2, Retention(), other_bags),
    "abandoned before": (2, Retention(), after_a_crash),
    "first discarded": (0, Retention(), propose_and_discard),
    "discarded": (2, Retention(), propose_and_discard),
}


@pytest.mark.parametrize("name", CUTS)
def test_a_power_cut_leaves_the_old_or_the_new_generation(tmp_path: Path, name: str) -> None:
    before, retention, story = CUTS[name]
    top = tmp_path / "etc"
    top.mkdir()
    filled(top / "cloudstack", before, retention)
    disk = RecordingDisk(top)
    old = Store(top / "cloudstack").load()
    story(Store(top / "cloudstack", disk, retention=retention))
    new = Store(top / "cloudstack").load()
    assert ("write hosts.json" in disk.log) == (name in {"first ever", "first discarded", "full copies"})
    assert any(".removed" in done for done in disk.log) == (name == "pruning")
    switched = False
    seen: dict[Tree, int | None] = {}
    for done, states in zip(disk.log, disk.states, strict=True):
        numbers = set()
        for state in states:
            if state not in seen:
                seen[state] = wake_up(state, tmp_path / "woken", old, new, f"{name}, after {done}")
            numbers.add(seen[state])
        # Nothing goes back: once durable, the new one is all that there is; and it isn't current before it is whole.
        if not switched:
            switched = numbers == {new and new.number} != {old and old.number}
        else:
            assert numbers == {new and new.number}, done
    assert switched == (story is not propose_and_discard)
    assert len(seen) > len(disk.log) / 2


def wake_up(state: Tree, top: Path, old: Generation | None, new: Generation | None, where: str) -> int | None:
    state.lay_out(top)
    try:
        store = Store(top / "cloudstack")
        found = store.load()
        assert store.damage == [], where
        assert (found and found.documents) in [each and each.documents for each in (old, new)], where
        number = add(store, 77)
        after = whole(store.load())
        assert store.damage == [], where
        assert (after.number, after.documents) == (number, bags(77)), where
        left = {each for each in names(top / "cloudstack/generations") if not each.isdigit()}
        assert left == set(), where
        assert (top / "cloudstack/ips.json").read_bytes() == bags(77)["ips"], where
        for meta in store.history():
            assert store.read(meta.number).documents.keys(), where
        return found and found.number
    finally:
        shutil.rmtree(top)


@pytest.mark.parametrize(
    "forgotten", ["ips.json", "hosts.json", "meta.json", "000001.proposed", "generations", "cloudstack", "etc"]
)
def test_every_sync_is_needed(tmp_path: Path, forgotten: str) -> None:
    class Forgetful(RecordingDisk):
        def sync(self, path: Path) -> None:
            if path.name != forgotten:
                super().sync(path)

    top = tmp_path / "etc"
    top.mkdir()
    disk = Forgetful(top)
    propose_and_accept(Store(top / "cloudstack", disk))
    new = whole(Store(top / "cloudstack").load())
    assert any(lost(state, tmp_path / "woken", new) for state in disk.states[-1])


def lost(state: Tree, top: Path, new: Generation) -> bool:
    state.lay_out(top)
    try:
        store = Store(top / "cloudstack")
        return store.load() != new or store.damage != []
    except Damaged:
        return True
    finally:
        shutil.rmtree(top)


CHILD = """
import sys
from pathlib import Path
from holdfast.generation import Retention
from holdfast.store import Store
store = Store(Path(sys.argv[1]), retention=Retention(last=4, days=0))
found = store.load()
count = int(found.documents["a"]) if found else 0
while True:
    count += 1
    text = b"%d" % count
    number = store.propose({"a": text, "b": text * 2000, "same": b"{}"}, events=[("m", text)], cause="again")
    if count % 5 == 0:
        store.discard(number)
        continue
    store.accept(number)
    print(count, flush=True)
"""


def test_kill_9_at_any_moment_loses_nothing(tmp_path: Path) -> None:
    seed = random.SystemRandom().randrange(1 << 32)
    print("seed", seed)  # noqa: T201 shown when the test fails
    chance = random.Random(seed)  # noqa: S311 a sample, not a secret
    acknowledged = 0
    for _ in range(36):
        child = subprocess.Popen(
            [sys.executable, "-c", CHILD, str(tmp_path)], stdout=subprocess.PIPE, env={"PYTHONPATH": str(SOURCE)}
        )
        assert child.stdout is not None
        first = child.stdout.readline()
        time.sleep(chance.random() * 0.03)
        child.send_signal(signal.SIGKILL)
        rest = child.stdout.read().split(b"\n")[:-1]
        child.stdout.close()
        assert child.wait() == -signal.SIGKILL
        acknowledged = int([first, *rest][-1])
        store = Store(tmp_path)
        found = whole(store.load())
        assert store.damage == []
        count = int(found.documents["a"])
        assert found.documents == {"a": b"%d" % count, "b": b"%d" % count * 2000, "same": b"{}"}
        assert acknowledged <= count <= acknowledged + 2


# --- damage of every kind


def flip(path: Path, place: int, bit: int) -> None:
    data = bytearray(path.read_bytes())
    data[place] ^= 1 << bit
    path.unlink()
    path.write_bytes(data)


@pytest.mark.parametrize("name", ["ips.json", "hosts.json", "rules.json", "meta.json"])
def test_a_flipped_bit_is_found_and_the_last_good_generation_used(tmp_path: Path, name: str) -> None:
    filled(tmp_path, 3)
    path = tmp_path / "generations/000003" / name
    good = path.read_bytes()
    for place in range(len(good)):
        flip(path, place, place % 8)
        store = Store(tmp_path)
        assert whole(store.load()).documents == bags(2), f"byte {place}"
        assert len(store.damage) == 1
        assert str(path) in store.damage[0]
        path.write_bytes(good)
    assert whole(store.load()).number == 3


def test_a_damaged_record_is_told_but_the_configuration_stays(tmp_path: Path) -> None:
    store = filled(tmp_path, 3)
    path = tmp_path / "generations/000003/command.json"
    flip(path, 5, 2)
    assert whole(store.load()).documents == bags(3)
    assert store.damage == [f"{path}: checksum does not match"]
    with pytest.raises(Damaged, match="checksum does not match"):
        store.messages(3)


def truncate(path: Path) -> None:
    data = path.read_bytes()
    path.unlink()
    path.write_bytes(data[:-3])


def empty(path: Path) -> None:
    path.unlink()
    path.touch()


def as_directory(path: Path) -> None:
    path.unlink()
    path.mkdir()


@pytest.mark.parametrize(
    ("harm", "reason"),
    [(truncate, "checksum"), (Path.unlink, "missing"), (empty, "empty"), (as_directory, "Is a directory")],
)
def test_a_harmed_bag_is_never_an_empty_bag(tmp_path: Path, harm: Callable[[Path], None], reason: str) -> None:
    store = filled(tmp_path, 3)
    harm(tmp_path / "generations/000003/ips.json")
    assert whole(store.load()).documents == bags(2)
    assert len(store.damage) == 1
    assert store.damage[0].startswith(f"{tmp_path}/generations/000003/ips.json: {reason}")
    assert add(store, 4) == 4
    found = whole(store.load())
    assert (found.documents, found.meta.parent, store.damage) == (bags(4), 2, [])


@pytest.mark.parametrize(
    ("text", "reason"), [(b"", "empty"), (b"{", "truncated"), (b"\xff", "malformed"), (b"{}", "missing required")]
)
def test_a_broken_meta(tmp_path: Path, text: bytes, reason: str) -> None:
    store = filled(tmp_path, 2)
    path = tmp_path / "generations/000002/meta.json"
    path.unlink()
    path.write_bytes(text)
    assert whole(store.load()).documents == bags(1)
    assert len(store.damage) == 1
    assert store.damage[0].startswith(f"{path}: ")
    assert reason in store.damage[0]


def test_a_meta_of_another_generation(tmp_path: Path) -> None:
    store = filled(tmp_path, 2)
    shutil.copytree(tmp_path / "generations/000001", tmp_path / "generations/000003")
    store = Store(tmp_path)
    assert whole(store.load()).number == 2
    with pytest.raises(Damaged, match=r"000003/meta\.json: belongs to generation 1"):
        store.read(3)


def test_current_leads_nowhere(tmp_path: Path) -> None:
    store = filled(tmp_path, 3)
    shutil.rmtree(tmp_path / "generations/000003")
    assert whole(store.load()).documents == bags(2)
    assert store.damage == [f"{tmp_path}/generations/000003/meta.json: missing"]
    assert add(store, 4) == 4


def test_current_leads_elsewhere(tmp_path: Path) -> None:
    store = filled(tmp_path, 3)
    (tmp_path / "current").unlink()
    (tmp_path / "current").symlink_to("/etc")
    assert whole(store.load()).documents == bags(3)
    assert store.damage == [f"{tmp_path}/current: points to '/etc', which is no generation"]


def test_current_is_a_directory_by_mistake(tmp_path: Path) -> None:
    store = filled(tmp_path, 3)
    (tmp_path / "current").unlink()
    shutil.copytree(tmp_path / "generations/000001", tmp_path / "current")
    assert whole(store.load()).documents == bags(3)
    assert store.damage == [f"{tmp_path}/current: not a symbolic link (Invalid argument)"]
    add(store, 4)
    assert whole(store.load()).documents == bags(4)
    assert store.damage == []
    assert (tmp_path / "current.before-000004/ips.json").exists(), "put aside, not destroyed"


def test_all_generations_gone_is_not_a_fresh_machine(tmp_path: Path) -> None:
    store = filled(tmp_path, 2)
    shutil.rmtree(tmp_path / "generations")
    with pytest.raises(Damaged, match=r"no generation is whole: .*000002/meta\.json: missing"):
        store.load()
    assert add(store, 3) == 3, "the next complete configuration heals it"
    assert whole(store.load()).documents == bags(3)


class BadSectors(Disk):
    """A disk that can't be read, or not be written, at paths that end like this."""

    def __init__(self, *, read: str = "-", write: str = "-") -> None:
        self.bad = (read, write)

    def read(self, path: Path) -> bytes:
        if str(path).endswith(self.bad[0]):
            raise OSError(errno.EIO, os.strerror(errno.EIO), str(path))
        return super().read(path)

    def write(self, path: Path, data: bytes) -> None:
        if str(path).endswith(self.bad[1]):
            super().write(path, data[:1])
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), str(path))
        super().write(path, data)


def test_an_unreadable_bag(tmp_path: Path) -> None:
    filled(tmp_path, 2)
    store = Store(tmp_path, BadSectors(read="2/ips.json"))
    assert whole(store.load()).documents == bags(1)
    assert store.damage == [f"{tmp_path}/generations/000002/ips.json: Input/output error"]


def test_a_full_disk_changes_nothing_and_says_so(tmp_path: Path) -> None:
    filled(tmp_path, 2)
    with pytest.raises(Failed, match=r"cannot be written: .*ips\.json: No space left on device"):
        add(Store(tmp_path, BadSectors(write="ips.json")), 3)
    store = Store(tmp_path)
    assert whole(store.load()).documents == bags(2)
    assert store.damage == []
    assert names(tmp_path / "generations") == ["000001", "000002"]


def test_accepting_what_was_not_proposed_changes_nothing(tmp_path: Path) -> None:
    store = filled(tmp_path, 2)
    with pytest.raises(Failed, match="generation 9 cannot become current"):
        store.accept(9)
    assert whole(store.load()).number == 2


def test_a_later_field_of_meta_does_not_break_an_older_program(tmp_path: Path) -> None:
    store = filled(tmp_path, 1)
    path = tmp_path / "generations/000001/meta.json"
    meta = msgspec.json.decode(path.read_bytes())["meta"] | {"from_the_future": [1]}
    text = msgspec.json.encode(meta)
    path.unlink()
    path.write_bytes(b'{"sha256":"%s","meta":%s}' % (sha256(text).hexdigest().encode(), text))
    assert whole(store.load()).documents == bags(1)
    assert store.damage == []


# --- the lock

HOLDER = """
import sys, time
from pathlib import Path
from holdfast.lock import locked
with locked(Path(sys.argv[1])):
    print("held", flush=True)
    time.sleep(float(sys.argv[2]))
    print("done", flush=True)
"""


def hold(path: Path, seconds: float) -> subprocess.Popen[str]:
    child = subprocess.Popen(
        [sys.executable, "-c", HOLDER, str(path), str(seconds)],
        stdout=subprocess.PIPE,
        text=True,
        env={"PYTHONPATH": str(SOURCE)},
    )
    assert child.stdout is not None
    assert child.stdout.readline() == "held\n"
    return child


def end(child: subprocess.Popen[str]) -> None:
    child.kill()
    child.communicate()


def test_a_second_process_waits_its_turn_and_says_once_that_it_waits(tmp_path: Path) -> None:
    said: list[float] = []
    start = time.monotonic()
    child = hold(tmp_path / "run/lock", 1.6)
    try:
        with locked(tmp_path / "run/lock", on_wait=lambda: said.append(time.monotonic() - start)):
            assert time.monotonic() - start >= 1.5
            assert child.stdout is not None
            assert child.stdout.readline() == "done\n"
    finally:
        end(child)
    assert len(said) == 1
    assert said[0] >= 1.0
    assert (tmp_path / "run/lock").exists()


def test_a_lock_that_is_free_is_silent(tmp_path: Path) -> None:
    said: list[str] = []
    for _ in range(3):
        with locked(tmp_path / "lock", on_wait=lambda: said.append("waiting")):
            assert (tmp_path / "lock").read_text() == f"{os.getpid()}\n"
    assert said == []


def test_waiting_has_an_end_and_names_the_holder(tmp_path: Path) -> None:
    child = hold(tmp_path / "lock", 60)
    try:
        with (
            pytest.raises(Failed, match=f"held by process {child.pid} for more than 0 s"),
            locked(tmp_path / "lock", wait_s=0.2),
        ):
            pytest.fail("two held it")
    finally:
        end(child)
    with locked(tmp_path / "lock", wait_s=1):
        pass  # who gave up does not take it later


def test_a_dead_holder_holds_nothing(tmp_path: Path) -> None:
    child = hold(tmp_path / "lock", 60)
    start = time.monotonic()
    os.kill(child.pid, signal.SIGKILL)
    with locked(tmp_path / "lock", wait_s=5):
        assert time.monotonic() - start < 1
    end(child)
