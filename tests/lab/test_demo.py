"""The demo proves all that it claims, and is gone without a trace."""

import re
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from holdfast.lab.demo import ACTS
from holdfast.lab.demo_act import Sentence
from holdfast.lab.ledger import NETNS, ROOT

pytestmark = [pytest.mark.lab, pytest.mark.appliance]

DEMO = [sys.executable, "-m", "holdfast.lab.demo"]
ROW = re.compile(r"^   ([✓✗·])        ([✓✗·])     (.+)$", re.MULTILINE)


def traces() -> list[str]:
    """Everything on this machine that bears the demo's name."""
    places = [
        *ROOT.glob("hf-demo*"),
        *NETNS.glob("hf-demo*"),
        *Path("/sys/fs/cgroup").glob("*/holdfast-lab-hf-demo*"),
    ]
    mounts = [line for line in Path("/proc/self/mounts").read_text().splitlines() if "/hf-demo" in line]
    return [*map(str, places), *mounts]


def ticked(sentences: tuple[Sentence, ...]) -> set[tuple[str, str, str]]:
    """The rows of sentences that hold at both times."""
    return {(sentence.text, "✓", "✓") for sentence in sentences}


def test_every_sentence_has_a_tick_and_nothing_is_left() -> None:
    done = subprocess.run(DEMO, capture_output=True, text=True, timeout=300, check=False)
    tables = done.stdout.partition("== In one table")[2]

    for act in ACTS.values():
        rows = ROW.findall(tables.partition(f" {act.title}\n")[2].partition("\n\n")[0])
        assert [row for row in rows if "✗" in row] == []
        assert ticked(act.sentences) <= {(text, told, again) for told, again, text in rows}
    assert done.returncode == 0, done.stdout + done.stderr
    assert "\x1b" not in done.stdout
    assert traces() == []


@pytest.mark.parametrize("act", ACTS)
def test_stopped_in_the_middle_it_leaves_nothing(act: str) -> None:
    with subprocess.Popen([*DEMO, "--only", act], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as demo:
        assert demo.stdout is not None
        for line in demo.stdout:
            if line.startswith(" 3 "):
                break
        time.sleep(0.1)
        demo.send_signal(signal.SIGINT)
        _, errors = demo.communicate(timeout=60)

    assert demo.returncode == 130
    assert "stopped" in errors
    assert traces() == []
