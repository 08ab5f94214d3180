"""The management server patches a router, over ssh: the router stays what it is, and the server is content."""

import gzip
import hashlib
import io
import shutil
import tarfile
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from replay import said
from test_boot import CONTROL, Started
from test_boot import started as started  # noqa: PLC0414 a fixture

import java_reader

pytestmark = [pytest.mark.lab, pytest.mark.appliance]

PATCH = "/var/cache/cloud/patch-sysvms.sh"
DELIVERED = ("agent.zip", "cloud-scripts.tgz", "patch-sysvms.sh")
ANOTHER = "#!/bin/sh\necho another agent\n"
OVERWRITTEN = (
    "opt/cloud/bin/update_config.py",
    "opt/cloud/bin/get_template_version.sh",
    "usr/lib/systemd/system/holdfast-agent.service",
)
"""What the archive would put in our place."""
STAND_IN = f"""#!/bin/sh
# Has the effects of a server's patch: unpacks over everything, starts anew what runs, notes the sum, cleans up.
set -e
tar -xf /var/cache/cloud/cloud-scripts.tgz -C /
md5sum /var/cache/cloud/cloud-scripts.tgz | cut -d ' ' -f 1 >/var/cache/cloud/cloud-scripts-signature
systemctl daemon-reload
rm -f {" ".join(f"/var/cache/cloud/{name}" for name in DELIVERED)}
echo "version:$(cat /var/cache/cloud/cloud-scripts-signature) "
"""
_SUMS = (
    "find /opt/cloud /opt/holdfast /etc/systemd /usr/lib/systemd/system /usr/sbin/holdfast -type f ! -name '*.pyc' "
    "-exec md5sum {} + | sort"
)


@pytest.fixture
def delivery(tmp_path: Path) -> Path:
    """A directory with what a server delivers."""
    with tarfile.open(tmp_path / "cloud-scripts.tgz", "w:gz") as archive:
        for name in OVERWRITTEN:
            member = tarfile.TarInfo(name)
            member.size, member.mode = len(ANOTHER), 0o755
            archive.addfile(member, io.BytesIO(ANOTHER.encode()))
    (tmp_path / "agent.zip").write_bytes(b"PK" * 1024 * 1024)
    (tmp_path / "patch-sysvms.sh").write_text(STAND_IN)
    for path in tmp_path.iterdir():
        path.chmod(0o755)
    return tmp_path


@pytest.fixture
def patched(started: Started, delivery: Path) -> Iterator[tuple[Started, Path]]:
    """A router that the server has delivered to."""
    started.site.router.write("/etc/cloudstack-release", "Cloudstack Release 4.22.0\n")
    yield started, delivery
    shutil.rmtree(delivery)


def copy(started: Started, delivery: Path, *options: str) -> None:
    own = ["scp", *options, "-q", "-F", "none", "-P", "3922", "-i", str(started.key), "-oStrictHostKeyChecking=no"]
    own += ["-oUserKnownHostsFile=/dev/null", "-oBatchMode=yes", *(str(delivery / name) for name in DELIVERED)]
    done = started.mgmt.run([*own, f"root@{CONTROL}:/var/cache/cloud/"], timeout_s=30)
    assert done.code == 0, said(done)


def signature(started: Started) -> str:
    done = started.ssh("/opt/cloud/bin/get_template_version.sh")
    return java_reader.version(done.code, done.text + done.errors)[1].strip()


def sums(started: Started) -> str:
    return started.site.router.shell(["sh", "-c", _SUMS]).text


def of(path: Path) -> str:
    return hashlib.md5(path.read_bytes(), usedforsecurity=False).hexdigest()


@pytest.mark.parametrize("options", [("-O",), ("-s",)], ids=["scp", "sftp"])
def test_a_patch_is_answered_and_changes_nothing(patched: tuple[Started, Path], options: tuple[str, ...]) -> None:
    started, delivery = patched
    archive = delivery / "cloud-scripts.tgz"
    unpacked = gzip.decompress(archive.read_bytes())
    archive.write_bytes(gzip.compress(unpacked, mtime=time.time_ns() % 2**32))  # one that no test has delivered
    before, knew = sums(started), signature(started)
    assert knew != of(archive)
    copy(started, delivery, *options)

    done = started.ssh(PATCH)

    parts = (done.text + done.errors).replace("\n", " ").split(":")  # as the server parses it
    assert (done.code, len(parts), parts[1].split(" ")[0]) == (0, 2, of(archive)), said(done)
    assert (sums(started), signature(started)) == (before, of(archive))
    assert not [name for name in DELIVERED if started.site.path(f"/var/cache/cloud/{name}").exists()]
    assert started.site.plan()["changes"] == []


def test_a_delivery_at_a_start_is_taken_when_the_version_is_asked(patched: tuple[Started, Path]) -> None:
    started, delivery = patched
    archive = delivery / "cloud-scripts.tgz"
    archive.write_bytes(gzip.compress(b"another start"))
    copy(started, delivery, "-O")

    assert signature(started) == of(archive)
    assert not [name for name in DELIVERED if started.site.path(f"/var/cache/cloud/{name}").exists()]


def test_also_where_the_image_knows_the_servers_key(patched: tuple[Started, Path]) -> None:
    """An adopted router has it in root's own file too."""
    started, delivery = patched
    key = started.key.with_suffix(".pub").read_text()
    started.site.router.write("/root/.ssh/authorized_keys", key, mode=0o600)
    before = sums(started)
    copy(started, delivery, "-O")

    try:
        done = started.ssh(PATCH)
        assert done.code == 0, said(done)
        assert sums(started) == before
    finally:
        started.site.router.shell(["rm", "/root/.ssh/authorized_keys"])


def test_other_commands_keep_their_streams_and_status(started: Started) -> None:
    done = started.ssh("printf '%s|' \"$0\" 'a  b' $SSH_ORIGINAL_COMMAND; echo wrong >&2; exit 7")

    assert (done.code, done.text, done.errors) == (7, "/bin/bash|a  b|", "wrong\n"), said(done)
