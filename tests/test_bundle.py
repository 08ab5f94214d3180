"""Bundles of messages: read as they are written, never run, and one answer for all."""

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fake_machine import BOOT_LINE, NICS, FakeMachine
from holdfast import alerts
from holdfast.bundle import Step, steps
from holdfast.errors import Rejected
from holdfast.marks import Marks
from holdfast.session import Session

HEAD = b"#Apache CloudStack Virtual Router Config File\n<version>\n1.0\n</version>\n"


def block(name: str, document: bytes, script: str = "/opt/cloud/bin/update_config.py") -> bytes:
    file = b"<file>\n/var/cache/cloud/%s\n%s\n</file>\n" % (name.encode(), document)
    return file + b"<script>\n%s %s\n</script>\n" % (script.encode(), name.encode())


def test_only_the_version_is_no_step() -> None:
    assert steps(HEAD) == []
    assert steps(b"") == []


def test_each_script_sees_its_own_version_of_a_name() -> None:
    text = HEAD + block("a.json", b'{"n":1}') + block("b.json", b'{"n":2}') + block("a.json", b'{"n":3}')

    assert [(step.argument, step.document) for step in steps(text)] == [
        ("a.json", b'{"n":1}'), ("b.json", b'{"n":2}'), ("a.json", b'{"n":3}'),
    ]  # fmt: skip


def test_other_scripts_are_told_and_not_run() -> None:
    text = HEAD + b"<script>\n/opt/cloud/bin/bumpup_priority.sh null\n/opt/cloud/bin/x.sh $(touch X) ; y\n</script>\n"

    assert steps(text) == [Step("bumpup_priority.sh", "null"), Step("x.sh", "$(touch X) ; y")]


def test_a_message_may_look_like_tags_within_its_line() -> None:
    document = b'{"a":"</file> <script>"}'

    assert steps(HEAD + block("a.json", document))[0].document == document


WRONG = {
    "a script before its file": HEAD + b"<script>\n/opt/cloud/bin/update_config.py a.json\n</script>\n",
    "a script without a name": HEAD + b"<script>\n/opt/cloud/bin/update_config.py\n</script>\n",
    "a block that does not end": HEAD + b"<file>\n/var/cache/cloud/a.json\n{}\n",
    "a file without a path": HEAD + b"<file>\n</file>\n",
    "text outside of blocks": HEAD + b"rm -rf /\n",
    "another version": b"<version>\n2.0\n</version>\n",
    "the end of another block": HEAD + b"</file>\n",
    "a bare message": b'{"type":"ips"}',
    "not even text": b"\xff\xfe\x00",
}


@pytest.mark.parametrize("text", WRONG.values(), ids=WRONG.keys())
def test_what_is_no_bundle_is_refused_with_its_line(text: bytes) -> None:
    with pytest.raises(Rejected, match=r"^line \d+: "):
        steps(text)


@given(st.binary(max_size=300))
def test_any_bytes_are_read_or_refused(text: bytes) -> None:
    try:
        found = steps(text)
    except Rejected:
        return
    assert all(isinstance(step, Step) for step in found)


@pytest.fixture
def session(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Session:
    monkeypatch.setattr(alerts, "note", lambda *_, **__: None)
    session = Session(tmp_path, nic_wait_s=0)
    machine = FakeMachine(NICS)
    machine.marks = Marks(tmp_path / "run/holdfast")
    session.machine = machine  # type: ignore[assignment]  # everything of it that a session uses
    session.inbox.directory.mkdir(parents=True)
    return session


def leave(session: Session, name: str, text: bytes) -> Path:
    path = session.inbox.directory / name
    path.write_bytes(text)
    return path


VM = (
    b'{"host_name":"web1","mac_address":"02:00:1f:00:01:0b","ipv4_address":"10.31.0.11",'
    b'"default_entry":true,"type":"dhcpentry"}'
)
BAD = b'{"type":"teapot"}'


def test_a_start_sequence_with_a_bad_command_ends_well(session: Session) -> None:
    leave(session, "cmd_line.json", BOOT_LINE.document)
    assert session.converge("boot", booting=True).code == 0

    answer = session.bundle(leave(session, "VR-1.cfg", HEAD + block("a.json", BAD) + block("b.json", VM)))

    assert answer.code == 0
    assert len(answer.refused) == 1
    assert not session.inbox.waits("VR-1.cfg")
    assert "teapot" in (session.root / alerts.LOG).read_text()


def test_the_same_bundle_on_a_running_router_is_partial(session: Session) -> None:
    leave(session, "cmd_line.json", BOOT_LINE.document)
    session.converge("boot", booting=True)
    session.bundle(leave(session, "VR-1.cfg", HEAD + block("b.json", VM)))
    leave(session, "vm.json", VM)
    assert session.update("vm.json").code == 0

    answer = session.bundle(leave(session, "VR-2.cfg", HEAD + block("a.json", BAD) + block("b.json", VM)))

    assert (answer.code, answer.changes) == (5, ())


def test_a_bundle_brings_the_boot_line_that_waits(session: Session) -> None:
    leave(session, "cmd_line.json", BOOT_LINE.document)

    answer = session.bundle(leave(session, "VR-3.cfg", HEAD + block("b.json", VM)))

    assert answer.code == 0
    assert ("File", "/etc/dhcphosts.txt") in session.machine.held  # type: ignore[attr-defined]  # it is the fake one


def test_scripts_without_effect_are_not_even_named(session: Session) -> None:
    text = HEAD + b"<script>\n/opt/cloud/bin/bumpup_priority.sh null\n/opt/cloud/bin/other.sh -a\n</script>\n"

    said = session.bundle(leave(session, "VR-4.cfg", text)).refused

    assert len(said) == 1
    assert "other.sh -a: not run" in said[0]


def test_an_empty_bundle_is_no_error(session: Session) -> None:
    assert session.bundle(leave(session, "VR-5.cfg", HEAD)).code == 0
