"""The directory that messages are dropped into, and its archive."""

from pathlib import Path

import pytest

from holdfast import inbox as room
from holdfast.errors import Rejected
from holdfast.inbox import Inbox

NAME = "firewall_rules.json.5f0c1e9a-7a51-4c6f-9d3e-0c9d6f1b2a3c"


@pytest.fixture
def inbox(tmp_path: Path) -> Inbox:
    directory = tmp_path / "cloud"
    directory.mkdir()
    return Inbox(directory)


def archived(inbox: Inbox) -> list[bytes]:
    return [path.read_bytes() for path in sorted(inbox.processed.iterdir())]


def test_what_was_answered_is_archived_for_its_owner_alone(inbox: Inbox) -> None:
    (inbox.directory / NAME).write_bytes(b"secret")

    inbox.finish(NAME, inbox.read(NAME))

    assert not inbox.waits(NAME)
    assert archived(inbox) == [b"secret"]
    assert [path.stat().st_mode & 0o777 for path in (inbox.processed, *inbox.processed.iterdir())] == [0o700, 0o600]


def test_what_asks_for_it_is_removed_without_an_archive(inbox: Inbox) -> None:
    (inbox.directory / NAME).write_bytes(b"poll")

    inbox.finish(NAME, b"poll", keep=False)

    assert not inbox.waits(NAME)
    assert not inbox.processed.exists()


def test_a_file_that_was_overwritten_meanwhile_stays(inbox: Inbox) -> None:
    (inbox.directory / NAME).write_bytes(b"first")
    document = inbox.read(NAME)
    (inbox.directory / NAME).write_bytes(b"second")

    inbox.finish(NAME, document)

    assert inbox.read(NAME) == b"second"
    assert not inbox.processed.exists()


def test_the_newest_of_a_name_is_read_again_from_the_archive(inbox: Inbox) -> None:
    for text in (b"first", b"second"):
        (inbox.directory / NAME).write_bytes(text)
        inbox.finish(NAME, text)
    (inbox.directory / f"{NAME}.1").write_bytes(b"another")
    inbox.finish(f"{NAME}.1", b"another")

    assert inbox.read(NAME) == b"second"
    inbox.finish(NAME, b"second")
    assert len(archived(inbox)) == 3


@pytest.mark.parametrize(
    "name",
    [
        "../shadow",
        "/etc/shadow",
        "..",
        "",
        "/",
        "processed/../../shadow",
        ".hidden",
        "-rf",
        "a b",
        "a\nb",
        "a;reboot",
        "$(id)",
        "a" * 300,
        "\uff41",
    ],
)
def test_names_that_lead_elsewhere_are_refused(inbox: Inbox, name: str) -> None:
    with pytest.raises(Rejected):
        inbox.read(name)
    with pytest.raises(Rejected):
        inbox.finish(name, b"")


def test_a_path_into_the_directory_is_taken(inbox: Inbox) -> None:
    (inbox.directory / NAME).write_bytes(b"{}")

    assert inbox.read(f"{inbox.directory}/{NAME}") == b"{}"
    assert inbox.name(f"/var/cache/cloud/{NAME}") == NAME


def test_what_is_neither_here_nor_archived_is_refused_by_name(inbox: Inbox) -> None:
    with pytest.raises(Rejected, match=NAME):
        inbox.read(NAME)


def test_a_directory_of_that_name_is_refused(inbox: Inbox) -> None:
    (inbox.directory / NAME).mkdir()

    with pytest.raises(Rejected, match="directory"):
        inbox.read(NAME)


def test_the_archive_keeps_to_its_number_of_files(inbox: Inbox, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(room, "ARCHIVE_FILES", 5)
    for number in range(12):
        (inbox.directory / f"m{number}.json").write_bytes(b"%d" % number)
        inbox.finish(f"m{number}.json", b"%d" % number)

    assert {int(text) for text in archived(inbox)} == {7, 8, 9, 10, 11}


def test_the_archive_keeps_to_its_size(inbox: Inbox, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(room, "ARCHIVE_BYTES", 1000)
    for number in range(12):
        document = b"%03d" % number * 100
        (inbox.directory / f"m{number}.json").write_bytes(document)
        inbox.finish(f"m{number}.json", document)

    assert {int(text[:3]) for text in archived(inbox)} == {9, 10, 11}


def test_the_newest_boot_line_stays_however_much_comes_after_it(inbox: Inbox, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(room, "ARCHIVE_FILES", 5)
    for number, name in enumerate(["cmd_line.json", "cmd_line.json", *(f"m{number}.json" for number in range(12))]):
        (inbox.directory / name).write_bytes(b"%d" % number)
        inbox.finish(name, b"%d" % number)

    assert inbox.read("cmd_line.json") == b"1"
    assert {int(text) for text in archived(inbox)} == {1, 10, 11, 12, 13}
