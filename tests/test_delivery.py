"""What the management server delivers for patching: how it is answered, and what it leaves behind."""

import gzip
import hashlib
import os
import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest

import java_reader
from holdfast import inbox as room
from holdfast.errors import Rejected
from holdfast.inbox import Inbox
from holdfast.scripts import delivery, version

ARCHIVE = gzip.compress(os.urandom(3 * 1024 * 1024))
MD5 = hashlib.md5(ARCHIVE, usedforsecurity=False).hexdigest()
LOGIN = Path(__file__).parent.parent / "system/libexec/holdfast-login"
Ran = tuple[int, str]
Run = Callable[..., Ran]


@pytest.fixture
def run(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> Run:
    """Call a script's function; exit status, and what reaches the server: both streams together."""
    monkeypatch.setattr("syslog.syslog", lambda *_: None)

    def ran(script: Callable[..., int], *more: object) -> Ran:
        code = script(*more)
        said = capsys.readouterr()
        return code, said.out + said.err

    return ran


@pytest.fixture
def router(tmp_path: Path) -> Path:
    """A router's files after a delivery, as far as these scripts look."""
    cache = tmp_path / delivery.CACHE
    cache.mkdir(parents=True)
    (tmp_path / "etc").mkdir()
    (tmp_path / version.RELEASE).write_text("Cloudstack Release 4.22.0\n")
    (tmp_path / version.BOOTED).touch()
    (cache / delivery.PATCH).write_text("#!/bin/sh\ntouch /tmp/was-run\n")
    (cache / "agent.zip").write_bytes(b"PK")
    (cache / delivery.SCRIPTS).write_bytes(ARCHIVE)
    return tmp_path


def left(router: Path) -> set[str]:
    return {path.name for path in (router / delivery.CACHE).iterdir()} - {"boot_up_done"}


def test_the_patch_is_answered_with_the_archives_sum_and_cleared_away(router: Path, run: Run) -> None:
    assert run(delivery.patched, [], router) == (0, f"version:{MD5}\n")
    assert left(router) == {"cloud-scripts-signature"}
    assert java_reader.version(*run(version.get_template_version, [], router))[1] == f"{MD5}\n"


def test_a_start_asks_for_the_version_and_has_it_taken(router: Path, run: Run) -> None:
    assert java_reader.version(*run(version.get_template_version, [], router))[1] == f"{MD5}\n"
    assert left(router) == {"cloud-scripts-signature"}


@pytest.mark.parametrize("data", [b"", ARCHIVE[:-1], ARCHIVE[:1000], b"no archive"])
def test_an_archive_on_its_way_is_left_alone(router: Path, run: Run, data: bytes) -> None:
    (router / delivery.CACHE / delivery.SCRIPTS).write_bytes(data)

    assert run(delivery.patched, [], router) == (1, "error: cloud-scripts.tgz is not a whole archive\n")
    told = java_reader.version(*run(version.get_template_version, [], router))[1]

    assert told.startswith("holdfast-")
    assert left(router) == set(delivery.DELIVERED)


def test_what_leads_elsewhere_is_not_followed(router: Path, run: Run) -> None:
    path = router / delivery.CACHE / delivery.SCRIPTS
    path.unlink()
    path.symlink_to(router / "etc/cloudstack-release")

    assert run(delivery.patched, [], router)[0] == 1


def test_without_a_delivery_the_patch_is_told_what_is_known(router: Path, run: Run) -> None:
    for name in delivery.DELIVERED:
        (router / delivery.CACHE / name).unlink()
    (router / version.SIGNATURE).write_text("a:b c\n")

    assert run(delivery.patched, [], router) == (0, "version:a\n")


@pytest.mark.parametrize("name", delivery.DELIVERED)
def test_it_is_no_message(router: Path, name: str) -> None:
    assert set(delivery.DELIVERED) == room.NO_MESSAGES
    with pytest.raises(Rejected, match="no message"):
        Inbox(router / delivery.CACHE).read(name)


def login(asked: str | None, data: bytes = b"") -> subprocess.CompletedProcess[bytes]:
    """Run the server's login script as sshd does."""
    environment = {"PATH": os.environ["PATH"], "SHELL": "/bin/bash", "HOME": "/"}
    if asked is not None:
        environment["SSH_ORIGINAL_COMMAND"] = asked
    return subprocess.run([LOGIN], input=data, capture_output=True, check=False, env=environment)


def test_everything_else_runs_as_it_was_asked() -> None:
    done = login("cat; echo \"$0 'a  b'\" >&2; env | grep -c SSH_; exit 7", b"in\0put")

    assert (done.returncode, done.stdout, done.stderr) == (7, b"in\0put0\n", b"/bin/bash 'a  b'\n")


def test_a_login_without_a_command_has_a_shell() -> None:
    assert login(None, b"shopt -q login_shell && echo shell\n").stdout == b"shell\n"


@pytest.mark.parametrize("asked", ["/var/cache/cloud/patch-sysvms.sh", "/var/cache/cloud/patch-sysvms.sh null"])
def test_the_patch_alone_is_answered(asked: str, tmp_path: Path) -> None:
    ours = tmp_path / "holdfast-patched"
    ours.write_text("#!/bin/sh\necho ours\n")
    ours.chmod(0o755)
    script = tmp_path / "login"
    script.write_text(LOGIN.read_text().replace("/opt/holdfast/libexec/holdfast-patched", str(ours)))
    script.chmod(0o755)

    done = subprocess.run([script], capture_output=True, check=True, env={"SSH_ORIGINAL_COMMAND": asked})

    assert done.stdout == b"ours\n"
