"""The resident agent's loop and its client: requests, wishes, ends.  Commands and ears are the tests' own."""

import fcntl
import importlib
import inspect
import os
import pkgutil
import signal
import socket
import struct
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from holdfast import client, ears, resident
from holdfast.ears import links
from holdfast.ears.links import Links
from holdfast.ears.timer import Timer
from holdfast.ears.wake import Wake
from holdfast.resident import SOCKET

SRC = Path(client.__file__).parents[1]
AGENT = """
import os, signal, sys, time
from pathlib import Path
from holdfast.ears import Wish
from holdfast.ears.wake import Wake
from holdfast.resident import Agent
from holdfast import resident

root = Path(sys.argv[1])
resident.CHILDREN = int(sys.argv[2])
resident.LIMIT_S = float(sys.argv[3])
resident.AGAIN_S = 0.3

def say(argv):
    print("out", *argv, os.getcwd(), os.environ.get("HOLDFAST_NIC_WAIT_S"), sys.stdin.read())
    print("err", file=sys.stderr)
    return 5

def stay(argv):
    (root / argv[0]).write_text(str(os.getpid()))
    time.sleep(float(argv[1]))
    print("late", file=sys.stderr)
    (root / argv[0]).write_text("done")
    return 0

def end(argv):
    sys.exit(argv[0])

def die(argv):
    os.kill(os.getpid(), signal.SIGKILL)

def handles(argv):
    print(sorted(int(name) for name in os.listdir("/proc/self/fd"))[3:])
    return 0

def bug(argv):
    raise RuntimeError("a bug")

def heed(causes):
    with (root / "heard").open("a") as heard:
        heard.write(";".join(causes) + "\\n")
    time.sleep(0.5)
    return 3 if (root / "fails").exists() else 0

class Often:
    def __init__(self):
        self.at = 0.0
    def fileno(self):
        return -1
    def ready(self, now):
        return ()
    def tick(self, now):
        self.at = now + 3600
        (root / "ticks").open("a").write("t")
        return ()
    def due(self):
        return self.at
    def close(self):
        pass

commands = dict(say=say, stay=stay, end=end, die=die, handles=handles, bug=bug)
Agent(root, commands, [Wake(root), Often()], heed).run()
"""


class Running:
    def __init__(self, root: Path, process: subprocess.Popen[bytes]) -> None:
        self.root, self.process = root, process
        self.socket = root / SOCKET

    def start(self, name: str, *argv: str) -> subprocess.Popen[str]:
        code = (
            f"import sys; sys.path.insert(0, {str(SRC)!r}); from holdfast.client import ask; "
            f"sys.exit({{None: 99}}.get(code := ask({name!r}, {list(argv)!r}, {str(self.socket)!r}), code))"
        )
        return subprocess.Popen(
            [sys.executable, "-IS", "-c", code, f"/a/{name}", *argv], stdin=subprocess.PIPE, stdout=subprocess.PIPE,
            stderr=subprocess.PIPE, text=True, cwd=self.root, env={"HOLDFAST_NIC_WAIT_S": "2.5", "LANG": "C.UTF-8"},
        )  # fmt: skip

    def ask(self, name: str, *argv: str, given: str = "") -> tuple[int, str, str]:
        process = self.start(name, *argv)
        out, errors = process.communicate(given, timeout=20)
        return process.returncode, out, errors

    def heard(self) -> list[str]:
        path = self.root / "heard"
        return path.read_text().splitlines() if path.exists() else []

    def ticks(self) -> str:
        path = self.root / "ticks"
        return path.read_text() if path.exists() else ""


def until(true: Callable[[], object], timeout_s: float = 5) -> None:
    end = time.monotonic() + timeout_s
    while not true():
        assert time.monotonic() < end
        time.sleep(0.01)


@contextmanager
def running(root: Path, *, children: int = 64, limit_s: float = 580) -> Iterator[Running]:
    (root / "run/holdfast").mkdir(parents=True, exist_ok=True)
    with subprocess.Popen(
        [sys.executable, "-c", AGENT, str(root), str(children), str(limit_s)],
        env={"PYTHONPATH": str(SRC), "LANG": "C.UTF-8"},
    ) as process:
        try:
            until((root / SOCKET).exists)
            yield Running(root, process)
        finally:
            process.kill()


@pytest.fixture
def agent(tmp_path: Path) -> Iterator[Running]:
    with running(tmp_path) as agent:
        yield agent


def test_a_command_has_its_caller_s_input_output_directory_and_patience(agent: Running) -> None:
    code, out, errors = agent.ask("say", "a b", "", "ü\n", given="asked")

    assert (code, errors) == (5, "err\n")
    assert out == f"out a b  ü\n {agent.root} 2.5 asked\n"


@pytest.mark.parametrize(
    ("argv", "code", "said"), [(("end", "7"), 1, "7\n"), (("end", ""), 1, "\n"), (("bug",), 1, "RuntimeError: a bug\n")]
)
def test_a_command_that_ends_by_an_exception_ends_as_a_process_would(
    agent: Running, argv: tuple[str, ...], code: int, said: str
) -> None:
    ended, out, errors = agent.ask(*argv)

    assert (ended, out) == (code, "")
    assert errors.endswith(said)
    assert agent.ask("say")[0] == 5


def test_nothing_of_the_agent_s_is_open_in_a_child(agent: Running) -> None:
    waiting = agent.start("stay", "s", "1")
    until((agent.root / "s").exists)

    code, out, _ = agent.ask("handles")

    assert code == 0
    assert len(out.split(",")) == 2  # its own caller, and the directory that it reads
    waiting.kill()
    waiting.communicate()


def test_a_child_that_dies_or_a_name_that_is_none_leaves_the_work_to_the_caller(agent: Running) -> None:
    assert agent.ask("die") == (99, "", "")
    assert (agent.root / "run/holdfast/role.moved").exists()
    assert agent.ask("no-such-command") == (99, "", "")
    assert agent.ask("say")[0] == 5


def test_where_nobody_listens_the_caller_does_it(tmp_path: Path) -> None:
    assert client.ask("say", [], str(tmp_path / "absent")) is None


def test_a_caller_that_is_killed_does_not_end_the_work(agent: Running) -> None:
    caller = agent.start("stay", "s", "0.5")
    until((agent.root / "s").exists)
    caller.kill()
    caller.communicate()

    until(lambda: (agent.root / "s").read_text() == "done")


def test_commands_run_side_by_side_and_too_many_do_it_themselves(tmp_path: Path) -> None:
    with running(tmp_path, children=3) as agent:
        callers = [agent.start("stay", f"s{number}", "2") for number in range(3)]
        until(lambda: all((agent.root / f"s{number}").exists() for number in range(3)))

        assert agent.ask("say") == (99, "", "")

        assert [caller.wait(5) for caller in callers] == [0, 0, 0]
        assert agent.ask("say")[0] == 5
        for caller in callers:
            caller.communicate()


def test_one_that_takes_too_long_is_ended_and_not_done_again(tmp_path: Path) -> None:
    with running(tmp_path, limit_s=0.3) as agent:
        assert agent.ask("stay", "s", "60") == (3, "", "error: no end within 0 s\n")
        log = (tmp_path / "var/log/routerServiceMonitor.log").read_text()
    assert "a request (stay s 60) was ended: no end within 0 s (process " in log
    assert log.count("\n") == 1


def test_a_silent_caller_holds_up_nobody(agent: Running) -> None:
    with socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET) as silent:
        silent.connect(str(agent.socket))

        assert agent.ask("say")[0] == 5


def test_the_end_waits_for_who_is_at_work(agent: Running) -> None:
    caller = agent.start("stay", "s", "0.5")
    until((agent.root / "s").exists)
    agent.process.send_signal(signal.SIGTERM)

    until(lambda: not agent.socket.exists())
    assert client.ask("say", [], str(agent.socket)) is None
    assert caller.wait(5) == 0
    assert agent.process.wait(5) == 0
    caller.communicate()


def test_killed_it_leaves_a_place_where_the_next_one_can_listen(agent: Running) -> None:
    agent.process.kill()
    agent.process.wait()
    assert agent.ask("say") == (99, "", "")

    with running(agent.root) as another:
        until(lambda: another.ask("say")[0] == 5)


def test_wishes_that_come_while_it_converges_are_one(agent: Running) -> None:
    moved, wake = agent.root / "run/holdfast/role.moved", agent.root / "run/holdfast/wake"
    for _ in range(5):
        moved.touch()
        wake.write_text("!\n")
        time.sleep(0.03)
    moved.unlink()

    until(lambda: len(agent.heard()) == 2)
    time.sleep(0.7)
    assert agent.heard() == ["role", "role"]


def test_a_poke_rouses_the_other_ears(agent: Running) -> None:
    until(lambda: agent.ticks() == "t")

    (agent.root / "run/holdfast/wake").write_text("!\n")

    until(lambda: agent.ticks() == "tt")
    assert agent.heard() == []


def test_a_convergence_that_failed_is_tried_again_after_a_pause(agent: Running) -> None:
    (agent.root / "fails").touch()
    (agent.root / "run/holdfast/role.moved").touch()
    began = time.monotonic()
    (agent.root / "run/holdfast/wake").write_text("!\n")

    until(lambda: len(agent.heard()) == 2)
    assert time.monotonic() - began >= 0.5


def test_the_poke_s_fifo_replaces_what_is_none(tmp_path: Path) -> None:
    place = tmp_path / "run/holdfast/wake"
    place.parent.mkdir(parents=True)
    place.write_text("a file")

    ear = Wake(tmp_path)

    assert place.is_fifo()
    assert place.stat().st_mode & 0o777 == 0o600
    ear.close()
    again = Wake(tmp_path)
    place.write_text("!")
    assert [wish.cause for wish in again.ready(1.0)] == [""]
    assert again.due() < 1.1  # the flag may come a moment after the poke
    again.close()


def test_the_timer_wishes_at_its_time() -> None:
    timer = Timer(100.0, 300.0)

    assert (list(timer.tick(399.0)), timer.due()) == ([], 400.0)
    assert [wish.cause for wish in timer.tick(401.0)] == ["drift"]
    assert timer.due() == 701.0


def test_only_another_set_of_nics_is_a_wish() -> None:
    seen = [{"eth0": (b"a", True)}]
    ear = Links(lambda: seen[-1])

    seen.append({"eth0": (b"a", False)})
    assert [(wish.cause, wish.urgent) for wish in ear.ready(1.0)] == [("", True)]
    assert list(ear.tick(9.0)) == []

    seen.append({"eth0": (b"a", False), "eth1": (b"b", False)})
    list(ear.ready(10.0))
    seen.append({"eth0": (b"c", False), "eth1": (b"b", False)})
    list(ear.ready(10.05))
    assert ear.due() == pytest.approx(10.1)
    assert list(ear.tick(10.09)) == []
    assert [wish.cause for wish in ear.tick(10.1)] == ["nics: eth0 eth1"]
    assert list(ear.tick(11.0)) == []
    ear.close()


def test_nics_are_read_without_a_program() -> None:
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as asked:
        for name, (mac, _) in links.nics().items():
            told = fcntl.ioctl(asked, 0x8927, struct.pack("40s", name.encode()))
            assert told[18:24] == mac
            assert Path(f"/sys/class/net/{name}").exists() or os.geteuid()


def test_no_ear_is_forgotten() -> None:
    for _, name, _ in pkgutil.iter_modules(ears.__path__):
        module = importlib.import_module(f"holdfast.ears.{name}")
        own = [one for one in vars(module).values() if isinstance(one, type) and one.__module__ == module.__name__]
        for ear in own:
            if hasattr(ear, "tick") and hasattr(ear, "due") and hasattr(ear, "fileno"):
                assert f"{ear.__name__}(" in inspect.getsource(resident.main), ear.__qualname__
