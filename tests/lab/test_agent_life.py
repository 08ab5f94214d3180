"""The resident agent on a router: killed, stopped, absent or busy, every command is answered as ever."""

import json
import os
import random
import re
import threading
import time
from collections.abc import Iterator

import pytest
from replay import BOOT_LINE, HOLDFAST, SECOND_PUBLIC, Site, firewall, ingress, ips, said, site
from slack import SLACK, SOAK

from holdfast.lab.process import Result

pytestmark = pytest.mark.lab

UNIT = "holdfast-agent.service"
UPDATE = "/opt/cloud/bin/update_config.py"
KILLS = 100 if SOAK else 15
KILL = 'cd /; "$1" "$2" & pid=$!; sleep "$3"; kill -"$4" "$5"; wait $pid'
MANY = 20
RULES = 1_000
LARGEST_KB = 40 * 1024
WATCHDOG_S = 15.0
EXPOSED = 6.0


@pytest.fixture(scope="module")
def made() -> Iterator[Site]:
    with site("agent") as made:
        done = made.boot(BOOT_LINE)
        assert done.code == 0, said(done)
        made.told(ips("203.0.113.10", "203.0.113.11"))
        yield made


def pid(made: Site) -> str:
    """The process of an agent that listens."""
    found: list[str] = []

    def listens() -> bool:
        one = made.router.shell(["systemctl", "show", "-P", "MainPID", UNIT]).text.strip()
        found[:] = [one]
        return one != "0" and made.router.active(UNIT)

    made.router.eventually(listens, "the agent listens", SLACK * WATCHDOG_S)
    return found[0]


def clean(made: Site) -> None:
    assert made.plan() == {"changes": [], "pending": [], "refused": [], "conflicts": []}


def plain(done: Result) -> tuple[int, str, str]:
    """An answer without its time."""
    return done.code, re.sub(r"\d+\.\d\d s\b", "T s", done.text), done.errors


def test_it_keeps_to_itself(made: Site) -> None:
    pid(made)
    told = made.router.shell(["systemd-analyze", "security", "--no-pager", UNIT]).text

    level = re.search(r"exposure level for \S+: (\d+\.\d)", told)
    assert level, told
    assert float(level[1]) <= EXPOSED
    assert oct(made.path("/run/holdfast/agent.sock").stat().st_mode & 0o777) == "0o600"


def test_killed_at_any_moment_every_command_is_answered(made: Site) -> None:
    seed = int(os.environ.get("HOLDFAST_SEED") or random.SystemRandom().randrange(1 << 32))
    print(f"HOLDFAST_SEED={seed}")  # noqa: T201 a failure is repeated with it
    dice = random.Random(seed)  # noqa: S311 moments, not secrets
    for number in range(KILLS):
        opened = number % 2 == 0
        name, moment = f"firewall_rules.json.kill{number}", dice.uniform(0, 0.12)
        made.router.send(json.dumps(firewall(ingress(700, 7001, revoked=not opened))).encode(), name)
        argv = ["sh", "-c", KILL, "kill", UPDATE, name, f"{moment:.4f}", "KILL", pid(made)]
        done = made.router.shell(argv)
        assert done.code == 0, f"killed after {moment:.4f} s: {said(done)}"
        assert (". 7001" in made.holds("ingress_port")) is opened
    pid(made)
    clean(made)
    made.told(firewall(ingress(700, 7001, revoked=True)))


def test_stopped_it_is_started_anew_and_who_waits_is_answered(made: Site) -> None:
    before = pid(made)
    made.router.send(json.dumps(firewall(ingress(700, 7002))).encode(), "firewall_rules.json.stop")

    done = made.router.shell(["sh", "-c", f'kill -STOP {before}; exec "$0" "$1"', UPDATE, "firewall_rules.json.stop"])

    assert done.code == 0, said(done)
    assert done.seconds < SLACK * WATCHDOG_S
    assert ". 7002" in made.holds("ingress_port")
    assert pid(made) != before
    clean(made)
    made.told(firewall(ingress(700, 7002, revoked=True)))


def test_told_to_end_it_lets_who_is_at_work_finish(made: Site) -> None:
    pid(made)
    made.router.send(json.dumps(firewall(ingress(700, 7003))).encode(), "firewall_rules.json.end")

    done = made.router.shell(
        ["sh", "-c", '"$0" "$1" & pid=$!; sleep 0.05; systemctl restart "$2"; wait $pid', UPDATE,
         "firewall_rules.json.end", UNIT]
    )  # fmt: skip

    assert done.code == 0, said(done)
    clean(made)
    made.told(firewall(ingress(700, 7003, revoked=True)))


def answers(made: Site) -> list[tuple[int, str, str]]:
    """A round of commands that ends where it began, and what was answered."""
    made.router.write("/tmp/files/rule.json", json.dumps(firewall(ingress(701, 7011))))  # noqa: S108 the lab's own
    made.router.write("/tmp/files/bad.json", b"{")  # noqa: S108 same
    shell = made.router.shell
    return [
        plain(made.tell(firewall(ingress(700, 7004)), "firewall_rules.json.same")),
        plain(made.tell(firewall(ingress(700, 7004)), "firewall_rules.json.same")),
        plain(made.tell(b"{", "firewall_rules.json.broken")),
        plain(made.router.run("update_config.py", "absent.json")),
        plain(made.router.run("update_config.py")),
        plain(made.router.run("vr_cfg.sh", "--help")),
        plain(made.router.run("master.py")),
        plain(made.router.run("configure.py", "cmdline")),
        plain(made.router.run("manage_service.sh", "status", "dnsmasq")),
        plain(shell(["sh", "-c", f"cd /tmp/files; {HOLDFAST} apply rule.json"])),
        plain(shell(["sh", "-c", f"cd /tmp/files; {HOLDFAST} apply --json bad.json | cut -c 1-60"])),
        plain(shell([HOLDFAST, "apply"])),
        plain(shell([HOLDFAST, "handover"])),
        plain(made.tell(firewall(ingress(700, 7004, revoked=True), ingress(701, 7011, revoked=True)), "f.json.same")),
        plain(shell([HOLDFAST, "converge"])),
    ]


def test_without_it_the_answers_are_the_same(made: Site) -> None:
    pid(made)
    answers(made)  # generations have their numbers: the next two rounds begin alike but for them
    first = answers(made)
    made.router.shell(["systemctl", "stop", UNIT])
    try:
        second = answers(made)
    finally:
        made.router.shell(["systemctl", "start", UNIT])

    def unnumbered(given: list[tuple[int, str, str]]) -> list[tuple[int, str, str]]:
        return [(code, re.sub(r'(generation"?[ :]|parent":)\d+', r"\1N", text), errors) for code, text, errors in given]

    assert unnumbered(first) == unnumbered(second)
    assert {code for code, _, _ in first} == {0, 2, 3}
    clean(made)


def test_twenty_at_once_are_answered_one_by_one(made: Site) -> None:
    pid(made)
    given: list[Result] = []

    def tell(number: int) -> None:
        given.append(made.tell(firewall(ingress(800 + number, 8000 + number)), f"firewall_rules.json.all{number}"))

    threads = [threading.Thread(target=tell, args=(number,)) for number in range(MANY)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()

    assert [said(done) for done in given if done.code] == []
    assert len(given) == MANY
    listed = made.holds("ingress_port")
    assert [number for number in range(MANY) if f". {8000 + number}" not in listed] == []
    clean(made)
    made.told(firewall(*(ingress(800 + number, 8000 + number, revoked=True) for number in range(MANY))))


def test_its_memory_does_not_grow_with_the_configuration(made: Site) -> None:
    rules = [ingress(1000 + number, 10_000 + number) for number in range(RULES)]
    made.told(firewall(*rules))
    made.told(firewall(ingress(700, 7005)))

    status = made.router.read(f"/proc/{pid(made)}/status")

    (resident,) = re.findall(r"^VmRSS:\s+(\d+) kB", status, re.MULTILINE)
    assert int(resident) <= LARGEST_KB
    made.told(firewall(*(ingress(1000 + number, 10_000 + number, revoked=True) for number in range(RULES))))
    made.told(firewall(ingress(700, 7005, revoked=True)))


def test_a_nic_that_comes_after_the_boot_is_taken_in_without_a_command(made: Site) -> None:
    made.router.plug(made.second, SECOND_PUBLIC)
    made.told(ips("198.51.100.20", mac=SECOND_PUBLIC, gateway="198.51.100.1", number=3))
    made.router.power_cut()
    made.router.unplug("eth3")
    made.router.boot()
    made.router.eventually(lambda: made.plan()["pending"] != [] and made.plan()["changes"] == [], "its nic is missed")
    pid(made)

    made.router.plug(made.second, SECOND_PUBLIC)
    began = time.monotonic()

    made.router.eventually(lambda: ("eth3", "198.51.100.20/24") in made.state()["addresses"], "it has its address")
    assert time.monotonic() - began < SLACK * 3
    made.router.eventually(lambda: made.plan()["changes"] == [], "nothing is left to do", SLACK * 5)
    clean(made)
