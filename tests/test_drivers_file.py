"""Files are written whole, owned by manifest, and judged before they replace anything."""

import grp
import json
import os
import stat
from collections.abc import Sequence
from pathlib import Path

import pytest
from msgspec.structs import replace

from holdfast.converge import Failure
from holdfast.drivers.file import Files
from holdfast.state import Change, File, Resource, State, diff

TEXT = "interface=eth0\n"


class Disk:
    """A root of its own, a manifest beside it, and the spine in small."""

    def __init__(self, base: Path) -> None:
        self.root = base / "root"
        self.root.mkdir()
        self.manifest = base / "lib" / "manifest.json"

    def files(self) -> Files:
        return Files(self.manifest, self.root)

    def plan(self, *wanted: Resource) -> tuple[Files, list[Change]]:
        files, desired = self.files(), state(*wanted)
        return files, diff(state(*files.observe(desired)), desired)

    def converge(self, *wanted: Resource) -> list[Failure]:
        files, changes = self.plan(*wanted)
        return [*files.check(changes), *files.apply(changes)]

    def owned(self) -> list[str]:
        owned: list[str] = json.loads(self.manifest.read_text())
        return owned

    def everything(self) -> list[str]:
        return sorted(str(path.relative_to(self.root)) for path in self.root.rglob("*") if not path.is_dir())


def state(*resources: Resource) -> State:
    return {one.key: one for one in resources}


@pytest.fixture
def disk(tmp_path: Path) -> Disk:
    return Disk(tmp_path)


def test_a_file_is_made_with_its_directories_and_exact_modes(disk: Disk) -> None:
    before = os.umask(0o077)
    try:
        assert disk.converge(File("/etc/a/b/x.conf", TEXT, mode=0o640)) == []
    finally:
        os.umask(before)

    made = disk.root / "etc/a/b/x.conf"
    assert made.read_text() == TEXT
    assert stat.S_IMODE(made.stat().st_mode) == 0o640
    assert stat.S_IMODE(made.parent.stat().st_mode) == 0o755
    assert disk.everything() == ["etc/a/b/x.conf"]
    assert disk.owned() == ["/etc/a/b/x.conf"]


def test_a_converged_file_is_left_alone_whatever_hangs_on_it(disk: Disk) -> None:
    file = File("/x", TEXT, check=("false",), restart="a.service", reload="b.service", secret=True)
    disk.converge(replace(file, check=()))

    assert disk.plan(file)[1] == []


@pytest.mark.skipif(os.geteuid() != 0, reason="only root gives files away")
def test_a_group_may_read_it_and_where_there_is_none_it_stays_roots(disk: Disk) -> None:
    shared, lonely = File("/x", TEXT, 0o640, group="daemon"), File("/y", TEXT, 0o640, group="no-such-group")

    assert disk.converge(shared, lonely) == []
    assert disk.plan(shared, lonely)[1] == []
    assert (disk.root / "x").stat().st_gid == grp.getgrnam("daemon").gr_gid
    assert (disk.root / "y").stat().st_gid == 0
    os.chown(disk.root / "x", 0, 0)
    assert disk.converge(shared, lonely) == []
    assert (disk.root / "x").stat().st_gid == grp.getgrnam("daemon").gr_gid


@pytest.mark.parametrize(("text", "mode"), [("other\n", 0o644), (TEXT, 0o600)], ids=["another text", "another mode"])
def test_what_another_hand_changed_is_put_right(disk: Disk, text: str, mode: int) -> None:
    file = File("/x", TEXT)
    disk.converge(file)
    (disk.root / "x").write_text(text)
    (disk.root / "x").chmod(mode)

    assert len(disk.plan(file)[1]) == 1
    assert disk.converge(file) == []
    assert disk.plan(file)[1] == []


def test_bytes_that_are_no_text_differ_even_from_their_replacement(disk: Disk) -> None:
    (disk.root / "x").write_bytes(b"\xff")
    file = File("/x", "\ufffd")

    assert len(disk.plan(file)[1]) == 1
    assert disk.converge(file) == []
    assert (disk.root / "x").read_text() == "\ufffd"


def test_a_link_is_replaced_and_not_followed(disk: Disk) -> None:
    (disk.root / "target").write_text("keep me")
    (disk.root / "x").symlink_to("target")

    assert disk.converge(File("/x", TEXT)) == []

    assert not (disk.root / "x").is_symlink()
    assert (disk.root / "target").read_text() == "keep me"


def test_a_dangling_link_is_replaced(disk: Disk) -> None:
    (disk.root / "x").symlink_to("nowhere")

    assert disk.converge(File("/x", "")) == []

    assert disk.everything() == ["x"]
    assert (disk.root / "x").is_file()


def test_a_directory_in_the_way_is_told_and_stays(disk: Disk) -> None:
    (disk.root / "x/y").mkdir(parents=True)

    files, changes = disk.plan(File("/x", TEXT), File("/z", TEXT))

    assert [failure.reason for failure in files.check(changes)] == ["a directory is in the way"]
    assert [failure.key for failure in files.apply(changes)] == [("File", "/x")]
    assert (disk.root / "z").read_text() == TEXT
    assert disk.owned() == ["/z"]
    assert disk.everything() == ["z"]


def test_a_link_among_the_parents_does_not_lead_out_of_the_root(disk: Disk, tmp_path: Path) -> None:
    (tmp_path / "outside").mkdir()
    (disk.root / "etc").symlink_to(tmp_path / "outside")

    failures = disk.converge(File("/etc/x", TEXT))

    assert {failure.key for failure in failures} == {("File", "/etc/x")}
    assert list((tmp_path / "outside").iterdir()) == []


def test_a_stranger_removes_what_is_ours_and_wanted_no_more(disk: Disk) -> None:
    disk.converge(File("/a", TEXT), File("/b", TEXT))
    (disk.root / "c").write_text("not ours")

    assert disk.converge(File("/b", TEXT)) == []

    assert disk.everything() == ["b", "c"]
    assert disk.owned() == ["/b"]


def test_a_removed_text_is_held_for_a_secret(disk: Disk) -> None:
    disk.converge(File("/a", "hunter2"))

    (change,) = disk.plan()[1]

    assert isinstance(change.before, File)
    assert change.before.secret


def test_the_manifest_names_a_path_before_its_file_exists(disk: Disk, monkeypatch: pytest.MonkeyPatch) -> None:
    files, changes = disk.plan(File("/a", TEXT))

    def power_cut(change: Change) -> Path:
        raise KeyboardInterrupt(change.key)

    monkeypatch.setattr(files, "_carry_out", power_cut)
    with pytest.raises(KeyboardInterrupt):
        files.apply(changes)

    assert disk.owned() == ["/a"]
    assert disk.everything() == []


def test_what_was_claimed_and_never_made_does_not_stay_ours(disk: Disk) -> None:
    disk.manifest.parent.mkdir()
    disk.manifest.write_text('["/ghost"]')
    disk.converge(File("/a", TEXT))
    (disk.root / "ghost").write_text("another's")

    assert disk.plan(File("/a", TEXT))[1] == []


def test_after_a_damaged_manifest_the_wanted_files_become_ours_again(disk: Disk) -> None:
    disk.converge(File("/a", TEXT))
    disk.manifest.write_text("[")

    disk.converge(File("/a", TEXT), File("/b", TEXT))

    assert disk.owned() == ["/a", "/b"]


def test_without_a_manifest_nothing_is_written(disk: Disk) -> None:
    disk.manifest.parent.write_text("a file where the directory should be")

    failures = disk.converge(File("/a", TEXT))

    assert [failure.key for failure in failures] == [("File", "/a")]
    assert disk.everything() == []


class Judge:
    def __init__(self, root: Path) -> None:
        self.root = root
        self.heard: list[Sequence[str]] = []

    def __call__(self, argv: Sequence[str]) -> str:
        path = Path(argv[-1])
        self.heard.append([*argv[:-1], path.read_text()])
        assert path.is_relative_to(self.root)
        assert stat.S_IMODE(path.stat().st_mode) == 0o600
        if "bad" in path.read_text():
            raise OSError("line 1: bad")
        return ""


def test_a_new_text_is_judged_beside_the_old_one(disk: Disk) -> None:
    judge = Judge(disk.root)
    wanted = state(
        File("/etc/good", "good", 0o600, check=("daemon", "-t")), File("/etc/bad", "bad", 0o600, check=("daemon", "-t"))
    )
    files = Files(disk.manifest, disk.root, run=judge)

    failures = list(files.check(diff(state(*files.observe(wanted)), wanted)))

    assert failures == [Failure(("File", "/etc/bad"), "line 1: bad")]
    assert judge.heard == [["daemon", "-t", "bad"], ["daemon", "-t", "good"]]
    assert disk.everything() == []
    assert not disk.manifest.exists()


def test_what_its_program_calls_wrong_is_wrong_in_itself(disk: Disk) -> None:
    files, changes = disk.plan(File("/x", TEXT, check=("false",)))

    assert [failure.content for failure in files.check(changes)] == [True]


def test_a_text_is_judged_with_the_files_that_change_with_it(disk: Disk) -> None:
    disk.converge(File("/etc/ssl/gone.pem", "gone"), File("/etc/ssl/stays.pem", "stays"))
    text = "crt /etc/ssl/new.pem\ncrt /etc/ssl/gone.pem\ncrt /etc/ssl/stays.pem\n"
    wanted = [
        File("/etc/ssl/new.pem", "new"),
        File("/etc/ssl/stays.pem", "stays"),
        File("/etc/daemon", text, check=("daemon",)),
    ]
    seen = []

    def judge(argv: Sequence[str]) -> str:
        for line in Path(argv[-1]).read_text().splitlines():
            path = Path(line.removeprefix("crt "))
            seen.append(path.read_text() if path.exists() else "not there")
        return ""

    files = Files(disk.manifest, disk.root, run=judge)
    changes = diff(state(*files.observe(state(*wanted))), state(*wanted))

    assert list(files.check(changes)) == []
    assert seen == ["new", "not there", "not there"]  # the third is named by its path on a whole machine
    assert disk.everything() == ["etc/ssl/gone.pem", "etc/ssl/stays.pem"]


def test_an_unchanged_text_is_not_judged(disk: Disk) -> None:
    judge = Judge(disk.root)
    file = File("/x", TEXT, 0o600, check=("daemon",))
    disk.converge(replace(file, check=(), mode=0o644))
    files = Files(disk.manifest, disk.root, run=judge)

    changes = diff(state(*files.observe(state(file))), state(file))

    assert len(changes) == 1
    assert list(files.check(changes)) == []
    assert judge.heard == []


def test_a_program_that_is_not_there_is_a_failure(disk: Disk) -> None:
    files, changes = disk.plan(File("/x", TEXT, check=("/nonexistent/daemon", "-t")))

    assert [failure.key for failure in files.check(changes)] == [("File", "/x")]
    assert disk.everything() == []
