"""keepalived and conntrackd with the texts that a pair is given, in two namespaces: one serves, the other knows."""

import os
import re
import secrets
import signal
import statistics
import subprocess
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import reduce
from pathlib import Path
from typing import Any

import msgspec
import pytest
from slack import SLACK, SOAK

from holdfast import conntrackd, keepalived
from holdfast.config import EMPTY, decode, merge
from holdfast.desired import desired
from holdfast.drivers.handover import TO_FORGET, TO_SERVE, TO_STAND_BY, TO_TELL_AGAIN, ask
from holdfast.keepalived import Virtual
from holdfast.lab import image
from holdfast.lab.ledger import Ledger, sweep
from holdfast.lab.network import Segment, Switch, batch, make_namespace
from holdfast.lab.process import finish, must, start
from holdfast.lab.sentence import eventually
from holdfast.router import Facts, Nic, Role
from holdfast.state import Elements, File, Ruleset, State, Sysctl

pytestmark = [pytest.mark.lab, pytest.mark.skipif(os.geteuid() != 0, reason="needs root")]

FLOWS = 500
HOOK = '#!/bin/sh\necho "$3 $(date +%s%N)" >>/run/word\n'
CUT = """
table inet cut {
    chain input {
        type filter hook input priority -300
        ip protocol 112 drop
    }
}
"""
RUNS = 20 if SOAK else 3
PLANNED_MS = 30
WOKEN_MS = 1000 + 100
"""An advert's time, and a little."""
ONE_WAY = """
import socket, time
sockets = [socket.socket(socket.AF_INET, socket.SOCK_DGRAM) for _ in range(20)]
for one in sockets:
    one.bind(("", 0))
while True:
    for one in sockets:
        one.sendto(b"x", ("10.72.2.99", 7777))
    time.sleep(0.2)
"""
CONTROL, PUBLIC = "0e:00:a9:48:00:0{}", "1e:00:cb:00:71:4{}"
Message = dict[str, Any]


def line(number: int) -> Message:
    told = {
        "type": "vpcrouter", "name": f"r-7{number}-VM", "vpccidr": "10.72.0.0/16", "eth0ip": f"169.254.72.{number}",
        "eth0mask": "255.255.0.0", "redundant_router": "1", "advert_int": "1", "router_id": "72",
        "router_password": "73190042586631907254410098236517",
    }  # fmt: skip
    return {"type": "cmdline", "cmd_line": told}


def tier(number: int, at: int) -> Message:
    return {
        "type": "guestnetwork", "add": True, "mac_address": mac(number, at), "device": "eth9",
        "router_guest_ip": f"10.72.{at}.{10 + number}", "router_guest_netmask": "255.255.255.0",
        "router_guest_gateway": f"10.72.{at}.1", "network_id": 720 + at, "delete_from_processed_cache": False,
    }  # fmt: skip


def mac(number: int, at: int) -> str:
    return f"02:00:48:{at:02x}:00:0{number}"


class Node:
    """A router without Holdfast: a namespace, a /run of its own, and what Holdfast would have written."""

    def __init__(self, ledger: Ledger, name: str, number: int, directory: Path) -> None:
        self.ledger, self.number, self.directory = ledger, number, directory
        self.namespace = make_namespace(ledger, name)
        directory.mkdir()
        argv = ["ip", "netns", "exec", name, "unshare", "-m", "-p", "-f", "--kill-child", "--mount-proc"]
        self.holder = start([*argv, "sleep", "infinity"], directory / "holder")
        ledger.process(self.holder.pid, "holder")
        inside = eventually(self._children, "the namespaces are there")
        self.enter = ["nsenter", "-t", inside[0], "-m", "-p", "-n", "--"]
        for place in ("/run", "/opt"):
            self.run("mount", "-t", "tmpfs", "tmpfs", place)
        # The routers' own programs: the machine that a lab is on need not have them.
        self.run("mount", "--bind", str(image.base() / "usr"), "/usr")
        self.run("mkdir", "-p", "/run/holdfast/vrrp", conntrackd.RUN, str(Path(keepalived.HOOK).parent))
        must([*self.enter, "tee", keepalived.HOOK], stdin=HOOK)
        self.run("chmod", "755", keepalived.HOOK)
        self.daemons: dict[str, subprocess.Popen[bytes]] = {}

    def _children(self) -> list[str]:
        return Path(f"/proc/{self.holder.pid}/task/{self.holder.pid}/children").read_text().split()

    def run(self, *argv: str) -> str:
        return must([*self.enter, *argv])

    def wanted(self, tiers: int) -> State:
        """What Holdfast makes of its messages."""
        nics = [CONTROL.format(self.number), PUBLIC.format(self.number), *(mac(self.number, at) for at in (1, 2, 3))]
        facts = Facts(tuple(Nic(mac, f"eth{at}") for at, mac in enumerate(nics)), Role.BACKUP)
        messages = [line(self.number), *(tier(self.number, at) for at in range(1, tiers + 1))]
        config = reduce(lambda c, m: merge(c, decode(msgspec.json.encode(m)), facts).config, messages, EMPTY)
        return desired(config, facts).state

    def write(self, tiers: int) -> Path:
        """Write both texts, as the file driver would; return the directory."""
        for path in (keepalived.CONF, conntrackd.CONF):
            file = self.wanted(tiers)["File", path]
            assert isinstance(file, File)
            fresh = self.directory / "fresh"
            fresh.write_text(file.text)
            fresh.chmod(file.mode)
            fresh.rename(self.directory / Path(path).name)
        return self.directory

    def configure(self) -> None:
        """Firewall and kernel parameters of one tier, and the daemons."""
        state = self.wanted(1)
        rules = [next(r.text for r in state.values() if isinstance(r, Ruleset))]
        for held in state.values():
            if isinstance(held, Elements):
                rules += [f"add element inet holdfast {held.set} {{ {entry} }}\n" for entry in entries(held.entries)]
        must([*self.enter, "nft", "-f", "-"], stdin="".join(rules))
        for value in state.values():
            if isinstance(value, Sysctl):
                self.run("sysctl", "-q", "-w", f"{value.name}={value.value}")
        self.begin("keepalived", "keepalived", "-n", "-l", "-P", "-f", str(self.write(1) / "keepalived.conf"))
        self.begin("conntrackd", "conntrackd", "-C", str(self.directory / "conntrackd.conf"))

    def begin(self, name: str, *argv: str) -> None:
        self.daemons[name] = start([*self.enter, *argv], self.directory / f"{name}.log")
        self.ledger.process(self.daemons[name].pid, name)

    def reload(self) -> None:
        self.run("kill", "-HUP", self.run("cat", "/run/keepalived.pid").strip())

    def words(self) -> list[str]:
        return [word for word, _ in self.said()]

    def said(self) -> list[tuple[str, int]]:
        """keepalived's words and when the hook was called, in nanoseconds of the machine's clock."""
        lines = finish([*self.enter, "cat", "/run/word"]).text.splitlines()
        return [(word, int(at)) for word, at in (line.split() for line in lines)]

    def track(self, path: str, number: int) -> int:
        """Write one of the numbers that keepalived watches, as the agent does; return when, as `said` does."""
        at = time.time_ns()
        self.run("sh", "-c", f"echo {number} 1<>{path}")
        return at

    def holds(self) -> set[str]:
        """The virtual addresses that are here."""
        return set(re.findall(r" (10\.72\.\d\.1/24) ", self.run("ip", "-4", "address")))

    def conntrackd(self, *options: str) -> str:
        return self.run("conntrackd", "-C", str(self.directory / "conntrackd.conf"), *options)

    def told(self, requests: Sequence[Sequence[str]]) -> None:
        """Ask its conntrackd as the driver does."""
        ask(requests, lambda argv, *, timeout_s: self.conntrackd(*argv[1:]) if timeout_s else "")

    def left_s(self) -> list[int]:
        """After how many seconds those of `ONE_WAY` would run out here."""
        return [
            int(entry.split()[2]) for entry in self.run("conntrack", "-L", "-p", "udp", "--dport", "7777").splitlines()
        ]

    def connections(self) -> int:
        listed = self.run("conntrack", "-L", "--mark", "1234")
        return len(listed.splitlines())

    def fill(self, count: int = FLOWS) -> None:
        """Connections as forwarding would leave them, in a burst: NATed, marked, established."""
        lines = [
            f"-A -p tcp --state ESTABLISHED -t 432000 -s 10.72.1.{50 + n % 200} -d 192.0.{n // 50_000}.7 "
            f"--sport {1024 + n % 50_000} --dport 443 -u ASSURED,SEEN_REPLY --mark 1234 "
            f"--src-nat 203.0.113.72:{1024 + n % 50_000}\n"
            for n in range(count)
        ]
        (self.directory / "flows").write_text("".join(lines))
        self.run("conntrack", "-R", str(self.directory / "flows"))


def entries(held: Mapping[str, str]) -> list[str]:
    return [f"{key} : {value}" if value else key for key, value in held.items()]


@pytest.fixture
def nodes(tmp_path: Path) -> Iterator[tuple[Node, Node]]:
    sweep()
    name = f"hf-daemons-{secrets.token_hex(2)}"
    ledger = Ledger.open(name, stay=False)
    made: list[Node] = []
    try:
        switch = Switch(ledger, f"{name}-switch")
        segments = [switch.segment(segment) for segment in ("control", "public", "tier1", "tier2", "tier3")]
        for number in (1, 2):
            made.append(Node(ledger, f"{name}-{number}", number, tmp_path / f"router{number}"))
            plug(switch, segments, made[-1])
        for node in made:
            node.configure()
        yield made[0], made[1]
    finally:
        ledger.remove()
        for node in made:
            for process in (node.holder, *node.daemons.values()):
                process.wait(10)


def plug(switch: Switch, segments: list[Segment], node: Node) -> None:
    """All its nics, up, with its own addresses."""
    macs = [CONTROL.format(node.number), PUBLIC.format(node.number), *(mac(node.number, at) for at in (1, 2, 3))]
    for at, (segment, address) in enumerate(zip(segments, macs, strict=True)):
        switch.connect(segment, node.namespace, f"eth{at}", address, up=True)
    batch(node.namespace, [f"address add 10.72.{at}.{10 + node.number}/24 dev eth{at + 1}" for at in (1, 2, 3)])


def serving(nodes: tuple[Node, Node]) -> tuple[Node, Node]:
    """Who serves, and the other."""

    def settled() -> bool:
        return sorted(node.words()[-1] for node in nodes if node.words()) == ["BACKUP", "MASTER"]

    eventually(settled, "one is MASTER and the other BACKUP", 15)
    first, second = nodes
    return nodes if first.words()[-1] == "MASTER" else (second, first)


def test_one_serves_and_the_other_knows_its_connections(nodes: tuple[Node, Node]) -> None:
    master, backup = serving(nodes)
    eventually(lambda: master.holds() == {"10.72.1.1/24"}, "who serves has the address")
    assert backup.holds() == set()

    master.fill()
    eventually(lambda: backup.connections() == FLOWS, "the backup's kernel has every connection")

    master.run("kill", "-TERM", master.run("cat", "/run/keepalived.pid").strip())
    eventually(lambda: backup.words()[-1] == "MASTER", "the other takes over")
    eventually(lambda: backup.holds() == {"10.72.1.1/24"}, "with the address")
    assert master.holds() == set()
    assert master.words()[-1] == "STOP"

    assert backup.connections() == FLOWS
    assert backup.run("conntrack", "-L", "--mark", "1234").count("dst=203.0.113.72 ") == FLOWS


def test_a_further_address_costs_no_election(nodes: tuple[Node, Node]) -> None:
    master, backup = serving(nodes)
    before = [node.words() for node in nodes]

    for tiers in (2, 3, 2, 3):
        for node in (backup, master):
            node.write(tiers)
            node.reload()
            time.sleep(0.3)  # the other has the older text meanwhile
    everything = {f"10.72.{at}.1/24" for at in (1, 2, 3)}
    eventually(lambda: master.holds() == everything, "who serves has all addresses")
    time.sleep(4)  # an election would take three adverts and a bit

    assert master.holds() == everything
    assert backup.holds() == set()
    assert [node.words() for node in nodes] == before


def test_a_text_that_cannot_be_is_refused_and_harms_nothing(nodes: tuple[Node, Node]) -> None:
    master, backup = serving(nodes)
    before = [node.words() for node in nodes]
    conf = master.directory / "keepalived.conf"
    good = conf.read_text()
    conf.write_text(good.replace("dev eth2", "dev eth7"))
    tried = finish([*master.enter, "keepalived", "-t", "-f", str(conf)])
    master.reload()
    time.sleep(4)

    assert tried.code == 5
    assert "interface eth7 for ip address 10.72.1.1/24 doesn't exist" in tried.errors + tried.text
    assert master.holds() == {"10.72.1.1/24"}
    assert backup.holds() == set()
    assert [node.words() for node in nodes] == before


def test_the_later_term_serves_after_both_have(nodes: tuple[Node, Node]) -> None:
    master, backup = serving(nodes)
    must([*backup.enter, "tee", f"{keepalived.TERM}.new"], stdin="1\n")
    backup.run("mv", f"{keepalived.TERM}.new", keepalived.TERM)
    time.sleep(2)
    assert backup.words()[-1] == "BACKUP", "a higher priority alone changes nothing"

    for node in nodes:
        must([*node.enter, "nft", "-f", "-"], stdin=CUT)
    eventually(lambda: backup.words()[-1] == "MASTER", "neither hears the other, so both serve", 10)
    for node in nodes:
        node.run("nft", "delete", "table", "inet", "cut")
    eventually(lambda: master.words()[-1] == "BACKUP", "the one with the lower term steps back")
    time.sleep(2)
    assert backup.words()[-1] == "MASTER"
    assert master.holds() == set()


def test_conntrackd_comes_back_after_a_kill_where_its_directory_was_made_anew(nodes: tuple[Node, Node]) -> None:
    master, backup = serving(nodes)
    master.fill()
    eventually(lambda: backup.connections() == FLOWS, "the backup's kernel has every connection")
    os.kill(inner(backup.daemons["conntrackd"].pid)[0], signal.SIGKILL)
    backup.daemons["conntrackd"].wait(5)
    assert backup.connections() == FLOWS, "they do not go with it"
    backup.run("conntrack", "-D", "--mark", "1234")
    # What systemd does with a RuntimeDirectory.
    backup.run("rm", "-r", conntrackd.RUN)
    backup.run("mkdir", conntrackd.RUN)
    backup.begin("again", "conntrackd", "-C", str(backup.directory / "conntrackd.conf"))

    eventually(lambda: "external" in finish(backup_stats(backup)).text, "it answers")
    eventually(lambda: backup.connections() == FLOWS, "it has asked for what it had missed")


def inner(pid: int) -> list[int]:
    """The children of a process, which for a daemon's `nsenter` is the daemon."""
    return [int(child) for child in Path(f"/proc/{pid}/task/{pid}/children").read_text().split()]


def test_of_a_burst_of_connections_every_one_arrives(nodes: tuple[Node, Node]) -> None:
    master, backup = serving(nodes)
    for count in (10_000, 100_000):
        master.fill(count)
        if conntrackd.unheard(master.run("cat", "/proc/net/netlink")):
            master.told(TO_SERVE)  # as the agent does: this machine may be too busy for conntrackd to hear all
        eventually(lambda: backup.connections() == count, f"the backup's kernel has all {count}", 30)  # noqa: B023 at once
        assert master.connections() == count
        master.run("conntrack", "-D", "--mark", "1234")
        master.told(TO_TELL_AGAIN)  # of so many ends at once some are not seen by conntrackd itself
        eventually(lambda: backup.connections() == 0, "and forgets them", 30)


def test_what_ends_on_a_backup_does_not_end_on_the_router_that_serves(nodes: tuple[Node, Node]) -> None:
    master, backup = serving(nodes)
    master.fill()
    eventually(lambda: backup.connections() == FLOWS, "the backup's kernel has every connection")
    backup.told(TO_SERVE)  # it served for a while
    backup.told(TO_STAND_BY)
    time.sleep(0.5)
    backup.run("conntrack", "-D", "--mark", "1234")  # as if each had run out
    time.sleep(0.5)
    assert (master.connections(), backup.connections()) == (FLOWS, 0)

    master.told(TO_TELL_AGAIN)
    eventually(lambda: backup.connections() == FLOWS, "it hears of all again")
    backup.told(TO_FORGET)
    eventually(lambda: backup.connections() == FLOWS, "it has forgotten and asked")
    assert master.connections() == FLOWS


def test_what_is_told_again_does_not_run_out_on_the_backup(nodes: tuple[Node, Node]) -> None:
    """Nothing but the first packet of these is news: what the peer was told then runs out while they go on."""
    master, backup = serving(nodes)
    master.run("ip", "neighbour", "replace", "10.72.2.99", "lladdr", "02:00:48:63:63:63", "dev", "eth3")
    sending = start([*master.enter, "python3", "-c", ONE_WAY], master.directory / "sending")
    master.ledger.process(sending.pid, "sending")
    try:
        eventually(backup.left_s, "the backup has heard of them")
        time.sleep(6)
        assert min(master.left_s()) > 28
        assert max(backup.left_s()) < 26
        master.told(TO_TELL_AGAIN)
        eventually(lambda: min(backup.left_s(), default=0) > 26, "the backup has them as long as the master")
    finally:
        sending.kill()
        sending.wait(5)


def test_a_planned_change_is_one_of_milliseconds(nodes: tuple[Node, Node], tell: Callable[[str], None]) -> None:
    """The peer is boosted first; then the one that serves steps back."""
    took = []
    for _ in range(RUNS):
        master, backup = serving(nodes)
        backup.track(keepalived.BOOST, 14)
        time.sleep(0.2)
        at = master.track(keepalived.FAULT, 1)
        eventually(lambda: backup.words()[-1] == "MASTER", "the other serves")  # noqa: B023 at once
        took.append((backup.said()[-1][1] - at) / 1e6)
        assert backup.holds() == {"10.72.1.1/24"}
        eventually(lambda: master.words()[-1] == "FAULT", "the one before serves no more")  # noqa: B023 at once
        backup.track(keepalived.BOOST, 0)
        master.track(keepalived.FAULT, 0)
        eventually(lambda: master.words()[-1] == "BACKUP", "and comes back")  # noqa: B023 at once
        time.sleep(1.2)
        assert backup.words()[-1] == "MASTER", "who serves goes on without its boost"
    tell(f"the peer's hook is called {sorted(round(one) for one in took)} ms after the fault was written")
    assert statistics.median(took) <= PLANNED_MS * SLACK


def test_a_master_that_was_stunned_yields_to_the_later_term(
    nodes: tuple[Node, Node], tell: Callable[[str], None]
) -> None:
    """Stunned is the one that wins where both claim the same rank: VRRP settles it by the higher address."""
    first, second = nodes
    if serving(nodes)[0] is first:
        first.track(keepalived.FAULT, 1)
        eventually(lambda: second.words()[-1] == "MASTER", "the higher address serves")
        first.track(keepalived.FAULT, 0)
        serving(nodes)
    (parent,) = inner(second.daemons["keepalived"].pid)
    pids = [parent, *inner(parent)]
    for pid in pids:
        os.kill(pid, signal.SIGSTOP)
    try:
        eventually(lambda: first.words()[-1] == "MASTER", "the other takes over", 12)
        first.track(keepalived.TERM, 1)
        time.sleep(0.5)
    finally:
        woken = time.time_ns()
        for pid in pids:
            os.kill(pid, signal.SIGCONT)
    eventually(lambda: second.words()[-1] == "BACKUP", "the stunned one steps back")
    after = (second.said()[-1][1] - woken) / 1e6
    tell(f"steps back {after:.0f} ms after it woke up")
    assert after <= WOKEN_MS * SLACK
    time.sleep(1.5)
    assert first.words()[-1] == "MASTER"
    assert (first.holds(), second.holds()) == ({"10.72.1.1/24"}, set())


def backup_stats(node: Node) -> list[str]:
    return [*node.enter, "conntrackd", "-C", str(node.directory / "conntrackd.conf"), "-s"]


@pytest.mark.parametrize("advert_s", [0.01, 0.2, 0.999, 1, 3, 255, 99999])
def test_keepalived_takes_every_interval(advert_s: float, nodes: tuple[Node, Node]) -> None:
    path = nodes[0].directory / "tried.conf"
    path.write_text(
        keepalived.configuration(
            device="eth2",
            vrid=255,
            password="c1d9a7a1",  # noqa: S106 a made-up one
            gateway=Virtual("10.72.1.1/24", "eth2"),
            others=[Virtual("10.72.2.1/24", "eth3")],
            advert_s=advert_s,
        )
    )
    path.chmod(0o600)
    done = finish([*nodes[0].enter, "keepalived", "-t", "-f", str(path)])

    assert (done.code, done.text, done.errors) == (0, "", "")
