"""The Debian package: it needs what Holdfast starts, holds what a router runs, and tells what the code does."""

import ast
import contextlib
import importlib
import importlib.metadata
import os
import re
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType
from typing import Any

import msgspec
import pytest

from holdfast import __version__, outside, upgrade, verbs
from holdfast.desired import Desired
from holdfast.errors import Failed
from holdfast.features import control as way_in
from holdfast.lab import image, places
from holdfast.lab.image import DEPENDENCIES
from holdfast.meaning import Meaning, differences, meaning, shown
from holdfast.state import Change, Elements, File, Resource, Sysctl

ROOT = Path(__file__).resolve().parent.parent
PACKAGING, SYSTEM = ROOT / "packaging", ROOT / "system"
MODULES = [path for path in (ROOT / "src/holdfast").rglob("*.py") if "lab" not in path.parts]
OURS = re.compile(r"/opt/holdfast/libexec/[\w-]+|/usr/sbin/holdfast")
CONTENT = dict[str, Any]


@pytest.fixture(scope="module")
def module() -> Iterator[dict[str, ModuleType]]:
    with pytest.MonkeyPatch.context() as patch:
        patch.syspath_prepend(str(PACKAGING))
        yield {name: importlib.import_module(name) for name in ("control", "wheels", "build")}


@pytest.fixture(scope="module")
def content(module: dict[str, ModuleType], tmp_path_factory: pytest.TempPathFactory) -> CONTENT:
    """What is in a package, with this machine's libraries in place of those that a build fetches."""
    libraries = tmp_path_factory.mktemp("libraries")
    for name in DEPENDENCIES:
        spec = importlib.util.find_spec(name)
        assert spec is not None
        assert spec.origin is not None
        shutil.copytree(Path(spec.origin).parent, libraries / name)
        found = importlib.metadata.distribution(name)
        licence = next(file for file in found.files or () if file.name.startswith("LICENSE"))
        target = libraries / f"{name}-1.dist-info/licenses/LICENSE"
        target.parent.mkdir(parents=True)
        shutil.copy(Path(str(found.locate_file(licence))), target)
    made: CONTENT = module["build"].content(module["control"].Package("amd64", "1.2-1"), libraries, 1700000000)
    return made


def started(path: Path) -> Iterator[str]:
    """Programs that a module starts: first words of the lists that it runs, and of what checks its files."""
    for node in ast.walk(ast.parse(path.read_text())):
        lists: list[ast.expr] = []
        if isinstance(node, ast.Call):
            name = node.func.attr if isinstance(node.func, ast.Attribute) else getattr(node.func, "id", "")
            if name in {"run", "_run", "run_program", "_json"}:
                lists = node.args[:1]
            if name == "said" and node.args and isinstance(node.args[0], ast.Constant):
                yield str(node.args[0].value)
            lists += [word.value for word in node.keywords if word.arg == "check"]
        elif isinstance(node, ast.Assign) and getattr(node.targets[0], "id", "") in {"argv", "check", "CHECK"}:
            lists = [node.value]
        for one in lists:
            if isinstance(one, ast.List | ast.Tuple) and one.elts and isinstance(one.elts[0], ast.Constant):
                yield str(one.elts[0].value)


def unit_texts() -> dict[str, str]:
    return {str(path.relative_to(SYSTEM)): path.read_text() for path in SYSTEM.rglob("*") if path.suffix[1:] in {
        "service", "socket", "path", "timer", "mount", "conf"}}  # fmt: skip


def test_every_program_that_is_started_comes_with_a_package_that_is_named(module: dict[str, ModuleType]) -> None:
    control = module["control"]
    found = {program for path in MODULES for program in started(path)}
    for text in unit_texts().values():
        found |= set(re.findall(r"^Exec\w+=[-+!@:]*(/\S+)", text, re.MULTILINE))
    found = {
        program if program in control.ESSENTIAL else program.rpartition("/")[2]
        for program in found
        if not OURS.fullmatch(program)
    }

    assert {"nft", "ip", "conntrack", "keepalived", "haproxy", "dnsmasq", "ssh-keygen"} <= found
    assert found - control.PROGRAMS.keys() - control.OPTIONAL.keys() - set(control.ESSENTIAL) == set()


def test_no_package_is_asked_for_that_nothing_needs(module: dict[str, ModuleType]) -> None:
    control = module["control"]
    texts = "\n".join([*(path.read_text() for path in MODULES), *unit_texts().values()])

    unused = [name for name in control.PROGRAMS | control.OPTIONAL if not re.search(rf"\b{re.escape(name)}\b", texts)]
    assert [name for name in unused if not name.startswith(("iptables", "ip6tables"))] == []
    assert "-restore" in texts


def test_the_python_is_debians(module: dict[str, ModuleType]) -> None:
    assert {"python3 (>= 3.11~)", "python3 (<< 3.12)"} <= set(module["control"].DEPENDS)
    assert 'requires-python = ">=3.11,<3.12"' in (ROOT / "pyproject.toml").read_text()


def test_versions_agree(module: dict[str, ModuleType], content: CONTENT) -> None:
    control = module["control"]

    assert control.version() == f"{__version__}-{control.REVISION}"
    assert content["opt/holdfast/package/name"].data.startswith(b"1.2-1-")
    lines = [*control.fields(control.Package("arm64", "1.2-1"), 7)]
    assert {"Version: 1.2-1", "Architecture: arm64", "Installed-Size: 7"} <= set(lines)


def test_the_libraries_are_the_locks(module: dict[str, ModuleType]) -> None:
    wanted = module["wheels"].locked()

    assert tuple(re.findall(r"^([\w-]+)==", wanted, re.MULTILINE)) == DEPENDENCIES
    assert wanted.count("--hash=sha256:") > len(DEPENDENCIES)


def test_it_holds_what_a_router_runs_and_no_more(content: CONTENT) -> None:
    tree = "opt/holdfast/package/"
    modules = {path.relative_to(ROOT / "src").as_posix() for path in MODULES}
    packed = {path.removeprefix(f"{tree}lib/") for path in content if path.startswith(f"{tree}lib/holdfast/")}

    assert packed == modules
    assert {path for path in content if path.startswith(("etc/", "usr/local/", "var/", "run/"))} == set()
    assert [path for path in content if path.endswith(".pyc") or "/lab/" in path] == []
    for path in (path for path in (SYSTEM / "bin").iterdir() if path.is_file()):
        where = "usr/sbin" if path.name == "holdfast" else "opt/cloud/bin"
        assert content[f"{tree}bin/{path.name}"].mode == 0o755
        link = Path("/", where, content[f"{where}/{path.name}"].target)
        assert os.path.normpath(link) == f"/opt/holdfast/current/bin/{path.name}"
    for path in (path for path in (SYSTEM / "libexec").iterdir() if path.is_file()):
        assert content[f"{tree}libexec/{path.name}"].mode == 0o755


def test_the_lab_installs_the_same_files_at_the_same_places(module: dict[str, ModuleType], content: CONTENT) -> None:
    system = {path for path in SYSTEM.rglob("*") if path.is_file() and "__pycache__" not in path.parts}
    laid = [one for one in image._sources() if one.source in system]  # noqa: SLF001 what the layer is made of

    assert {one.source for one in laid} == system - {SYSTEM / places.LIST}
    for one in laid:
        inner, outer = content[f"opt/holdfast/package/{module['build'].inside(one)}"], content.get(str(one.to), None)
        assert (inner.data, inner.mode) == (one.source.read_bytes(), one.mode), one.to
        if outer != inner:  # a name that leads to the version in use
            assert one.to.parent in (places.LIBEXEC, *module["build"].PROGRAMS), one.to
    assert len({one.to for one in laid}) == len(laid)


def test_the_list_of_places_has_no_line_too_many() -> None:
    rules = places.rules_of(SYSTEM)
    found = [path.relative_to(SYSTEM) for path in SYSTEM.rglob("*") if path.is_file()]
    first = {next((rule.pattern for rule in rules if rule.fits(path)), "") for path in found}

    assert [rule.pattern for rule in rules if rule.pattern not in first] == []


@pytest.mark.parametrize("name", ["more.slice", "bin/deeper/program", "conntrackd.service.d/deeper/more.service"])
def test_a_file_that_no_line_places_is_an_error(tmp_path: Path, name: str) -> None:
    shutil.copytree(SYSTEM, tmp_path / "system")
    stray = tmp_path / "system" / name
    stray.parent.mkdir(parents=True, exist_ok=True)
    stray.write_text("")

    with pytest.raises(ValueError, match=rf"{stray.name}: .*/places does not say where it goes"):
        list(places.placed(tmp_path / "system"))


def test_units_call_what_the_package_holds(content: CONTENT) -> None:
    for path, file in content.items():
        if path.startswith("usr/lib/systemd/system/"):
            text = file.data.decode()
            for program in re.findall(r"^Exec\w+=[-+!@:]*(/opt/holdfast/\S+|/usr/s?bin/holdfast)", text, re.MULTILINE):
                there = program.lstrip("/").replace("opt/holdfast/libexec", "opt/holdfast/package/libexec")
                assert there in content, f"{path}: {program}"
            assert "/usr/local" not in text


def test_the_maintainer_is_the_projects_author(module: dict[str, ModuleType]) -> None:
    (author,) = module["control"].PROJECT["authors"]
    lines = [*module["control"].fields(module["control"].Package("amd64", "1.2-1"), 7)]

    assert f"Maintainer: {author['name']} <{author['email']}>" in lines


def test_every_unit_of_the_sources_is_in_it(module: dict[str, ModuleType], content: CONTENT) -> None:
    packed = {
        path.removeprefix("usr/lib/systemd/system/") for path in content if path.startswith("usr/lib/systemd/system/")
    }

    assert packed == unit_texts().keys()
    assert set(module["build"].enabled()) <= packed
    assert {"cloud-early-config.service", "holdfast-closed.service"} <= set(module["build"].enabled())


def test_whatever_stays_running_is_restarted_when_it_has_changed(module: dict[str, ModuleType]) -> None:
    ended = re.compile(r"^Type=(oneshot|exec)$", re.MULTILINE)
    stay = {name.partition(".d/")[0] for name, text in unit_texts().items() if not ended.search(text)}
    stay -= {name for name in stay if name.endswith(".mount")}  # what it reads is the disc

    assert set(module["build"].RESTARTED) == stay


def test_a_part_changes_with_what_its_service_reads(
    module: dict[str, ModuleType], content: CONTENT, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    build = module["build"]
    tree = "opt/holdfast/package/"
    lib = {path.removeprefix(tree): file for path, file in content.items() if path.startswith(f"{tree}lib/")}

    def parts() -> str:
        return "".join(f"{build.part(unit, lib)} {unit}\n" for unit in build.RESTARTED)

    before = parts()
    assert before == content["opt/holdfast/package/parts"].data.decode()
    lib["lib/holdfast/agent.py"] = build.File(b"")
    assert upgrade.changed(before, parts()) == ["holdfast-agent.service"]  # what runs commands has read everything
    lib["lib/holdfast/guest/http.py"] = build.File(b"")
    assert upgrade.changed(before, parts()) == ["holdfast-guest.service", "holdfast-agent.service"]
    shutil.copytree(SYSTEM, tmp_path / "system")
    (tmp_path / "system/haproxy.service.d/holdfast.conf").write_text("[Service]\n")
    monkeypatch.setattr(build, "SYSTEM", tmp_path / "system")
    others = ["holdfast-guest.service", "haproxy.service", "holdfast-agent.service"]
    assert upgrade.changed(before, parts()) == others


def test_scripts_are_scripts(module: dict[str, ModuleType]) -> None:
    for name in module["build"].SCRIPTS:
        text = (PACKAGING / "scripts" / name).read_text().replace("@UNITS@", "a.service b.path")
        done = subprocess.run(["/bin/sh", "-n"], input=text, text=True, capture_output=True, check=False)
        assert (done.returncode, done.stderr) == (0, ""), name
        assert text.startswith("#!/bin/sh\n")
        assert "\nset -e\n" in text
    done = subprocess.run(["/bin/bash", "-n", PACKAGING / "completion"], text=True, capture_output=True, check=False)
    assert (done.returncode, done.stderr) == (0, "")


def test_a_removal_leaves_the_servers_key_without_the_program_that_goes(tmp_path: Path) -> None:
    keys = tmp_path / "keys"
    written = SYSTEM.parent / "tests/scenarios/control/key_changes/expected/files" / way_in.KEYS.lstrip("/")
    text = written.read_text()
    keys.write_text(text)
    keys.chmod(0o600)
    (edit,) = re.findall(rf"^\t*(sed .*{way_in.KEYS})$", (PACKAGING / "scripts/postrm").read_text(), re.MULTILINE)

    for _ in range(2):  # a purge after a removal comes by again
        subprocess.run(["/bin/sh", "-ec", edit.replace(way_in.KEYS, str(keys))], check=True)
        assert keys.read_text() == text.replace(f"{way_in.LOGIN} ", "")
    assert way_in.LOGIN in text
    assert "/opt/holdfast" not in keys.read_text()
    assert keys.stat().st_mode & 0o777 == 0o600


def test_a_removal_ends_all_that_stays_but_the_way_in(module: dict[str, ModuleType]) -> None:
    text = (PACKAGING / "scripts/prerm").read_text()
    stops = re.findall(r"^(?:deb-systemd-invoke|systemctl) stop ((?:.*\\\n)*.*)$", text, re.MULTILINE)
    ended = set(re.findall(r"[\w\\-]+\.(?:service|socket|path|timer|mount)", " ".join(stops)))
    own = {Path(name).name for name in unit_texts() if "/" not in name}

    # These did their work at the start: stopping them would do nothing.
    done = {"holdfast-closed.service", "holdfast-settle.service"}
    assert (set(module["build"].RESTARTED) | own) - ended == {"ssh.service"} | done
    converging = {"holdfast-agent.service", "holdfast-role.service", "holdfast-boot-line.service"}
    assert converging <= set(stops[0].split())
    assert not {"dnsmasq.service", "keepalived.service"} & set(stops[0].split())


def test_every_override_gives_its_reason() -> None:
    blocks = (PACKAGING / "lintian-overrides").read_text().strip().split("\n\n")

    for block in blocks:
        lines = block.splitlines()
        assert lines[0].startswith("# ")
        assert [line for line in lines if not line.startswith(("# ", "holdfast: "))] == []


def known() -> dict[str, set[str]]:
    """Verbs, and the options of each."""
    actions = verbs.parser()._actions  # noqa: SLF001 no public way
    parsers = {verb: sub for action in actions for verb, sub in (dict(action.choices or {})).items()}
    return {
        verb: {option for one in sub._actions for option in one.option_strings}  # noqa: SLF001 same
        for verb, sub in parsers.items()
    }


def test_the_manual_tells_every_verb_option_and_exit_status(content: CONTENT) -> None:
    page = (PACKAGING / "holdfast.8").read_text().replace("\\-", "-")
    told = page[page.index(".SH VERBS") : page.index(".SH OPTIONS")]
    named = re.findall(r"^\.TP\n\.\w+ \"?([a-z]+)", told, re.MULTILINE)

    assert set(named) == known().keys()
    for options in known().values():
        assert [option for option in options if option not in page] == []
    statuses = page[page.index(".SH EXIT STATUS") : page.index(".SH UPGRADES")]
    assert re.findall(r"^\.B (\d)$", statuses, re.MULTILINE) == list("012345")
    assert "usr/share/man/man8/holdfast.8.gz" in content


def test_the_shell_completes_every_verb_and_option() -> None:
    program = """source "$1"; COMP_WORDS=("${@:2}"); COMP_CWORD=$((${#COMP_WORDS[@]} - 1)); compopt() { :; }
        _holdfast; printf '%s\\n' "${COMPREPLY[@]}\""""

    def completed(*words: str) -> set[str]:
        argv = ["bash", "-c", program, "bash", str(PACKAGING / "completion"), "holdfast", *words]
        return set(subprocess.run(argv, capture_output=True, text=True, check=True).stdout.split())

    assert completed("") == {*known(), "--version", "--help"}
    assert completed("ro") == {"rollback"}
    for verb, options in known().items():
        if verb != "lab":
            assert completed(verb, "-") == options - {"-h"}


SECRET = File("/etc/x/psk", "hush\n", secret=True)


def told(*resources: Resource, left: tuple[Change, ...] = (), conflicts: tuple[str, ...] = ()) -> Meaning:
    state = {resource.key: resource for resource in resources}
    return meaning("1", 7, Desired(state, {}, {}, conflicts=conflicts), left)


def test_what_a_new_version_wants_otherwise_is_told() -> None:
    old = told(Sysctl("a.b", "0"), Sysctl("c", "1"), File("/etc/f", "x" * 99), Elements("set", {"1": "", "2": ""}))
    new = told(
        Sysctl("a.b", "1"), Sysctl("d", "1"), File("/etc/f", "y" * 99), Elements("set", {"2": "", "3": "", "4": ""}),
        conflicts=("two claims",),
    )  # fmt: skip

    assert differences(old, old) == []
    assert differences(old, new) == [
        "- Sysctl c",
        "+ Sysctl d",
        "~ Elements set: entries: 1 entries go, 2 come",
        "~ File /etc/f: text is another",
        "~ Sysctl a.b: value '0' -> '1'",
        "conflict: two claims",
    ]


def test_a_secret_is_compared_and_never_told() -> None:
    old, new = told(SECRET), told(msgspec.structs.replace(SECRET, text="word\n"))

    assert differences(old, new) == ["~ File /etc/x/psk: text is another"]
    assert b"hush" not in msgspec.json.encode(old)


def test_another_versions_answer_is_understood_as_far_as_it_goes() -> None:
    said = msgspec.json.encode(told(Sysctl("c", "1"), left=(Change(None, Sysctl("c", "1")),)))
    document = msgspec.json.decode(said)
    del document["pending"]
    document["news"] = [1]

    again = msgspec.json.decode(msgspec.json.encode(document), type=Meaning)

    assert differences(again, told(Sysctl("c", "1"))) == []
    assert again.left == ("Sysctl c",)


def test_many_differences_are_cut() -> None:
    assert shown([f"+ {number}" for number in range(22)])[-1] == "… and 2 more"


def versions(home: Path, *names: str) -> list[Path]:
    for name in names:
        (home / "versions" / name).mkdir(parents=True)
    return [home / "versions" / name for name in names]


def test_a_version_is_switched_to_and_back_by_one_link(tmp_path: Path) -> None:
    one, two = versions(tmp_path, "one", "two")

    assert upgrade.current(tmp_path) is None
    for tree in (one, two, one):
        upgrade.link(tmp_path, tree)
        assert upgrade.current(tmp_path) == tree
        assert (tmp_path / "current").readlink() == Path("versions") / tree.name
    assert sorted(path.name for path in tmp_path.iterdir()) == ["current", "versions"]


def test_the_version_before_is_kept_and_older_ones_go(tmp_path: Path) -> None:
    one, two, _, _ = versions(tmp_path, "one", "two", "zero", "three.new")

    upgrade.prune(tmp_path, {one, two})

    assert {path.name for path in (tmp_path / "versions").iterdir()} == {"one", "two"}


def test_where_no_service_runs_a_switch_is_a_link(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    one, two, zero = versions(tmp_path, "one", "two", "zero")
    monkeypatch.setattr(upgrade, "systemd_runs", lambda: False)
    upgrade.link(tmp_path, one)

    upgrade.switch(tmp_path, two)

    assert upgrade.current(tmp_path) == two
    assert one.is_dir()
    assert not zero.exists()


class World:
    """What `switch` starts and asks, played back: which versions can answer, and what is left where `mine` runs."""

    def __init__(self, home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        self.home, self.log = home, list[str]()
        self.broken, self.converges = set[str](), True
        self.left: tuple[str, ...] = ("Unit ssh.service",)
        self.one, self.two = versions(home, "one", "two")
        (self.one / "parts").write_text("1 a.service\n2 b.service\n")
        (self.two / "parts").write_text("1 a.service\n3 b.service\n")
        upgrade.link(home, self.one)
        monkeypatch.setattr(upgrade, "systemd_runs", lambda: True)
        monkeypatch.setattr(upgrade, "locked", contextlib.nullcontext)
        monkeypatch.setattr(upgrade, "run", self.run)
        monkeypatch.setattr(upgrade, "capture", self.run)

    def run(self, argv: list[str], *, timeout_s: float = 0) -> str:
        assert timeout_s >= 0
        name = Path(argv[0]).parents[1].name if argv[-1] == "meaning" else ""
        if not name:
            self.log.append(" ".join(argv[1:]))
            if argv[-1] == "converge" and upgrade.current(self.home) == self.two and not self.converges:
                raise OSError("it broke")
            return ""
        if name in self.broken:
            raise OSError("Traceback")
        left = ("Unit ssh.service",) if name == "one" or upgrade.current(self.home) == self.one else self.left
        return msgspec.json.encode(Meaning(version=name, left=left)).decode()


@pytest.fixture
def world(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> World:
    return World(tmp_path, monkeypatch)


def test_only_what_has_changed_is_restarted(world: World) -> None:
    upgrade.switch(world.home, world.two)

    assert upgrade.current(world.home) == world.two
    assert world.log == ["daemon-reload", "try-restart -- b.service", "converge"]


@pytest.mark.parametrize("unit", sorted(upgrade.PAIRED))
def test_who_serves_for_a_pair_hands_over_before_its_daemons_restart(world: World, unit: str) -> None:
    (world.one / "parts").write_text(f"1 a.service\n2 {unit}\n")
    (world.two / "parts").write_text(f"2 a.service\n3 {unit}\n")

    upgrade.switch(world.home, world.two)

    restarts = ["try-restart -- a.service", f"try-restart -- {unit}"]
    assert world.log == ["daemon-reload", "handover", *restarts, "converge"]


def test_a_version_that_cannot_read_what_is_stored_is_not_switched_to(world: World) -> None:
    world.broken = {"two"}

    with pytest.raises(Failed, match="two cannot say"):
        upgrade.switch(world.home, world.two)
    assert upgrade.current(world.home) == world.one
    assert world.log == ["daemon-reload"]


def test_a_version_before_that_is_broken_is_replaced(world: World) -> None:
    world.broken = {"one"}

    upgrade.switch(world.home, world.two)

    assert upgrade.current(world.home) == world.two


@pytest.mark.parametrize("how", ["left", "converge"])
def test_a_version_under_which_something_is_wrong_is_left_again(world: World, how: str) -> None:
    if how == "left":
        world.left = ("Unit ssh.service", "Ruleset holdfast")
    else:
        world.converges = False

    with pytest.raises(Failed, match="one is in use again"):
        upgrade.switch(world.home, world.two)
    assert upgrade.current(world.home) == world.one
    assert world.two.is_dir()
    assert world.log[-2:] == ["try-restart -- b.service", "converge"]


UNITS = "usr/lib/systemd/system"
FORMER = {f"{UNITS}/a.service": "one", f"{UNITS}/b.service.d/holdfast.conf": "one", f"{UNITS}/left.path": "one"}
NEWER = {f"{UNITS}/a.service": "two", f"{UNITS}/c.service.d/holdfast.conf": "two", f"{UNITS}/new.timer": "two"}
CALLED = "opt/cloud/bin/{0} ../../holdfast/current/bin/{0}\n"


class Outside(World):
    """The same, with what each version has outside its tree; the package has put the newer one's there."""

    def __init__(self, home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        super().__init__(home, monkeypatch)
        self.root = home.parents[1]
        for tree, files, scripts in ((self.one, FORMER, "as.sh before.sh"), (self.two, NEWER, "as.sh after.sh")):
            for path, text in files.items():
                (tree / "outside" / path).parent.mkdir(parents=True, exist_ok=True)
                (tree / "outside" / path).write_text(text)
            (tree / "links").write_text("".join(map(CALLED.format, scripts.split())))
        outside.put(self.root, self.two, self.two)

    def seen(self) -> dict[str, bytes | str]:
        places = (path for top in ("opt/cloud", "usr") for path in (self.root / top).rglob("*"))
        found = {str(path.relative_to(self.root)): path for path in places if path.is_symlink() or not path.is_dir()}
        return {name: str(path.readlink()) if path.is_symlink() else path.read_bytes() for name, path in found.items()}


@pytest.fixture
def around(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Outside:
    home = tmp_path / "opt/holdfast"
    home.mkdir(parents=True)
    return Outside(home, monkeypatch)


def test_a_version_is_left_with_all_that_it_had_outside(around: Outside) -> None:
    assert around.seen() == outside.held(around.two)
    around.converges = False

    with pytest.raises(Failed, match="one is in use again"):
        upgrade.switch(around.home, around.two)

    assert around.seen() == outside.held(around.one)
    assert not (around.root / UNITS / "c.service.d").exists()
    stopped = around.log.index("stop -- new.timer")
    assert around.log[stopped : stopped + 2] == ["stop -- new.timer", "daemon-reload"], "before its text is gone"
    assert around.log.index("try-restart -- b.service", stopped) > stopped + 1

    around.converges = True
    upgrade.switch(around.home, around.two)  # as dpkg --configure does it

    assert around.seen() == outside.held(around.two)


def test_a_version_that_is_never_switched_to_leaves_nothing_outside(around: Outside) -> None:
    around.broken = {"two"}

    with pytest.raises(Failed, match="two cannot say"):
        upgrade.switch(around.home, around.two)

    assert around.seen() == outside.held(around.one)


def test_a_version_that_has_kept_nothing_changes_nothing_outside(around: Outside) -> None:
    shutil.rmtree(around.one / "outside")
    (around.one / "links").unlink()
    around.converges = False

    with pytest.raises(Failed, match="one is in use again"):
        upgrade.switch(around.home, around.two)

    assert around.seen() == outside.held(around.two)
    assert not [line for line in around.log if line.startswith("stop")]


def test_what_is_there_already_is_not_written_again(around: Outside) -> None:
    assert outside.put(around.root, around.two, around.one) == []


def test_what_a_power_cut_leaves_outside_is_put_right_at_the_next_boot(
    around: Outside, monkeypatch: pytest.MonkeyPatch
) -> None:
    class PowerCut(BaseException):
        pass

    def cut(*_: object) -> None:
        raise PowerCut

    mark = around.home / "unsettled"
    for tree, broken in ((around.one, "link"), (around.two, "put")):
        upgrade.link(around.home, around.one)
        outside.put(around.root, around.two, around.one)
        with monkeypatch.context() as patch:
            patch.setattr(*((upgrade, "link") if broken == "link" else (outside, "put")), cut)
            with pytest.raises(PowerCut):
                upgrade.switch(around.home, around.two)
        assert mark.exists()
        assert upgrade.current(around.home) == tree

        upgrade.settle(around.home)

        assert around.seen() == outside.held(tree)
        assert not mark.exists()


def test_where_nothing_was_broken_off_nothing_is_noted(around: Outside) -> None:
    upgrade.switch(around.home, around.two)
    assert not (around.home / "unsettled").exists()
    outside.unsettle(around.home)
    upgrade.switch(around.home, around.two)  # the same package again
    assert not (around.home / "unsettled").exists()
    log = [*around.log]

    outside.unsettle(around.home)
    upgrade.settle(around.home)

    assert around.log == log
    assert around.seen() == outside.held(around.two)
