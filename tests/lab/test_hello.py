"""Two ears in two processes and namespaces, and a third host on the same segment that hears and says what it likes."""

import json
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import pytest
from slack import SLACK
from test_drivers import inside, ip

from holdfast import alerts, neighbours, pair_files, pairing, receipts
from holdfast.ears.faces import Faces
from holdfast.peer import Face

pytestmark = [pytest.mark.lab, pytest.mark.skipif(os.geteuid() != 0, reason="needs root")]

KEY = "6b" * 32
OTHER_KEY = "6c" * 32
REPOSITORY = Path(__file__).parents[2]
STRANGER = "s"
NEIGHBOURS = neighbours.PATH.lstrip("/")


def until(true: Callable[[], Any], timeout_s: float) -> float:
    """How long it took until it was so."""
    began = time.monotonic()
    while not true():
        assert time.monotonic() - began < SLACK * timeout_s, f"not within {SLACK} x {timeout_s} s"
        time.sleep(0.01)
    return time.monotonic() - began


class Ear:
    """One router: its directory, its namespace, and the process that listens in it."""

    def __init__(self, root: Path, namespace: str, number: int, tiers: int) -> None:
        self.root, self.namespace, self.number, self.tiers = root, namespace, number, tiers
        self.process: subprocess.Popen[bytes] | None = None
        (root / "run/holdfast").mkdir(parents=True)
        (root / "var/lib/holdfast-guest").mkdir(parents=True)
        self.pair()

    def pair(self, **more: Any) -> None:
        faces = [[f"10.71.{n}.0/24", f"eth{n}", f"10.71.{n}.{self.number}", 24] for n in range(self.tiers)]
        told: dict[str, Any] = {
            "key": KEY, "name": f"r-{self.number}-VM", "ground": "10.71.0.1/24 v2 1", "segment": "eth0",
            "faces": [dict(zip(("network", "device", "address", "prefix"), face, strict=True)) for face in faces],
            "digests": {f"tier {network}": "00000000" for network, *_ in faces} | {"firewallrules": "00000000"},
            "nics": {network: device for network, device, *_ in faces},
        }  # fmt: skip
        pairing.leave(self.root, pairing.PAIR, json.dumps(told | more))

    def start(self) -> "Ear":
        environment = {**os.environ, "PYTHONPATH": str(REPOSITORY / "src")}
        argv = ["ip", "netns", "exec", self.namespace, sys.executable, str(Path(__file__).with_name("inside_ear.py"))]
        self.process = subprocess.Popen([*argv, str(self.root)], env=environment)
        return self

    def stop(self, number: signal.Signals = signal.SIGKILL) -> None:
        assert self.process
        self.process.send_signal(number)
        if number == signal.SIGKILL:
            self.process.wait()

    def say(self, role: str) -> None:
        pairing.leave(self.root, "run/holdfast/role", role)
        pairing.poke(self.root)

    @property
    def peer(self) -> dict[str, Any]:
        return pairing.peer(self.root)

    @property
    def last(self) -> dict[str, Any]:
        return pairing.peer(self.root, 1e9)

    @property
    def alerts(self) -> list[str]:
        path = self.root / alerts.LOG
        return [line.split(" ", 2)[2] for line in path.read_text().splitlines()] if path.exists() else []

    def tracked(self, name: str) -> int:
        return pairing.tracked(self.root, name)


class World:
    """A segment for each tier, with two routers on it; a stranger on the first."""

    def __init__(self, directory: Path, tiers: int = 1) -> None:
        self.name = f"hfh{os.getpid()}"
        self.tiers = tiers
        self.spaces = [f"{self.name}{one}" for one in ("w", "1", "2", STRANGER)]
        for space in self.spaces:
            ip("netns", "add", space)
        switch, *routers, stranger = self.spaces
        for tier in range(tiers):
            ip("-n", switch, "link", "add", f"br{tier}", "type", "bridge", "mcast_snooping", "0")
            ip("-n", switch, "link", "set", f"br{tier}", "up")
            for number, router in enumerate(routers, 1):
                self.cable(router, tier, number)
        self.cable(stranger, 0, 9)
        self.ears = [Ear(directory / str(n), router, n, tiers) for n, router in enumerate(routers, 1)]

    def cable(self, space: str, tier: int, number: int, *, up: bool = True) -> None:
        switch, port, nic = self.spaces[0], f"p{tier}-{number}", f"eth{tier}"
        ip("-n", switch, "link", "add", port, "type", "veth", "peer", "name", nic, "netns", space)
        ip("-n", switch, "link", "set", port, "master", f"br{tier}", "up")
        ip("-n", space, "link", "set", nic, "address", f"02:00:47:00:{tier:02x}:{number:02x}", *(["up"] if up else []))
        ip("-n", space, "addr", "add", f"10.71.{tier}.{number}/24", "dev", nic)

    def cut(self, *, whole: bool = False) -> None:
        for tier in range(self.tiers):
            joined = ("master", f"br{tier}") if whole else ("nomaster",)
            ip("-n", self.spaces[0], "link", "set", f"p{tier}-2", *joined)

    def close(self) -> None:
        for ear in self.ears:
            if ear.process:
                ear.stop()
        for space in self.spaces:
            with suppress(Exception):
                ip("netns", "del", space)


@contextmanager
def world(directory: Path, tiers: int = 1) -> Iterator[World]:
    made = World(directory, tiers)
    try:
        yield made
    finally:
        made.close()


def met(*ears: Ear) -> bool:
    return all(ear.peer for ear in ears)


@contextmanager
def stranger(made: World) -> Iterator[Faces]:
    """The third host's own sockets."""
    with inside(made.spaces[3]):
        faces = Faces()
        faces.keep([Face("10.71.0.0/24", "eth0", "10.71.0.9", 24)])
    try:
        yield faces
    finally:
        faces.close()


def listen(faces: Faces, seconds: float, least: int = 0) -> list[bytes]:
    """What is said in this time; longer on a busy machine where that is less than `least`."""
    heard: list[bytes] = []
    began = time.monotonic()
    while time.monotonic() - began < seconds * (1 if len(heard) >= least else SLACK):
        heard += [data for _, data in faces.heard()]
        time.sleep(0.005)
    return heard


def test_two_routers_find_each_other_and_notice_a_partition(tmp_path: Path, tell: Callable[[str], None]) -> None:
    with world(tmp_path) as made:
        one, two = made.ears
        one.start()
        time.sleep(1.0)  # its interpreter is up
        assert one.last == {}
        before = time.monotonic()
        two.start()
        until(lambda: met(one, two), 3.0)
        # Starting an interpreter is not part of finding each other: the second one's first look is.
        first = two.last["heard"]
        tell(f"both fresh {time.monotonic() - before:.2f} s after the second process was started")
        assert one.last["address"] == "10.71.0.2"
        assert one.last["mac"] == "02:00:47:00:00:02"
        assert two.last["mac"] == "02:00:47:00:00:01"
        assert abs(one.last["heard"] - first) < SLACK * 0.6

        made.cut()
        gone = until(lambda: not one.peer and not two.peer, 3.0)
        assert gone < SLACK * 1.9, "1.5 s and the interval"
        until(lambda: one.alerts == ["the peer r-2-VM is not heard any more"], 1.0)
        made.cut(whole=True)
        back = until(lambda: met(one, two), 2.0)
        tell(f"a partition noticed after {gone:.2f} s, its end after {back:.2f} s")
        assert back < SLACK * 0.6


def test_the_first_look_finds_the_peer_within_six_tenths_of_a_second(tmp_path: Path) -> None:
    with world(tmp_path) as made:
        one, two = made.ears
        for ear in (one, two):
            ear.pair(faces=[])
            ear.start()
        time.sleep(1.0)
        one.pair()
        two.pair()
        # Where there is a pair without a face, the file is looked at four times a second.
        assert until(lambda: met(one, two), 2.0) < SLACK * 0.85


def test_what_a_stranger_says_means_nothing(tmp_path: Path) -> None:
    with world(tmp_path) as made:
        one, two = made.ears
        one.start()
        two.start()
        until(lambda: met(one, two), 5.0)
        with stranger(made) as sockets:
            recorded = listen(sockets, 1.0, 6)
            assert len(recorded) >= 6
            two.stop()
            # Later: what was recorded again and again, cut, turned, garbage, and in every length.
            until(lambda: not one.peer, 3.0)
            heard = one.last["heard"]
            for _ in range(30):
                for data in recorded:
                    for said in (data, data[:-1], data[16:], data[::-1], os.urandom(len(data)), b"", b"\0" * 20000):
                        sockets.say(said)
                time.sleep(0.05)
            assert not one.peer
            assert one.last["heard"] == heard, "a replay is never fresh"
            assert one.process
            assert one.process.poll() is None

            two.pair(key=OTHER_KEY)
            two.start()
            time.sleep(1.5)
            assert not one.peer
            two.pair()
            took = until(lambda: met(one, two), 2.0)
            assert took < SLACK * 1.0, "whatever was repeated meanwhile"


def test_replays_keep_nobody_from_meeting(tmp_path: Path) -> None:
    """The recordings of many starts, repeated while the routers speak: the peer's own echo is always there."""
    with world(tmp_path) as made:
        one, two = made.ears
        one.start()
        recorded: list[bytes] = []
        with stranger(made) as sockets:
            for _ in range(5):
                two.start()
                until(lambda: two.peer, 5.0)
                recorded += listen(sockets, 0.5)
                two.stop()
            two.start()
            began = time.monotonic()

            def met_again() -> bool:
                for data in recorded:
                    sockets.say(data)
                return all(ear.last["heard"] > began for ear in (one, two))

            until(met_again, 3.0)
            ends, worst = time.monotonic() + 3.0, 0.0
            while time.monotonic() < ends:
                for data in recorded:
                    sockets.say(data)
                worst = max(worst, *(time.monotonic() - ear.last["heard"] for ear in (one, two)))
                time.sleep(0.02)
            assert worst < SLACK * 1.0


def test_acknowledged_passwords_reach_the_other_router_and_stay(tmp_path: Path, tell: Callable[[str], None]) -> None:
    with world(tmp_path) as made:
        one, two = made.ears
        for ear in made.ears:
            face = {"network": "10.71.0.0/16", "device": "eth0", "address": f"10.71.0.{ear.number}", "prefix": 24}
            ear.pair(faces=[face])
        told = {f"10.71.{n // 250}.{n % 250 + 2}": 1 + n % 7 for n in range(2000)}
        path = one.root / receipts.PATH.lstrip("/")
        nobodys = {"192.0.2.9": 3}
        path.write_bytes(b"".join(receipts.render("acknowledged", *one_of) for one_of in (told | nobodys).items()))
        one.start()
        two.start()
        there = {address: receipts.taken(serial, 0) for address, serial in told.items()}
        took = until(lambda: pair_files.acknowledged_there(two.root) == there, 60.0)
        tell(f"2,000 acknowledgements in {took:.1f} s")
        with path.open("ab") as file:
            file.write(receipts.render("acknowledged", "10.71.0.2", 9))
        newer = receipts.taken(9, 0)
        took = until(lambda: pair_files.acknowledged_there(two.root) == there | {"10.71.0.2": newer}, 5.0)
        assert took < SLACK * 3.0, "a new one goes before all others"
        wishes = [json.loads(line)[1] for line in (two.root / "wishes").read_text().splitlines()]
        assert "passwords acknowledged at the peer" in wishes
        assert (two.root / pair_files.THERE).stat().st_mode & 0o777 == 0o600

        two.stop()
        assert pair_files.acknowledged_there(two.root)["10.71.0.2"] == newer


def test_two_masters_and_terms(tmp_path: Path) -> None:
    with world(tmp_path) as made:
        one, two = made.ears
        one.start()
        two.start()
        one.say("MASTER")
        two.say("BACKUP")
        pairing.track(one.root, "term", 5)
        pairing.track(two.root, "term", 3)
        until(lambda: met(one, two), 5.0)
        until(lambda: (one.tracked("term"), two.tracked("term")) == (1, 0), 1.0)
        until(lambda: two.tracked("peer_term") == 1, 1.0)

        two.say("MASTER")
        noticed = until(lambda: one.alerts and two.alerts, 2.0)
        assert noticed < SLACK * 1.0
        assert one.alerts == ["two masters: this router and r-2-VM both serve"]
        assert one.peer["two_masters_since"] > 0
        time.sleep(0.5)
        one.say("BACKUP")
        until(lambda: len(one.alerts) == len(two.alerts) == 2, 1.0)
        assert two.alerts[1].startswith("two masters no longer, after ")
        assert two.peer["two_masters_since"] == 0


def test_a_leaving_master_finds_its_peer_ready(tmp_path: Path, tell: Callable[[str], None]) -> None:
    with world(tmp_path) as made:
        one, two = made.ears
        one.say("MASTER")
        two.say("BACKUP")
        one.start()
        two.start()
        until(lambda: met(one, two) and one.peer["able"], 5.0)
        pairing.leave(one.root, pairing.LEAVING, f"{time.monotonic()}\n")
        pairing.poke(one.root)
        took = until(lambda: one.peer["boost"], 1.0)
        assert two.tracked("boost") == 14
        tell(f"the peer was ready {took * 1000:.0f} ms after it was asked")
        (one.root / pairing.LEAVING).unlink()
        until(lambda: two.tracked("boost") == 0, 1.0)


def test_what_differs_for_long_is_named(tmp_path: Path) -> None:
    with world(tmp_path, tiers=2) as made:
        one, two = made.ears
        one.start()
        two.start()
        until(lambda: met(one, two), 5.0)
        assert one.peer["differs"] == []
        began = time.monotonic()
        two.pair(digests={"tier 10.71.0.0/24": "00000000", "tier 10.71.1.0/24": "11111111"})
        until(lambda: one.peer["differs"] == ["firewallrules", "tier 10.71.1.0/24"], 5.0)
        assert time.monotonic() - began > 3.0
        two.pair()
        until(lambda: one.peer["differs"] == [], 1.0)


def test_a_face_that_goes_down_away_and_comes_back(tmp_path: Path) -> None:
    with world(tmp_path, tiers=2) as made:
        one, two = made.ears
        one.start()
        two.start()
        until(lambda: met(one, two), 5.0)
        space = two.namespace
        ip("-n", space, "link", "set", "eth0", "down")
        time.sleep(2.0)
        assert met(one, two), "the other tier carries it"
        ip("-n", space, "link", "del", "eth0")
        time.sleep(4.0)
        assert one.peer["unheard"] == []  # the other router has no such face any more, and says so
        ip("-n", space, "link", "set", "eth1", "down")
        until(lambda: not one.peer, 3.0)
        made.cable(space, 0, 2)  # another device of the same name
        until(lambda: met(one, two), 2.0)
        until(lambda: one.peer["mac"] == "02:00:47:00:00:02", 0.5)  # it was given its MAC a moment later


def test_a_router_that_was_stunned_is_not_heard_and_comes_back(tmp_path: Path) -> None:
    with world(tmp_path) as made:
        one, two = made.ears
        one.start()
        two.start()
        until(lambda: met(one, two), 5.0)
        two.stop(signal.SIGSTOP)
        until(lambda: not one.peer, 3.0)
        time.sleep(1.0)
        two.stop(signal.SIGCONT)
        until(lambda: met(one, two), 1.0)


def test_a_serving_router_whose_outer_link_is_dark_yields(tmp_path: Path, tell: Callable[[str], None]) -> None:
    with world(tmp_path) as made:
        one, two = made.ears
        ip("-n", one.namespace, "link", "add", "eth8", "type", "veth", "peer", "name", "far8")
        for device in ("eth8", "far8"):
            ip("-n", one.namespace, "link", "set", device, "up")
        one.pair(outer=["eth8"])
        one.say("MASTER")
        two.say("BACKUP")
        one.start()
        two.start()
        until(lambda: met(one, two) and one.peer["able"] and two.peer["outer"] == 1, 5.0)
        began = time.monotonic()
        ip("-n", one.namespace, "link", "set", "far8", "down")
        until(lambda: one.tracked("fault") == 1, 1.0)
        took = time.monotonic() - began
        tell(f"in fault {took * 1000:.0f} ms after the carrier was lost")
        assert 0.03 < took < SLACK * 0.35
        one.say("FAULT")
        assert until(lambda: two.peer["able"] is False, 0.5) < SLACK * 0.5
        two.say("MASTER")
        until(lambda: one.tracked("fault") == 0, 0.5)
        one.say("BACKUP")
        time.sleep(0.4)
        assert two.peer["able"] is False


def far_gateway(made: World) -> None:
    """A gateway behind a link of the first router's own."""
    one, outside = made.ears[0].namespace, made.spaces[3]
    ip("-n", one, "link", "add", "eth8", "type", "veth", "peer", "name", "far8", "netns", outside)
    ip("-n", outside, "link", "set", "far8", "address", "02:00:c6:33:64:01")
    for space, device, address in ((one, "eth8", "198.51.100.71"), (outside, "far8", "198.51.100.1")):
        ip("-n", space, "addr", "add", f"{address}/24", "dev", device)
        ip("-n", space, "link", "set", device, "up")


def test_who_stands_by_learns_its_gateways_macs(tmp_path: Path) -> None:
    with world(tmp_path) as made:
        one, two = made.ears
        far_gateway(made)
        one.pair(gateways=[["eth8", "198.51.100.1"], ["eth9", "192.0.2.1"]])
        two.pair(gateways=[["eth3", "198.51.100.1"], ["eth4", "192.0.2.1"]])
        one.say("MASTER")
        two.say("BACKUP")
        one.start()
        two.start()
        until(lambda: met(one, two), 5.0)
        assert not (two.root / NEIGHBOURS).exists(), "nobody has asked for the gateway yet"
        with inside(one.namespace), socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as guest:
            guest.sendto(b"", ("198.51.100.1", 9))
        said = "neighbor replace 198.51.100.1 lladdr 02:00:c6:33:64:01 dev {} nud probe\n"
        until((two.root / NEIGHBOURS).exists, 2.5)
        assert (two.root / NEIGHBOURS).read_text() == said.format("eth3"), "by its own name for the nic"
        assert (one.root / NEIGHBOURS).read_text() == said.format("eth8")


def test_a_serving_router_whose_gateway_falls_silent_yields(tmp_path: Path, tell: Callable[[str], None]) -> None:
    with world(tmp_path) as made:
        one, two = made.ears
        far_gateway(made)
        one.pair(
            outer=["eth8"],
            announce=[["eth8", ["198.51.100.71"]]],
            probed=[["eth8", "198.51.100.1"], ["eth9", "192.0.2.1"]],
        )
        one.say("MASTER")
        two.say("BACKUP")
        one.start()
        two.start()
        until(lambda: met(one, two) and one.peer["able"], 5.0)
        time.sleep(5.0)
        assert one.tracked("fault") == 0, "it speaks; and one that never spoke is not missed"
        ip("-n", made.spaces[3], "link", "set", "far8", "arp", "off")
        took = until(lambda: one.tracked("fault") == 1, 8.0)
        tell(f"in fault {took:.1f} s after the gateway fell silent")
        assert one.alerts == ["this router yields to its peer: its gateway is silent"]
        one.say("FAULT")
        two.say("MASTER")
        until(lambda: one.tracked("fault") == 0, 0.5)
        one.say("BACKUP")
        time.sleep(0.5)
        assert two.peer["able"] is False


def test_who_holds_itself_back_stands_again_when_the_peer_is_there(tmp_path: Path) -> None:
    with world(tmp_path) as made:
        one, two = made.ears
        one.start()
        two.start()
        until(lambda: met(one, two), 5.0)
        there = "10.71.0.1/24 v3 0.2"
        pairing.track(one.root, "hold", 1)
        one.pair(ground=there)
        until(lambda: two.peer["hold"] and two.peer["ground"] == there, 1.0)
        time.sleep(1.0)
        assert one.tracked("hold") == 1
        pairing.leave(two.root, pairing.MOVING, json.dumps({"to": there, "release": False, "by": os.getpid()}))
        pairing.poke(two.root)
        until(lambda: one.peer["moving"] == there, 0.5)
        time.sleep(0.5)
        assert one.tracked("hold") == 1
        pairing.leave(two.root, pairing.MOVING, json.dumps({"to": there, "release": True, "by": os.getpid()}))
        pairing.poke(two.root)
        assert until(lambda: one.tracked("hold") == 0, 0.5) < SLACK * 0.2


def test_a_promotion_is_announced_at_once(tmp_path: Path, tell: Callable[[str], None]) -> None:
    with world(tmp_path) as made:
        one, two = made.ears
        one.pair(announce=[["eth0", ["10.71.0.1"]], ["eth7", ["192.0.2.1"]]])
        one.say("BACKUP")
        two.say("MASTER")
        one.start()
        two.start()
        until(lambda: met(one, two), 5.0)
        with inside(made.spaces[3]):
            arp = socket.socket(socket.AF_PACKET, socket.SOCK_DGRAM)
            arp.bind(("eth0", 0x0806))
        with arp:
            arp.settimeout(SLACK * 2.0)
            began = time.monotonic()
            one.say("MASTER")
            times = []
            for _ in range(6):  # three times, as a request and as a reply
                assert arp.recv(64)[14:18] == socket.inet_aton("10.71.0.1")
                times.append(time.monotonic() - began)
        tell(f"announced after {', '.join(f'{at * 1000:.0f}' for at in times[::2])} ms")
        assert times[0] < SLACK * 0.1


def test_what_twelve_tiers_cost(tmp_path: Path, tell: Callable[[str], None]) -> None:
    with world(tmp_path, tiers=12) as made:
        one, two = made.ears
        one.start()
        two.start()
        until(lambda: met(one, two), 5.0)
        time.sleep(1.0)
        assert one.process
        used = [_cpu_s(one.process.pid)]
        time.sleep(5.0)
        used.append(_cpu_s(one.process.pid))
        share = (used[1] - used[0]) / 5.0
        tell(f"{share:.2%} of a core at twelve tiers")
        assert share < SLACK * 0.01


def _cpu_s(pid: int) -> float:
    """CPU time of a process; `ip netns exec` has become it."""
    return int(Path(f"/proc/{pid}/schedstat").read_text().split()[0]) / 1e9
