"""The load balancer as its users meet it: real servers, real clients, real haproxy, through the public address."""

import itertools
import os
import signal
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from balancing import STATS_PORT, Background, Rule, ask, balance, certificate, message
from isolated import (
    BOOT,
    CONTROL,
    CONTROL_MAC,
    FAR,
    GUEST_GATEWAY,
    GUEST_MAC,
    MANAGEMENT,
    NEAR,
    SOURCE_NAT,
    Isolated,
    ingress,
    isolated,
)
from slack import SLACK

from holdfast.haproxy import OLD_WORKERS
from holdfast.lab.lab import Lab
from holdfast.lab.sentence import eventually

pytestmark = pytest.mark.lab

CHANGES = 100 if os.environ.get("HOLDFAST_SOAK") else 15
LB, OTHER = "203.0.113.30", "203.0.113.31"
WEB, APP, DB = "10.31.5.10", "10.31.5.11", "10.31.5.12"
PLAIN = Rule(LB, 80, [f"{WEB}:80", f"{APP}:80"])
APPSESSION = "\tappsession JSESSIONID len 52 timeout 3h "
STICKY = "\tstick-table type ip size 200k expire 3h\n\tstick on src"
LOGIN = ("--header", "Authorization: Basic YWRtaW4xOkFkTWlOMTIz", "--timeout", "0.5")
STATS = "/admin?stats"


@pytest.fixture(scope="module")
def net(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Isolated]:
    directory = tmp_path_factory.mktemp("shops")
    with isolated("balance") as net:
        net.associate(SOURCE_NAT, LB, OTHER)
        net.firewall(*(ingress(n, address, "tcp", [1, 65535]) for n, address in enumerate((LB, OTHER), 1)))
        guests = (net.web, net.app, net.db)
        for guest in guests:
            guest.serve(80)
        shops = [Background(g, "shop", g.name, "8080", "JSESSIONID", directory=directory) for g in guests]
        shops += [Background(g, "shop", g.name, "8090", "ASPSESSIONIDABCD", directory=directory) for g in guests]
        for shop in shops:
            shop.__enter__()
        for guest, address in zip(guests, (WEB, APP, DB), strict=True):
            for port in (8080, 8090):
                url = f"http://{address}:{port}/quiet"
                eventually(lambda url=url, name=guest.name: answers(net, url, name), f"{url} answers", 10)  # type: ignore[misc]
        balance(net, [PLAIN])
        time.sleep(5.5)  # a worker that nobody taught teaches none for its first 5 s (see the docs)
        try:
            yield net
        finally:
            for shop in shops:
                shop.__exit__()


def answers(net: Isolated, url: str, name: str) -> bool:
    """Whether a guest's shop is open; asked by another guest."""
    told: bool = ask(net.web if name != net.web.name else net.app, url).get("body") == name
    return told


def names(  # noqa: PLR0913 a question with its adverbs
    net: Isolated, path: str = "", *, port: int = 80, times: int = 4, source: str = "", header: str = ""
) -> list[str]:
    """Who answered the world, each time on a new connection."""
    flags = ["--source", source] if source else []
    flags += ["--header", header] if header else []
    told = ask(net.world, f"http://{LB}:{port}{path or '/'}", "--times", str(times), *flags)
    answered: list[str] = [name.split(" ")[0] for name in told["names"]]
    return answered


def master(net: Isolated) -> int:
    """Process id of haproxy's master, as seen from inside the router."""
    return int(net.router.shell(["systemctl", "show", "-P", "MainPID", "haproxy"]).text)


def worker(net: Isolated) -> str:
    """Process id of its newest worker."""
    return net.router.shell(["pgrep", "-n", "-x", "haproxy"]).text.strip()


def test_requests_go_round_through_the_public_address(net: Isolated) -> None:
    balance(net, [PLAIN])
    answered = names(net, times=6)
    assert answered.count(net.web.name) == answered.count(net.app.name) == 3
    assert all(one != other for one, other in itertools.pairwise(answered))
    assert net.world.can_fetch(LB).address == GUEST_GATEWAY  # servers see the router; the client is in a header
    net.web.can_fetch(LB)  # guests use the public address too


def test_the_firewall_opens_and_closes_with_the_rules(net: Isolated) -> None:
    balance(net, [PLAIN])
    net.world.can_fetch(LB)
    net.world.cannot_reach(OTHER, 80)
    balance(net, [PLAIN._replace(address=OTHER)])
    net.world.can_fetch(OTHER)
    net.world.cannot_reach(LB, 80)
    balance(net, [])  # a dummy listener at port 9 is all that is left
    net.world.cannot_reach(OTHER, 80)
    net.world.cannot_reach(LB, 9)
    balance(net, [PLAIN])
    rule = ingress(1, LB, "tcp", [1, 65535])
    net.firewall(rule | {"revoked": True}, ingress(9, LB, "tcp", [9000, 9000]))
    net.world.cannot_reach(LB, 80)  # what the balancer opens is still judged by the address's own rules
    net.firewall(rule, ingress(9, LB, "tcp", [9000, 9000], revoked=True))
    net.world.can_fetch(LB)


def test_source_stickiness_outlives_a_reload_and_a_server_that_goes(net: Isolated) -> None:
    servers = [f"{DB}:80", f"{WEB}:80", f"{APP}:80"]
    rule = PLAIN._replace(servers=servers, extra=[STICKY])
    balance(net, [rule])
    near, far = set(names(net, source=NEAR)), set(names(net, source=FAR))
    assert (len(near), len(far)) == (1, 1)
    assert near != far
    for port in range(9100, 9104):
        balance(net, [rule, PLAIN._replace(port=port)])
        # The other way round: the first who comes to a balancer that knows nobody goes to the first server.
        assert (set(names(net, source=FAR)), set(names(net, source=NEAR))) == (far, near)
    idle = {net.web.name, net.app.name, net.db.name} - near - far
    gone = dict(zip((net.db.name, net.web.name, net.app.name), servers, strict=True))[idle.pop()]
    balance(net, [rule._replace(servers=[server for server in servers if server != gone])])
    assert (set(names(net, source=FAR)), set(names(net, source=NEAR))) == (far, near)


def test_cookie_stickiness(net: Isolated) -> None:
    rule = PLAIN._replace(cookie=True, extra=["\tcookie SRVID insert indirect nocache  "])
    balance(net, [rule])
    first = ask(net.world, f"http://{LB}/")
    given = first["cookies"][0].partition(";")[0]
    assert given.startswith("SRVID=10_31_5_1")
    assert set(names(net, header=f"Cookie: {given}")) == {first["body"].split(" ")[0]}


@pytest.mark.parametrize("path", ["cookie", "path", "path-and-query"])
def test_appsession_keeps_a_session_at_its_server(net: Isolated, path: str) -> None:
    servers = [f"{address}:8080" for address in (WEB, APP, DB)]
    rule = PLAIN._replace(servers=servers, extra=[APPSESSION])
    said = balance(net, [rule]).text
    assert "`appsession JSESSIONID` became a stick-table" in said
    sessions = []
    for _ in range(6):
        first = ask(net.world, f"http://{LB}/")
        given = first["cookies"][-1].partition(";")[0]
        assert given.startswith("JSESSIONID=")
        sessions.append((given, first["body"]))
    assert {name for _, name in sessions} == {net.web.name, net.app.name, net.db.name}

    def stays(given: str, name: str) -> None:
        page = {"cookie": "/", "path": f"/page;{given}", "path-and-query": f"/page;x=1;{given}?a=b"}[path]
        header = f"Cookie: {given}" if path == "cookie" else ""
        assert set(names(net, page, times=3, header=header)) == {name}, given

    for session in sessions:
        stays(*session)
    balance(net, [rule, PLAIN._replace(port=9100)])
    for session in sessions:
        stays(*session)
    idle = sessions[0][1]
    keep = [server for server, guest in zip(servers, (net.web, net.app, net.db), strict=True) if guest.name != idle]
    balance(net, [rule._replace(servers=keep)])
    for given, name in sessions:
        if name != idle:
            stays(given, name)


def test_appsession_learns_from_requests_where_it_is_told_to(net: Isolated) -> None:
    servers = [f"{address}:8080" for address in (WEB, APP, DB)]
    learns = PLAIN._replace(servers=servers, extra=[f"{APPSESSION}request-learn "])
    balance(net, [learns])
    assert len(set(names(net, "/quiet", times=6, header="Cookie: JSESSIONID=unheard"))) == 1
    assert len(set(names(net, "/quiet?JSESSIONID=one", times=6))) == 3  # not in this mode
    balance(net, [learns._replace(extra=[f"{APPSESSION}request-learn mode query-string "])])
    assert len(set(names(net, "/quiet?x=1&JSESSIONID=two", times=6))) == 1
    balance(net, [learns._replace(extra=[APPSESSION])])
    assert len(set(names(net, "/quiet", times=6, header="Cookie: JSESSIONID=unheard-too"))) == 3


def test_appsession_by_the_beginning_of_a_name(net: Isolated) -> None:
    servers = [f"{address}:8090" for address in (WEB, APP, DB)]
    balance(net, [PLAIN._replace(servers=servers, extra=["\tappsession ASPSESSIONID len 64 timeout 3h prefix "])])
    for _ in range(4):
        first = ask(net.world, f"http://{LB}/")
        given = first["cookies"][-1].partition(";")[0]
        assert given.startswith("ASPSESSIONIDABCD=")
        assert set(names(net, times=4, header=f"Cookie: flavour=plain; {given}; last=1")) == {first["body"]}


def test_an_older_servers_text_works(net: Isolated) -> None:
    said = balance(net, [PLAIN, PLAIN._replace(port=3306, http=False)], ["public"], old=True).text
    assert "got a `bind` line of its own" in said
    assert "`option forceclose` is `option httpclose` now" in said
    assert len(set(names(net))) == len(set(names(net, port=3306))) == 2


def test_tls_ends_at_the_router_and_a_new_certificate_is_served(net: Isolated, tmp_path: Path) -> None:
    rule = PLAIN._replace(port=443, tls=True)
    one, two = (certificate(rule, tmp_path, name) for name in ("one.example", "two.example"))
    for sent in (one, two):
        balance(net, [rule], [], [sent])
        told = ask(net.world, f"https://{LB}/")
        assert told["status"] == 200
        assert told["certificate"].split() == sent["cert"].split()
    path = f"/etc/cloudstack/ssl/{rule.name}.pem"
    assert net.router.shell(["stat", "-c", "%a %U", path]).text == "600 root\n"
    balance(net, [PLAIN])
    assert net.router.shell(["test", "-e", path]).code == 1


@pytest.mark.parametrize("sent", ["placeholder", "another's key"])
def test_a_certificate_that_is_none_is_refused(net: Isolated, tmp_path: Path, sent: str) -> None:
    balance(net, [PLAIN])
    rule = PLAIN._replace(port=443, tls=True)
    wrong = certificate(rule, tmp_path, "right.example")
    if sent == "placeholder":
        wrong["cert"] = "-----BEGIN CERTIFICATE-----\nMIIBexampleServerCert\n-----END CERTIFICATE-----\n"
    else:
        wrong["key"] = certificate(rule, tmp_path, "other.example")["key"]
    before = worker(net)
    answer = net.router.command("load_balancer.json.cert", message([PLAIN, rule], [], [wrong]))
    assert answer.code == 2, answer.text
    assert "203_0_113_30-443" in answer.text
    assert worker(net) == before
    assert net.router.shell(["ls", "/etc/cloudstack/ssl"]).text == ""
    net.world.can_fetch(LB)


def test_statistics_are_seen_where_they_should_be_and_nowhere_else(net: Isolated) -> None:
    net.firewall(ingress(20, SOURCE_NAT, "tcp", [STATS_PORT, STATS_PORT]))
    # The world is a neighbour on the public segment: it may try every address that the router has.
    for inner in (f"{GUEST_GATEWAY}/32", f"{CONTROL}/32"):
        net.world.route(inner, SOURCE_NAT)
    places = {"public": (net.world, SOURCE_NAT), "guest": (net.web, GUEST_GATEWAY), "private": (net.mgmt, CONTROL)}
    for visible in (["public"], ["guest"], ["private"], ["public", "guest", "private"], []):
        balance(net, [PLAIN], visible)
        for side, (asker, address) in places.items():
            url = f"http://{address}:{STATS_PORT}{STATS}"
            told = ask(asker, url, *LOGIN)
            assert (told["status"] == 200) is (side in visible), (visible, side, told)
            if side in visible:
                assert "Statistics Report" in told["body"]
                assert ask(asker, url)["status"] == 401
        for address in (GUEST_GATEWAY, CONTROL):
            assert ask(net.world, f"http://{address}:{STATS_PORT}{STATS}", *LOGIN)["status"] == 0, visible
        if "guest" not in visible:
            assert ask(net.web, f"http://{CONTROL}:{STATS_PORT}{STATS}", *LOGIN)["status"] == 0, visible
    net.firewall(ingress(20, SOURCE_NAT, "tcp", [STATS_PORT, STATS_PORT], revoked=True))


def test_a_broken_text_is_refused_and_stops_nobody(net: Isolated) -> None:
    balance(net, [PLAIN])
    before, text = worker(net), net.router.read("/etc/haproxy/haproxy.cfg")
    broken = message([PLAIN, PLAIN._replace(port=81, extra=["\tno such word"])])
    answer = net.router.command("load_balancer.json.broken", broken)
    assert answer.code == 2, answer.text
    assert "no such word" in answer.text or "unknown keyword" in answer.text
    assert (worker(net), net.router.read("/etc/haproxy/haproxy.cfg")) == (before, text)
    net.converged()
    net.world.can_fetch(LB)
    net.world.cannot_reach(LB, 81)
    net.firewall(ingress(30, OTHER, "tcp", [99, 99]))
    net.firewall(ingress(30, OTHER, "tcp", [99, 99], revoked=True))


def test_a_reload_that_no_worker_survives_is_seen_and_taken_back(net: Isolated, tmp_path: Path) -> None:
    """No check of a text can know that a port is somebody else's: here sshd's."""
    balance(net, [PLAIN])
    text = net.router.read("/etc/haproxy/haproxy.cfg")
    taken = message([PLAIN, Rule(CONTROL, 3922, [f"{WEB}:80"])])
    with Background(net.world, "crowd", LB, "80", "100", directory=tmp_path) as crowd:
        time.sleep(1)
        answer = net.router.command("load_balancer.json.taken", taken)
        time.sleep(1)
    assert crowd.told["bad"] == 0
    assert answer.code == 3, answer.text
    assert "rolled back" in answer.text
    assert net.router.read("/etc/haproxy/haproxy.cfg") == text
    net.converged()
    net.world.can_fetch(LB)
    balance(net, [PLAIN, PLAIN._replace(port=9100)])
    assert len(set(names(net, port=9100))) == 2


def test_how_busy_its_servers_are(net: Isolated) -> None:
    balance(net, [PLAIN._replace(port=3306, http=False), Rule(LB, 9001, [])])
    script = "get_haproxy_stats.sh"

    def now() -> tuple[int, str]:
        done = net.router.run(script, LB, "3306")
        return done.code, done.text

    assert now() == (0, "0")
    open_ones = [net.world.connects(LB, 3306) for _ in range(5)]
    assert now() == (0, "2")  # five on two servers
    for connection in open_ones:
        connection.close()
    net.router.eventually(lambda: now() == (0, "0"), "sessions end with their connections")
    assert net.router.run(script, LB, "9001").text == "0"
    absent = net.router.run(script, LB, "9999")
    assert (absent.code, absent.text) == (1, "")
    assert "no listener" in absent.errors
    for wrong in ((), (LB,), (LB, "0"), (LB, "80; reboot"), ("localhost", "80")):
        assert net.router.run(script, *wrong).code == 2
    net.router.shell(["systemctl", "stop", "haproxy"])
    silent = net.router.run(script, LB, "3306")
    assert (silent.code, silent.text) == (1, "")
    net.router.run("configure.py")
    assert now() == (0, "0")


@pytest.mark.parametrize("victim", ["master", "worker"])
def test_it_comes_back_within_a_second(net: Isolated, victim: str) -> None:
    balance(net, [PLAIN])
    before = worker(net)
    pid = str(master(net)) if victim == "master" else before
    net.router.shell(["kill", f"-{signal.SIGKILL.value}", pid])
    began = time.monotonic()
    net.router.eventually(lambda: worker(net) not in ("", before), "there is a new worker", 5)
    net.world.can_fetch(LB)
    assert time.monotonic() - began < SLACK * 1.0
    net.converged()


def changes() -> Iterator[list[Rule]]:
    """Without end: servers come and go, balance and stickiness change, listeners come and go beside it."""
    three = [f"{WEB}:80", f"{APP}:80", f"{DB}:80"]
    while True:
        yield [PLAIN._replace(servers=three)]
        yield [PLAIN._replace(servers=three, balance="leastconn")]
        yield [PLAIN._replace(servers=three[1:], balance="leastconn")]
        yield [PLAIN._replace(servers=three[1:], balance="source"), PLAIN._replace(port=9100)]
        yield [PLAIN, PLAIN._replace(port=9100), Rule(OTHER, 80, three, extra=[STICKY])]
        yield [PLAIN._replace(extra=[STICKY]), Rule(OTHER, 80, three, "leastconn")]
        yield [PLAIN._replace(servers=three, extra=["\tcookie SRVID insert indirect nocache  "], cookie=True)]


@pytest.mark.alone
def test_no_request_fails_while_the_configuration_changes(
    net: Isolated, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    balance(net, [PLAIN])
    crowd = (net.world, "crowd", LB, "80", "200")
    began = time.monotonic()
    with Background(*crowd, directory=tmp_path) as changing:
        endless = changes()
        for _ in range(CHANGES):
            balance(net, next(endless), check=False)
    seconds = time.monotonic() - began
    with Background(*crowd, directory=tmp_path) as quiet:
        time.sleep(min(seconds, 10))
    with capsys.disabled():
        print(f"\n{CHANGES} changes: {changing.told}; control: {quiet.told}")  # noqa: T201 half of what it is for
    assert quiet.told["bad"] == 0, "this machine is too busy to measure"
    assert changing.told["bad"] == 0
    assert changing.told["good"] == changing.told["sent"] > 100 * seconds
    net.converged()


@pytest.mark.alone
def test_the_count_notices_a_restart(net: Isolated, tmp_path: Path) -> None:
    """Whoever says that no request failed has to be able to see one fail."""
    balance(net, [PLAIN])
    with Background(net.world, "crowd", LB, "80", "200", directory=tmp_path) as crowd:
        time.sleep(0.5)
        net.router.shell(["systemctl", "restart", "haproxy"])
        time.sleep(0.5)
    assert crowd.told["bad"] > 0
    net.converged()


def test_an_old_worker_stays_as_long_as_its_connections(net: Isolated) -> None:
    rule = PLAIN._replace(port=3306, http=False)
    balance(net, [rule])
    connection = net.world.connects(LB, 3306)
    for port in range(9100, 9103):
        balance(net, [rule, PLAIN._replace(port=port)], check=False)
    connection.works()
    assert processes(net) == 3  # master, new worker, one old one
    connection.close()
    net.router.eventually(lambda: processes(net) == 2, "the old worker ends")


@pytest.mark.soak
def test_old_workers_are_bounded(net: Isolated) -> None:
    """A connection that stays for ever does not keep its worker for ever, or they would fill the memory."""
    rule = PLAIN._replace(port=3306, http=False)
    balance(net, [rule])
    connections = []
    for port in range(9100, 9100 + OLD_WORKERS + 3):
        connections.append(net.world.connects(LB, 3306))
        balance(net, [rule, PLAIN._replace(port=port)], check=False)
    net.router.eventually(lambda: processes(net) <= OLD_WORKERS + 3, "the oldest workers end")
    connections[0].is_cut()
    connections[-1].works()
    for connection in connections:
        connection.close()
    net.router.eventually(lambda: processes(net) == 2, "old workers end with their connections")


def processes(net: Isolated) -> int:
    """How many processes of haproxy there are, the master among them."""
    return int(net.router.shell(["pgrep", "-c", "-x", "haproxy"]).text)


def test_a_listener_may_come_before_its_address(net: Isolated) -> None:
    late = "203.0.113.32"
    balance(net, [PLAIN, PLAIN._replace(address=late)])
    before = worker(net)
    net.associate(late)
    net.firewall(ingress(40, late, "tcp", [80, 80]))
    net.world.can_fetch(late)
    assert worker(net) == before
    balance(net, [PLAIN])
    net.associate(late, add=False)


def test_it_serves_again_after_a_power_cut(net: Isolated) -> None:
    balance(net, [PLAIN])
    net.power_cut()
    net.world.can_fetch(LB)


def test_an_internal_balancer_serves_its_network(lab: Lab) -> None:
    """No public nic and no forwarding: clients and servers are on the guest network."""
    address, port = "10.31.5.9", 8080
    segment, control = lab.segment("guest"), lab.segment("control")
    lab.mgmt(control, f"{MANAGEMENT}/16")
    router = lab.router("b1", [(segment, GUEST_MAC), (control, CONTROL_MAC)])
    line = {key: value for key, value in BOOT.items() if not key.startswith(("eth2", "public", "private"))}
    line |= {"type": "ilbvm", "name": "b-31-VM", "eth0ip": address, "gateway": GUEST_GATEWAY}
    router.write("/var/cache/cloud/cmdline", " ".join(f"{key}={value}" for key, value in line.items()))
    router.boot()
    guests = [lab.guest(name, segment, f"02:1a:33:00:03:0{number}") for number, name in enumerate(("one", "two"), 1)]
    for number, guest in enumerate(guests, 1):
        guest.address("eth0", f"10.31.5.{10 + number}/24")
        guest.serve(80)
    rule = Rule(address, port, ["10.31.5.11:80", "10.31.5.12:80"])
    answer = router.command("load_balancer.json.one", message([rule]))
    assert answer.code == 0, answer.text
    assert {guests[0].can_fetch(address, port).name for _ in range(4)} == {"one", "two"}
    assert guests[0].can_fetch(address, port).address == address
    guests[0].cannot_reach(address, 9)
    assert router.command("load_balancer.json.two", message([])).code == 0
    guests[0].cannot_reach(address, port)
