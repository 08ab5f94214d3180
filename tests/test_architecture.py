"""Who may know whom, and how large a room may grow.  Read from the source, so a lazy import counts as well."""

import ast
import importlib
import sys
from collections.abc import Iterator
from functools import cache
from pathlib import Path
from types import ModuleType

import pytest

ROOT = Path(__file__).resolve().parent.parent
SRC = ROOT / "src" / "holdfast"

PURE = frozenset(
    {
        "answers",
        "config",
        "conntrackd",
        "dnsmasq",
        "errors",
        "feature",
        "features",
        "haproxy",
        "keepalived",
        "interface",
        "intervals",
        "legacy",
        "nft",
        "peer",
        "program",
        "receipts",
        "router",
        "shared",
        "addresses",
        "state",
        "texts",
    }
)
"""Rooms that must be pure.  A module whose first line ends with `Pure.` is held to its word as well."""
# fmt: off
PURE_LIBRARY = frozenset([
    "__future__", "abc", "base64", "binascii", "bisect", "collections", "contextlib", "copy", "dataclasses",
    "crypt", "difflib", "enum", "fnmatch", "functools", "hashlib", "heapq", "hmac", "html", "ipaddress", "itertools",
    "json", "math", "msgspec", "operator", "posixpath", "re", "shlex", "string", "struct", "textwrap", "types",
    "typing", "unicodedata", "warnings", "zlib",
])
# fmt: on
PURE_PARTS = ("pathlib.PurePosixPath", "urllib.parse")  # harmless parts of modules that are not
WORLDLY_BUILTINS = frozenset({"open", "print", "input", "exec", "eval", "compile", "__import__", "breakpoint"})
DEPENDENCIES = frozenset({"holdfast", "msgspec"})
LONG_LIVED = {"guest": {"asyncio", "h11"}}  # only a process that stays may pay for importing these

# What a room must not know, beyond the rule for pure rooms.  The others are held by "no circles".
BLIND = {
    "features": {"features", "config"},  # a feature that knows another has found something for router.py
    "drivers": {"features", "feature", "config", "router", "answers", "legacy", "store", "agent", "cli"},
    "converge": {"features", "feature", "config", "router", "drivers", "store", "agent", "cli"},
    "store": {"drivers", "converge", "agent", "cli"},
    "guest": {"agent", "config", "converge", "drivers", "feature", "features", "marks", "router", "session", "store"},
    # An ear turns what it hears into a wish; what follows for the machine is a run's business.
    "ears": {"agent", "converge", "desired", "drivers", "features", "machine", "session", "store"},
    "run": PURE | {"drivers", "converge", "store", "agent", "cli"},
}
LAB_FRIENDS = frozenset({"lab", "verbs"})
LONGEST_MODULE = 300
LONGEST_FUNCTION = 40

MODULES = sorted(path for path in SRC.rglob("*.py"))
EVERYTHING = sorted(
    [*MODULES, *(path for room in ("bench", "packaging", "tests") for path in (ROOT / room).rglob("*.py"))]
)


def name_of(path: Path) -> str:
    """`features/dhcp.py` for a module of ours, the path from the root for others."""
    return str(path.relative_to(SRC if path.is_relative_to(SRC) else ROOT))


def room_of(path: Path) -> str:
    """The first part of the path in the package, `drivers` or `state`; empty for the package's own `__init__`."""
    first = path.relative_to(SRC).parts[0].removesuffix(".py")
    return "" if first == "__init__" else first


@cache
def tree(path: Path) -> ast.Module:
    return ast.parse(path.read_text(), str(path))


def is_pure(path: Path) -> bool:
    first, _, _ = (ast.get_docstring(tree(path)) or "").partition("\n")
    return room_of(path) in PURE or first.rstrip().endswith("Pure.")


def source_of(name: str) -> Path:
    """File of the module that an imported name is, or is in: `holdfast.boot.line.parse` is in `boot/line.py`."""
    parts = name.split(".")[1:]
    while parts and not (found := SRC.joinpath(*parts).with_suffix(".py")).is_file():
        if (package := SRC.joinpath(*parts, "__init__.py")).is_file():
            return package
        parts.pop()
    return found if parts else SRC / "__init__.py"


def imported(node: ast.AST) -> Iterator[str]:
    """Full names that one statement brings in: `from pathlib import Path` gives `pathlib.Path`."""
    if isinstance(node, ast.Import):
        yield from (alias.name for alias in node.names)
    elif isinstance(node, ast.ImportFrom):
        assert node.level == 0, "imports are absolute, so that a grep finds them"
        yield from (f"{node.module}.{alias.name}" for alias in node.names)


def imports(path: Path) -> set[str]:
    return {name for node in ast.walk(tree(path)) for name in imported(node)}


def rooms_seen(path: Path) -> set[str]:
    return {name.split(".")[1] for name in imports(path) if name.startswith("holdfast.")}


def dotted(node: ast.expr) -> str:
    """`os.system` for the expression of that spelling, empty for anything that is not a plain name."""
    if isinstance(node, ast.Attribute):
        return f"{dotted(node.value)}.{node.attr}"
    return node.id if isinstance(node, ast.Name) else ""


def calls(path: Path) -> Iterator[ast.Call]:
    return (node for node in ast.walk(tree(path)) if isinstance(node, ast.Call))


each_module = pytest.mark.parametrize("path", MODULES, ids=name_of)


@each_module
def test_pure_rooms_know_only_pure_things(path: Path) -> None:
    if not is_pure(path):
        return
    foreign = {name for name in imports(path) if name.split(".")[0] not in PURE_LIBRARY | {"holdfast"}}

    assert {name for name in foreign if not name.startswith(PURE_PARTS)} == set()
    assert {name for name in imports(path) if name.startswith("holdfast.") and not is_pure(source_of(name))} == set()
    assert {dotted(call.func) for call in calls(path)} & WORLDLY_BUILTINS == set()


@each_module
def test_rooms_do_not_see_what_they_are_blind_to(path: Path) -> None:
    room = room_of(path)
    forbidden = set(BLIND.get(room, ()))
    if path == SRC / "features" / "__init__.py":
        forbidden.discard("features")  # the table of contents names its chapters
    if room not in LAB_FRIENDS:
        forbidden.add("lab")
    if room:
        forbidden.add("cli")
    if room != "guest":
        forbidden.add("guest")
    if room in {"cli", "__main__", "lab", "client", "resident"}:  # the last two call what the first offers
        forbidden.discard("cli")

    assert rooms_seen(path) & forbidden == set()


def test_nothing_imports_in_a_circle() -> None:
    modules = {"holdfast." + ".".join(path.relative_to(SRC).with_suffix("").parts): path for path in MODULES}
    modules = {name.removesuffix(".__init__"): path for name, path in modules.items()}
    edges = {
        name: {
            target
            for node in tree(path).body
            for wanted in imported(node)
            for target in (wanted, wanted.rpartition(".")[0])
            if target in modules and target not in {"holdfast", name}
        }
        for name, path in modules.items()
    }
    while leaves := [name for name, targets in edges.items() if not targets & edges.keys()]:
        for leaf in leaves:
            del edges[leaf]

    assert {name: sorted(targets & edges.keys()) for name, targets in edges.items()} == {}


@each_module
def test_a_command_depends_on_msgspec_alone(path: Path) -> None:
    if room_of(path) == "lab":
        return
    tops = {name.split(".")[0] for name in imports(path)}
    heavy = {name for names in LONG_LIVED.values() for name in names} - LONG_LIVED.get(room_of(path), set())

    assert tops & heavy == set()
    assert tops - sys.stdlib_module_names - DEPENDENCIES - LONG_LIVED.get(room_of(path), set()) == set()


@each_module
def test_only_run_starts_programs(path: Path) -> None:
    if room_of(path) in {"lab", "run"}:
        return
    starters = {"subprocess", "pty", "multiprocessing"}

    assert {name.split(".")[0] for name in imports(path)} & starters == set()
    assert [dotted(c.func) for c in calls(path) if dotted(c.func).startswith(("os.spawn", "os.posix_spawn"))] == []


@pytest.mark.parametrize("path", EVERYTHING, ids=name_of)
def test_nothing_reaches_a_shell(path: Path) -> None:
    found = []
    for call in calls(path):
        found += [dotted(call.func)] * (dotted(call.func) in {"os.system", "os.popen", "subprocess.getoutput"})
        found += ["shell="] * any(
            word.arg == "shell" and not (isinstance(word.value, ast.Constant) and word.value.value is False)
            for word in call.keywords
        )

    assert found == []


@each_module
def test_no_argument_list_names_a_shell(path: Path) -> None:
    if room_of(path) == "lab":
        return  # what it runs there is the lab's own text, never data
    lists = [node for node in ast.walk(tree(path)) if isinstance(node, ast.List | ast.Tuple)]
    words = [[item.value for item in node.elts if isinstance(item, ast.Constant)] for node in lists]

    assert [line for line in words if "-c" in line and {"sh", "bash", "/bin/sh", "/bin/bash"} & set(line)] == []


@each_module
def test_modules_are_short_and_say_what_they_are_for(path: Path) -> None:
    assert len(path.read_text().splitlines()) <= LONGEST_MODULE
    assert ast.get_docstring(tree(path))


@each_module
def test_functions_are_short(path: Path) -> None:
    functions = [node for node in ast.walk(tree(path)) if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef)]
    long = {f.name: (f.end_lineno or 0) - f.lineno + 1 for f in functions}

    assert {name: lines for name, lines in long.items() if lines > LONGEST_FUNCTION} == {}


def features_in(module: ModuleType) -> set[int]:
    """Identities of what a module defines, alone or in a tuple."""
    values = vars(module).values()
    return {id(item) for value in values for item in ([*value] if type(value) is tuple else [value])}


def test_the_table_of_contents_lists_every_feature() -> None:
    contents = vars(importlib.import_module("holdfast.features")).get("FEATURES", ())
    listed = {id(feature) for feature in contents}
    stems = sorted(path.stem for path in (SRC / "features").glob("[!_]*.py"))
    modules = {stem: importlib.import_module(f"holdfast.features.{stem}") for stem in stems}

    assert [stem for stem, module in modules.items() if not listed & features_in(module)] == []
    assert len(listed) == len({feature.name for feature in contents}), "two features share a name"
