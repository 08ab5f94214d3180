"""Programs that tell the boot line, as the router starts them: found by the path, asked by these words exactly."""

import shlex
import sys
from pathlib import Path

import pytest

from holdfast import boot
from holdfast.boot.line import parse

LINE = "template=domP name=r-31-VM type=router eth0ip=10.31.0.1 eth0mask=255.255.255.0"
DMI = (
    "# dmidecode 3.4\nGetting SMBIOS data from sysfs.\nSMBIOS 2.5 present.\n\nHandle 0x0001, DMI type 1, 27 bytes\n"
    "System Information\n\tManufacturer: innotek GmbH\n\tProduct Name: VirtualBox\n\n"
    "Handle 0x0005, DMI type 11, 5 bytes\n"
    f"OEM Strings\n\tString 1: vboxVer_7.0.10\n\tString 2: cmdline:{LINE}\n"
)
SCRIPT = """#!{python}
import json, pathlib, sys
here = pathlib.Path(sys.argv[0])
here.with_suffix(".asked").write_text(json.dumps(sys.argv[1:]))
sys.stdout.write(here.with_suffix(".says").read_text())
"""


@pytest.fixture
def programs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Where programs are found, and nowhere else."""
    found = tmp_path / "bin"
    found.mkdir()
    monkeypatch.setenv("PATH", str(found))
    return found


def stand_in(programs: Path, name: str, says: str) -> None:
    path = programs / name
    path.write_text(SCRIPT.format(python=shlex.quote(sys.executable)))
    path.chmod(0o755)
    path.with_suffix(".says").write_text(says)


@pytest.mark.parametrize(
    "told",
    [
        ("vmware", "vmtoolsd", '["--cmd", "machine.id.get"]', f"{LINE}\n"),
        ("xen", "xenstore-read", '["vm-data/cloudstack/init"]', f"{LINE.replace(' ', '%')}\n"),
        ("oracle", "dmidecode", "[]", DMI),
    ],
)
def test_a_program_is_asked_and_its_answer_is_the_line(
    programs: Path, tmp_path: Path, told: tuple[str, str, str, str]
) -> None:
    kind, program, words, says = told
    stand_in(programs, "systemd-detect-virt", f"{kind}\n")
    stand_in(programs, program, says)
    troubles: list[str] = []

    found = boot.find(tmp_path / "root", wait_s=0, say=troubles.append)

    assert found is not None, troubles
    assert parse(found.text) == parse(LINE)
    assert (programs / program).with_suffix(".asked").read_text() == words


def test_hyper_v_the_pool_as_its_daemon_writes_it(programs: Path, tmp_path: Path) -> None:
    """Records as the kernel's tool keeps them: `struct kvp_record { char key[512]; char value[2048]; }`, appended."""
    stand_in(programs, "systemd-detect-virt", "microsoft\n")
    pool = tmp_path / "root/var/lib/hyperv/.kvp_pool_0"
    pool.parent.mkdir(parents=True)
    with pool.open("wb") as file:
        for key, value in (("HostName", "hv1"), ("cloudstack-vm-userdata", LINE), ("VirtualMachineName", "r-31-VM")):
            record = bytearray(512 + 2048)
            record[: len(key)] = key.encode()
            record[512 : 512 + len(value)] = value.encode()
            file.write(record)

    found = boot.find(tmp_path / "root", wait_s=0, say=lambda _: None)

    assert found is not None
    assert parse(found.text) == parse(LINE)
