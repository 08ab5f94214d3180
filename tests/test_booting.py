"""A boot under trouble: no room, nothing whole on the disk, a death between two steps."""

from pathlib import Path

import pytest

from fake_machine import NICS, FakeMachine
from holdfast import agent, alerts, boot, start
from holdfast.boot import Found
from holdfast.errors import Degraded, Failed
from holdfast.generation import Damaged
from holdfast.marks import Marks
from holdfast.session import Session
from holdfast.store import Store
from test_laws import rule
from test_sequence import LINE, Routed

OTHER = LINE.replace("r-31-VM", "r-32-VM")
SAME = Found(LINE, "the kernel command line")
NEWER = Found(OTHER, "the kernel command line")
assert OTHER != LINE


@pytest.fixture
def router(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Routed:
    monkeypatch.setattr(alerts, "note", lambda *_, **__: None)
    router = Routed(tmp_path)
    router.boot()
    router.send(rule(1, src_port_range=[80, 80]))
    return router


def rebooted(router: Routed) -> Session:
    """A machine that has forgotten everything, and a session on the same disk."""
    router.boots += 1
    router.machine = FakeMachine(NICS)
    session = router.session = Session(router.root, nic_wait_s=0)
    session.machine = router.machine  # type: ignore[assignment]  # all that a session uses of one
    router.machine.marks = session.sequence.marks = Marks(router.root / f"run/marks{router.boots}")
    return session


def full(*_: object, **__: object) -> None:
    raise OSError(28, "No space left on device")


def no_room(*_: object, **__: object) -> int:
    raise Failed("cannot be written: No space left on device")


def name(router: Routed) -> str:
    return str(agent.current(router.session.store)[0]["cmdline"].name)


def test_a_full_disk_keeps_no_router_dark(router: Routed, monkeypatch: pytest.MonkeyPatch) -> None:
    held = dict(router.machine.held)
    session = rebooted(router)
    with monkeypatch.context() as patched:
        patched.setattr(boot, "leave", full)
        answer = session.up(SAME)
    assert answer is not None
    assert answer.code == 0
    assert router.machine.held == held
    assert "No space left" in (router.root / alerts.LOG).read_text()


def test_a_new_line_that_cannot_be_stored_waits_and_what_is_stored_is_restored(
    router: Routed, monkeypatch: pytest.MonkeyPatch
) -> None:
    held = dict(router.machine.held)
    session = rebooted(router)
    with monkeypatch.context() as patched:
        patched.setattr(Store, "propose", no_room)
        answer = session.up(NEWER)
    assert answer is not None
    assert answer.code == Failed.exit_code
    assert "No space left" in answer.reason
    assert router.machine.held == held

    assert name(router) == "r-31-VM"
    assert session.converge("there is room again").code == 0
    assert name(router) == "r-32-VM"


def test_where_nothing_is_whole_the_line_alone_lets_somebody_in(router: Routed) -> None:
    for meta in router.root.rglob("meta.json"):
        meta.write_bytes(meta.read_bytes()[:10])
    damaged = {path: path.read_bytes() for path in router.root.rglob("generations/*/*") if path.is_file()}
    session = rebooted(router)

    answer = session.up(SAME)

    assert answer is not None
    assert answer.code == Degraded.exit_code
    assert "the boot line alone is applied" in answer.reason
    assert ("Unit", "ssh.service") in router.machine.held
    assert any(key[0] == "Address" for key in router.machine.held)
    assert {path: path.read_bytes() for path in damaged} == damaged, "somebody may yet repair it"
    with pytest.raises(Damaged):
        rebooted(router).up(None)


def test_who_dies_before_the_line_is_noted_finds_it_again(router: Routed, monkeypatch: pytest.MonkeyPatch) -> None:
    session = rebooted(router)
    session.up(SAME)
    late = NEWER._replace(source="VMware's machine id")
    for room, step in ((boot, "leave"), (start, "found")):
        with monkeypatch.context() as patched:
            patched.setattr(room, step, lambda *_: (_ for _ in ()).throw(KeyboardInterrupt))
            with pytest.raises(KeyboardInterrupt):
                session.up(late, late=True)

    answer = session.up(late, late=True)
    assert answer is not None
    assert answer.code == 0
    assert name(router) == "r-32-VM"
    assert session.up(late, late=True) is None
