"""One router of a pair that never meets the other: what becomes of it with each word of the real keepalived's."""

import json

import pytest
from isolated import BOOT, GUEST_GATEWAY, Isolated
from slack import SLACK

from holdfast.lab.lab import Lab
from holdfast.lab.process import Result

pytestmark = pytest.mark.lab

OWN = "10.31.5.2"
PAIR = {"redundant_router": "1", "advert_int": "1", "redundant_state": "PRIMARY", "guestgw": GUEST_GATEWAY}
HOOK = "/opt/holdfast/libexec/holdfast-role"
CONF = "/etc/keepalived/keepalived.conf"
SERVICES = ("dnsmasq.service", "holdfast-guest.socket")


class OneOfAPair(Isolated):
    """The router, with what it shows of its role."""

    def switch_on(self) -> None:
        self.router.write("/var/cache/cloud/cmdline", " ".join(f"{key}={value}" for key, value in self.line.items()))
        self.router.boot()

    def hook(self, *words: str) -> None:
        """Say words as keepalived does, each in a process of its own, one after the other."""
        calls = "; ".join(f"{HOOK} INSTANCE inside {word} 200" for word in words)
        done = self.router.shell(["sh", "-ec", calls])
        assert done.code == 0, done.errors

    def status(self) -> str:
        done = self.router.run("checkrouter.sh")
        assert (done.code, done.errors) == (0, "")
        return done.text

    def is_now(self, word: str, timeout_s: float = 12) -> None:
        self.router.eventually(lambda: self.status() == f"Status: {word}\n", f"Status: {word}", timeout_s)

    def public_up(self) -> bool:
        (link,) = json.loads(self.router.shell(["ip", "-j", "link", "show", "dev", "eth2"]).text)
        return "UP" in link["flags"]

    def serves(self) -> list[bool]:
        """Its public link and what it has for guests."""
        return [self.public_up(), *(self.router.active(unit) for unit in SERVICES)]

    def routes(self) -> list[str]:
        done = self.router.shell(["ip", "route", "show", "table", "all", "proto", "77"])
        return sorted(line.strip() for line in done.text.splitlines())

    def rests(self) -> None:
        """The flag is taken away, nobody is at work, and nothing is left to do."""

        def resting() -> bool:
            gone = self.router.shell(["test", "!", "-e", "/run/holdfast/role.moved"]).code == 0
            state = self.router.shell(["systemctl", "show", "-P", "ActiveState", "holdfast-role.service"])
            return gone and state.text.strip() == "inactive"

        self.router.eventually(resting, "no change of role is under way")
        # Whoever took the flag may be the agent, which is always there.
        self.router.eventually(lambda: "nothing to do" in self.holdfast("plan").text, "nothing is left to do")
        self.converged()

    def holdfast(self, *words: str) -> Result:
        return self.router.shell(["/usr/sbin/holdfast", *words])


@pytest.fixture
def net(lab: Lab) -> OneOfAPair:
    net = OneOfAPair(lab)
    net.line = BOOT | {"eth0ip": OWN, "dhcprange": OWN}
    return net


def test_each_word_makes_of_the_router_what_it_says(net: OneOfAPair) -> None:
    net.switch_on()
    assert net.status() == "Status: PRIMARY\n"  # it is alone
    net.associate("203.0.113.22")
    net.dhcp("web1", "02:1a:33:00:01:01", "10.31.5.10")
    alone = net.routes()
    assert alone
    assert net.serves() == [True, True, True]
    net.router.shutdown()

    net.line |= PAIR
    net.switch_on()
    assert net.serves() == [False, False, False]
    net.is_now("BACKUP", timeout_s=1)  # keepalived listens for three intervals before it says anything else
    net.is_now("PRIMARY")
    net.rests()
    assert net.serves() == [True, True, True]
    assert net.routes() == alone

    net.router.carrier("eth0", up=False)
    net.is_now("FAULT")
    net.rests()
    assert net.serves() == [False, False, False]
    assert not set(net.routes()) & {line for line in alone if "dev eth2" in line}
    assert "FAULT, generation" in net.holdfast("status").text

    net.router.carrier("eth0", up=True)
    net.is_now("BACKUP")
    net.is_now("PRIMARY")
    net.rests()
    assert net.serves() == [True, True, True]
    assert net.routes() == alone


def test_what_was_said_and_what_is_are_two_things(net: OneOfAPair) -> None:
    net.line |= PAIR
    net.switch_on()
    net.is_now("PRIMARY")
    net.rests()

    assert net.router.run("master.py", "--backup").code == 0
    assert not net.public_up()
    assert net.status() == "Status: FAULT\n"  # keepalived still has the address that guests use
    said = net.holdfast("status")
    assert "role not as seen: BACKUP, but 10.31.5.1 is here" in said.text
    assert said.code == 3

    assert net.router.run("configure_router.py", "--primary").code == 0
    assert net.public_up()
    assert net.status() == "Status: PRIMARY\n"
    assert net.router.run("master.py", "--primary").code == 2

    net.hook("STOP")
    net.router.eventually(lambda: not net.public_up(), "its public link is down: the peer serves now")
    assert net.router.read("/run/holdfast/role") == "BACKUP\n"
    net.hook("DELETED")
    assert net.router.read("/run/holdfast/role") == "BACKUP\n"
    assert net.status() == "Status: FAULT\n"

    net.is_now("PRIMARY")  # keepalived runs and keeps the address: the word follows what is
    net.rests()
    assert net.serves() == [True, True, True]
    assert "MASTER was said in keepalived's name" in net.router.read("/var/log/routerServiceMonitor.log")


def test_an_election_that_somebody_stops_begins_anew(net: OneOfAPair) -> None:
    net.line |= PAIR
    net.switch_on()
    net.is_now("PRIMARY")
    net.rests()

    net.router.shell(["systemctl", "stop", "keepalived.service"])  # its last word has it started again

    net.router.eventually(lambda: not net.public_up(), "its public link is down: the peer serves now")
    net.is_now("PRIMARY")
    net.rests()


def test_conntrackd_is_told_of_each_role_and_after_each_start(net: OneOfAPair) -> None:
    net.line |= PAIR
    net.switch_on()
    net.is_now("PRIMARY")
    net.rests()

    def told() -> dict[str, str]:
        note: dict[str, str] = json.loads(net.router.read("/run/holdfast/marks/handover"))
        return note

    def runs_as() -> str:
        return net.router.shell(["systemctl", "show", "-P", "InvocationID", "conntrackd.service"]).text.strip()

    first = runs_as()
    assert (told()["role"], told()["daemon"]) == ("MASTER", first)

    assert net.router.shell(["systemctl", "kill", "-s", "KILL", "conntrackd.service"]).code == 0
    net.router.eventually(lambda: net.router.active("conntrackd.service") and runs_as() != first, "conntrackd is back")
    # Its start wakes the agent: nobody has to ask.
    again = ("MASTER", runs_as())
    net.router.eventually(lambda: (told()["role"], told()["daemon"]) == again, "the new one has been told")
    net.rests()
    net.converged()


def test_of_a_burst_of_words_the_last_one_wins(net: OneOfAPair) -> None:
    net.line |= PAIR
    net.switch_on()
    net.is_now("PRIMARY")

    for last in ("FAULT", "MASTER"):
        net.hook(*(("BACKUP", "MASTER", "FAULT")[number % 3] for number in range(49)), last)
        assert net.router.read("/run/holdfast/role") == f"{last}\n"
        serving = last == "MASTER"
        net.router.eventually(lambda: net.public_up() == serving, f"is as {last}")  # noqa: B023 at once
    net.rests()
    assert net.router.read("/run/holdfast/role") == "MASTER\n"
    assert net.router.shell(["systemctl", "is-failed", "holdfast-role.path", "holdfast-role.service"]).code != 0


def test_a_word_that_is_overtaken_does_not_undo_the_later_one(net: OneOfAPair) -> None:
    net.line |= PAIR
    net.switch_on()
    net.is_now("PRIMARY")

    late = f"sh -c 'kill -STOP $$; exec {HOOK} INSTANCE inside BACKUP 200' & late=$!; sleep 0.3; "
    done = net.router.shell(["sh", "-ec", f"{late} {HOOK} INSTANCE inside MASTER 200; kill -CONT $late; wait $late"])

    assert done.code == 0, done.errors
    assert net.router.read("/run/holdfast/role") == "MASTER\n"


def test_a_call_of_checkrouter_is_quick(net: OneOfAPair) -> None:
    net.line |= PAIR
    net.switch_on()
    net.is_now("PRIMARY")
    net.rests()

    seconds = sorted(net.router.run("checkrouter.sh").seconds for _ in range(9))

    assert seconds[4] < SLACK * 0.15, seconds  # with the start of a process inside the router


def test_without_the_agent_a_word_has_everything_put_right(net: OneOfAPair) -> None:
    """Its own unit does the work then, and may do all that it takes: files too, and what their programs say of them."""
    net.line |= PAIR
    net.switch_on()
    net.is_now("PRIMARY")
    net.rests()
    text = net.router.read(CONF)
    assert net.router.shell(["systemctl", "stop", "holdfast-agent.service"]).code == 0
    net.router.write(CONF, f"{text}! by hand\n")

    net.hook("BACKUP", "MASTER")

    net.router.eventually(lambda: net.router.read(CONF) == text, "keepalived's text is as it was")
    net.rests()
    assert net.router.shell(["systemctl", "is-failed", "holdfast-role.service"]).code != 0
