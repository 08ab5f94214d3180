"""The pages say what is there: links lead somewhere, commands exist, nothing waits to be filled in."""

import importlib
import re
from pathlib import Path

import pytest

from holdfast import errors

ROOT = Path(__file__).resolve().parent.parent
DOCS = ROOT / "docs"
PAGES = sorted([*ROOT.glob("*.md"), *DOCS.rglob("*.md")])
DESIGN = DOCS / "design" / "cloudstack-4.6.md"
OPERATING = DOCS / "operating.md"
SENTENCES = 43  # counted in the document itself

LINK = re.compile(r"\[[^\]]+\]\((?!https?:|mailto:)([^)#\s]*)(?:#([^)\s]+))?\)")
CODE = re.compile(r"`([^`\n]+)`")
FENCE = re.compile(r"^```.*?^```", re.MULTILINE | re.DOTALL)
REPO_PATH = re.compile(r"(?:src|tests|docs|bench|system|examples|\.ci)/[\w./*-]*")


def name_of(page: Path) -> str:
    return str(page.relative_to(ROOT))


def prose(page: Path) -> str:
    """The page without its fenced blocks."""
    return FENCE.sub("", page.read_text())


def anchors(page: Path) -> set[str]:
    """What the headings of a page are called in links to it."""
    titles = re.findall(r"^#+ (.+)$", prose(page), re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", title.lower()).strip().replace(" ", "-") for title in titles}


def table(page: Path, column: str) -> list[str]:
    """First cells of the table whose first column has this heading."""
    rows = re.findall(rf"^\| {re.escape(column)} \|.*\n\|[-:| ]+\n((?:\|.*\n)+)", page.read_text(), re.MULTILINE)
    return [line.split("|")[1].strip() for block in rows for line in block.splitlines()]


def targets() -> set[str]:
    return set(re.findall(r"^([a-z]+):.*##", (ROOT / "Makefile").read_text(), re.MULTILINE))


each_page = pytest.mark.parametrize("page", PAGES, ids=name_of)


@each_page
def test_links_lead_somewhere(page: Path) -> None:
    broken = []
    for path, anchor in LINK.findall(prose(page)):
        target = (page.parent / path).resolve() if path else page
        if not target.exists() or (anchor and anchor not in anchors(target)):
            broken.append(f"{path}#{anchor}" if anchor else path)

    assert broken == []


@each_page
def test_nothing_waits_to_be_filled_in(page: Path) -> None:
    assert re.findall(r"\b(TBD|TODO|FIXME|XXX|lorem ipsum|coming soon)\b", page.read_text()) == []


@each_page
def test_named_paths_exist(page: Path) -> None:
    named = [text for text in CODE.findall(prose(page)) if REPO_PATH.fullmatch(text)]

    assert [path for path in named if not list(ROOT.glob(path.rstrip("/")))] == []


@each_page
def test_make_targets_that_pages_name_exist(page: Path) -> None:
    named = set(re.findall(r"^(?:# )?make ([a-z]+)|`make ([a-z]+)", page.read_text(), re.MULTILINE))

    assert {first or second for first, second in named} - targets() == set()


@each_page
def test_holdfast_verbs_that_pages_name_exist(page: Path) -> None:
    named = set(re.findall(r"(?:^|[`$] ?)holdfast (?:--\S+ )*([a-z]+)", page.read_text(), re.MULTILINE))

    assert named - {cell.split()[1] for cell in verbs()} == set()


def verbs() -> list[str]:
    return [cell.strip("`") for cell in table(OPERATING, "verb")]


def test_every_page_is_reached_from_the_index() -> None:
    seen: set[Path] = set()
    ahead = [DOCS / "index.md"]
    while ahead:
        page = ahead.pop()
        if page in seen or page.suffix != ".md" or not page.is_relative_to(DOCS):
            continue
        seen.add(page)
        ahead += [(page.parent / path).resolve() for path, _ in LINK.findall(prose(page)) if path]

    assert [name_of(page) for page in PAGES if page.is_relative_to(DOCS) and page not in seen] == []


def test_every_feature_has_its_page() -> None:
    features = (ROOT / "src" / "holdfast" / "features").glob("[!_]*.py")
    pages = {page.stem for page in (DOCS / "features").glob("*.md")}

    assert sorted(path.stem for path in features if path.stem not in pages) == []


def test_every_exit_status_is_explained() -> None:
    raised = {error.exit_code for error in errors.HoldfastError.__subclasses__()}

    assert {0, 1, *raised} == {int(cell) for cell in table(OPERATING, "status")}


def test_every_verb_is_explained_and_no_other() -> None:
    parser = importlib.import_module("holdfast.verbs").parser()
    known = {verb for action in parser._actions for verb in (action.choices or ())}  # noqa: SLF001 no public way

    assert known == {cell.split()[1] for cell in verbs()}


def test_the_design_page_quotes_the_whole_document() -> None:
    numbers = [int(cell) for cell in table(DESIGN, "no.")]

    assert numbers == list(range(1, len(numbers) + 1))
    assert len(numbers) == SENTENCES


def test_words_stand_in_order() -> None:
    words = [re.sub(r"[*`]", "", cell).lower() for cell in table(DOCS / "vocabulary.md", "word")]

    assert words == sorted(words)
    assert len(words) == len(set(words))


def test_decisions_are_numbered_and_whole() -> None:
    records = sorted((DOCS / "decisions").glob("[0-9]*.md"))

    assert [int(record.name[:4]) for record in records] == list(range(1, len(records) + 1))
    for record in records:
        headings = re.findall(r"^## (.+)$", record.read_text(), re.MULTILINE)
        assert headings == ["Context", "Decision", "Consequences"], record.name


def test_the_readmes_two_commands_are_the_whole_story() -> None:
    readme = (ROOT / "README.md").read_text()

    assert "make demo" in readme
    assert "make test" in readme
    assert re.search(r"^make test\b", (ROOT / ".ci" / "run").read_text(), re.MULTILINE)


def test_the_version_is_said_once() -> None:
    package = importlib.import_module("holdfast").__version__

    assert f'version = "{package}"' in (ROOT / "pyproject.toml").read_text()


def test_uv_is_pinned_by_the_lock() -> None:
    lock = (ROOT / "uv.lock").read_text()
    found = re.findall(r'^name = "uv"\nversion = "([\d.]+)"$', lock, re.MULTILINE)

    assert len(found) == 1, "the Makefile reads the version of uv from these two lines"
