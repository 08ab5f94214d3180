"""The console's password: told in the boot line, kept as a hash, never in an argument, an answer or a difference."""

import shutil
import subprocess
from collections.abc import Sequence
from pathlib import Path

import pytest

from holdfast import report
from holdfast.boot.line import command
from holdfast.config import EMPTY, Config, decode, dump, load, merge
from holdfast.desired import Desired, desired
from holdfast.drivers.login import Logins
from holdfast.login import Login, hashed
from holdfast.router import Facts
from holdfast.run import CommandFailed
from holdfast.state import Change, Key

LINE = "template=domP name=r-31-VM type=router eth0ip=10.31.0.1 eth0mask=255.255.255.0"
WORD = "Zk4n0tShown"
ROOT = Login("root", hashed(WORD, "r-31-VM"))
KEY: Key = ("Login", "root")
SHADOW = "daemon:*:19000:0:99999:7:::\nroot:{}:19000:0:99999:7:::\nodd\n"


def stored(line: str) -> Config:
    return merge(EMPTY, decode(command(line)), Facts()).config


def wanted(line: str) -> Desired:
    return desired(stored(line), Facts())


class Host:
    """A machine's shadow file and its chpasswd, which refuses with `error`, if there is one."""

    def __init__(self, root: Path, held: str = "*", error: OSError | None = None) -> None:
        self.root, self.error = root, error
        self.asked: list[tuple[Sequence[str], str]] = []
        (root / "etc").mkdir()
        self.shadow = root / "etc/shadow"
        self.shadow.write_text(SHADOW.format(held))
        self.driver = Logins(root, run=self.run)

    def run(self, argv: Sequence[str], stdin: str) -> str:
        self.asked.append((argv, stdin))
        if self.error:
            raise self.error
        self.shadow.write_text(SHADOW.format(stdin.strip().partition(":")[2]))
        return ""


@pytest.mark.skipif(not shutil.which("openssl"), reason="another hand at the same hash")
@pytest.mark.parametrize("word", ["a", WORD, "w" * 128])
def test_the_hash_is_what_everybody_makes_of_it(word: str) -> None:
    salt = hashed(word, "r-31-VM").split("$")[2]
    argv = ["openssl", "passwd", "-6", "-salt", salt, "-stdin"]
    theirs = subprocess.run(argv, input=word, capture_output=True, text=True, check=True).stdout.strip()

    assert hashed(word, "r-31-VM") == theirs


def test_the_same_word_is_the_same_hash_on_one_router_and_another_on_the_next() -> None:
    assert hashed(WORD, "r-31-VM") == ROOT.hash != hashed(WORD, "r-32-VM")


def test_the_bag_holds_the_hash_alone_and_the_machine_is_to_have_it() -> None:
    config = stored(f"{LINE} vmpassword={WORD}")
    documents = dump(config)

    assert not any(WORD.encode() in document for document in documents.values())
    assert load(documents) == config
    assert desired(config, Facts()).state[KEY] == ROOT
    assert stored(f"{LINE} vmpassword={WORD}") == config


@pytest.mark.parametrize("word", [None, "", "null", "None"])
def test_a_line_without_one_leaves_the_account_alone(word: str | None) -> None:
    line = LINE if word is None else f"{LINE} vmpassword={word}"
    merged = merge(EMPTY, decode(command(line)), Facts())

    assert KEY not in wanted(line).state
    assert not [text for text in merged.warnings if "vmpassword" in text]


@pytest.mark.parametrize("word", ["\x07bell", "w" * 129, "gr\u00fcn"])
def test_what_nobody_could_type_is_left_out_with_a_warning_that_does_not_show_it(word: str) -> None:
    merged = merge(EMPTY, decode(command(f"{LINE} vmpassword={word}")), Facts())

    assert merged.config["cmdline"].secrets == {}
    assert merged.warnings == ("cmd_line.vmpassword: not what anybody could type at a console: left out",)


def test_it_is_written_through_an_input_and_then_it_is_there(tmp_path: Path) -> None:
    host = Host(tmp_path)
    seen = [*host.driver.observe({KEY: ROOT})]
    assert seen == [Login("root", "*")]

    assert [*host.driver.apply([Change(seen[0], ROOT)])] == []

    assert host.asked == [(["chpasswd", "--encrypted"], f"root:{ROOT.hash}\n")]
    assert [*host.driver.observe({KEY: ROOT})] == [ROOT]


def test_nobody_claims_it_and_nobody_looks(tmp_path: Path) -> None:
    host = Host(tmp_path)
    host.shadow.unlink()

    assert [*host.driver.observe({})] == []
    assert [*host.driver.observe({KEY: ROOT})] == []
    assert [*host.driver.observe({KEY: ROOT, ("Login", "nobody"): Login("nobody", "x")})] == []


def test_on_a_machine_of_somebody_elses_it_is_not_touched(tmp_path: Path) -> None:
    assert [*Logins(tmp_path, whole=False).observe({KEY: ROOT})] == [ROOT]


@pytest.mark.parametrize(
    ("error", "said"),
    [
        (CommandFailed("chpasswd --encrypted: no such account"), "chpasswd --encrypted: no such account"),
        (FileNotFoundError(2, "No such file or directory", "chpasswd"), "chpasswd: No such file or directory"),
    ],
)
def test_a_refusal_is_told_without_the_hash(tmp_path: Path, error: OSError, said: str) -> None:
    failures = [*Host(tmp_path, error=error).driver.apply([Change(None, ROOT)])]

    assert [(failure.key, failure.reason) for failure in failures] == [(KEY, said)]


@pytest.mark.parametrize("before", [None, Login("root", "$6$old$hash")])
def test_no_answer_shows_a_hash(before: Login | None) -> None:
    whole = wanted(f"{LINE} vmpassword={WORD}")
    change = Change(before, ROOT)
    text, data = report.changes_text([change], whole), report.changes_json([change], whole)

    assert text == [
        f"{'~' if before else '+'} password of root  [cmdline/vmpassword]",
    ]
    assert "$6$" not in repr(data)
    assert ROOT.hash not in repr(report.masked({"secrets": {"vmpassword": ROOT.hash}}))
