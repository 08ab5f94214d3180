"""The lab itself: what it builds is real, what it says is so, and nothing of it is left."""

import os
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from slack import SLACK

from holdfast.lab import commands, image
from holdfast.lab.guest import Guest
from holdfast.lab.lab import Flow, Lab, LabError, NotSo
from holdfast.lab.ledger import ROOT, sweep
from holdfast.lab.process import Process, finish, look_up
from holdfast.lab.router import Router
from holdfast.lab.world import World

pytestmark = [pytest.mark.lab, pytest.mark.alone]

MACS = ("02:00:00:00:00:01", "02:00:00:00:00:02", "02:00:00:00:00:03")
FORWARDING = """
table ip nat {
  chain pre { type nat hook prerouting priority dstnat
    ip daddr 203.0.113.11 udp dport 5002 dnat to 10.1.1.10:6002
  }
  chain post { type nat hook postrouting priority srcnat
    oifname "eth2" snat to 203.0.113.11
  }
}
"""
DNSMASQ = """
interface=eth0
bind-dynamic
dhcp-authoritative
domain=cs1.example
expand-hosts
dhcp-range=10.1.1.0,static
dhcp-host=02:00:00:00:01:01,10.1.1.10,web1,infinite
dhcp-option=option:router,10.1.1.1
dhcp-option=option:dns-server,10.1.1.1
dhcp-option=option:mtu,1400
dhcp-leasefile=/var/lib/misc/dnsmasq.leases
no-resolv
"""


def pair(lab: Lab) -> tuple[Guest, Guest]:
    segment = lab.segment("guest")
    first, second = (lab.guest(f"web{n}", segment, f"02:00:00:00:01:0{n}") for n in (1, 2))
    first.address("eth0", "10.1.1.10/24")
    second.address("eth0", "10.1.1.11/24")
    return first, second


def outside(lab: Lab) -> World:
    return lab.world(lab.segment("public"), "203.0.113.1/24", ("192.0.2.10", "192.0.2.20"))


def bare_router(lab: Lab) -> Router:
    segments = [lab.segment(name) for name in ("guest", "control", "public")]
    router = lab.router("r1", list(zip(segments, MACS, strict=True)))
    # Nobody puts right what is set by hand, and nothing is closed.
    disabled = router.shell(["systemctl", "disable", "cloud-early-config.service", "holdfast-closed.service"])
    assert disabled.code == 0, disabled.errors
    return router


def forward(router: Router) -> None:
    """Configure it by hand, as no agent is asked here."""
    lines = [f"link set {nic} up" for nic in router.ports]
    lines += ["address add 10.1.1.1/24 dev eth0", "address add 203.0.113.11/24 dev eth2"]
    lines += ["route add default via 203.0.113.1"]
    for argv, stdin in (
        (["ip", "-batch", "-"], "\n".join(lines) + "\n"),
        (["sysctl", "-q", "-w", "net.ipv4.ip_forward=1"], ""),
        (["nft", "-f", "-"], FORWARDING),
    ):
        done = router.shell(argv, stdin=stdin.encode())
        assert done.code == 0, done.errors


def addresses(router: Router) -> str:
    return router.shell(["ip", "-brief", "-4", "address"]).text


def rules(router: Router) -> str:
    return router.shell(["nft", "list", "ruleset"]).text


def test_guests_of_one_segment_reach_each_other_and_nobody_else(lab: Lab) -> None:
    first, second = pair(lab)
    stranger = lab.guest("stranger", lab.segment("elsewhere"), "02:00:00:00:01:03")
    stranger.address("eth0", "10.1.1.12/24")
    first.pings(second)
    first.cannot_ping(stranger)
    second.serve(80)
    assert first.can_fetch(second).address == "10.1.1.10"
    second.serve(5353, "udp")
    reply = first.reaches(second, 5353, "udp", source_port=4444)
    assert (reply.name, reply.address, reply.port) == ("web2", "10.1.1.10", 4444)
    first.cannot_reach(stranger, 80)
    first.cannot_reach(stranger, 53, "udp")


def test_the_world_answers_from_each_of_its_addresses_and_segments(lab: Lab) -> None:
    world = outside(lab)
    world.attach(lab.segment("public2"), "198.51.100.1/26")
    world.serve(80)
    world.serve(53, "udp")
    for segment, own, gateway in (
        ("public", "203.0.113.50", "203.0.113.1"),
        ("public2", "198.51.100.9", "198.51.100.1"),
    ):
        client = lab.guest(f"on{segment}", lab.segment(segment), f"02:00:00:00:02:0{len(segment)}")
        client.address("eth0", f"{own}/26")
        client.route("default", gateway)
        assert client.can_fetch(world).address == own
        assert client.can_fetch("192.0.2.20").address == own
        assert client.reaches("192.0.2.20", 53, "udp").address == own


def test_a_false_sentence_fails_and_says_what_was_seen(lab: Lab) -> None:
    first, second = pair(lab)
    router = bare_router(lab)
    router.boot()
    with pytest.raises(
        NotSo, match=r"(?s)web1 could not fetch http://10\.1\.1\.11:81/: .*refused.*r1's journal.*systemd"
    ):
        first.can_fetch(second, 81, timeout_s=0.1)
    with pytest.raises(NotSo, match=r"web1 could reach 10\.1\.1\.11 at tcp port 81, and should not"):
        first.cannot_reach(second, 81)
    with pytest.raises(NotSo, match="web1 could ping"):
        first.cannot_ping(second)
    with pytest.raises(NotSo, match=r"web1 could not get a lease for eth0"):
        first.gets_lease(timeout_s=0.3)
    with pytest.raises(NotSo, match=r"web1 could not resolve x \(A\): it knows no name server"):
        first.resolves("x", timeout_s=0.1)


def test_a_connection_is_cut_with_the_cable_and_works_again(lab: Lab) -> None:
    first, second = pair(lab)
    second.serve(7, "udp")
    connection = first.connects(second, 7, "udp")
    connection.works()
    lab.cable(first, "eth0", up=False)
    connection.is_cut()
    with pytest.raises(NotSo, match="does not work any more"):
        connection.works(timeout_s=0.1)
    lab.cable(first, "eth0", up=True)
    first.pings(second)
    connection.works()
    with pytest.raises(NotSo, match="still works, and should not"):
        connection.is_cut()


def test_a_router_boots_a_real_systemd_with_its_nics_and_holdfast_installed(lab: Lab) -> None:
    router = bare_router(lab)
    router.write("/var/cache/cloud/cmdline", "type=router\n")
    router.boot()
    assert router.shell(["systemctl", "is-system-running"]).text == "running\n"
    assert router.read("/proc/1/comm") == "systemd\n"
    assert router.read("/var/cache/cloud/cmdline") == "type=router\n"
    for number, mac in enumerate(MACS):
        assert router.read(f"/sys/class/net/eth{number}/address") == f"{mac}\n"
    program = (
        "import sys; sys.path.insert(0, '/opt/holdfast/lib'); import msgspec, holdfast.state as s; print(s.__cached__)"
    )
    done = router.shell(["/usr/bin/python3", "-I", "-B", "-c", program])
    assert "/opt/holdfast/lib/holdfast/__pycache__/state" in done.text, done.errors
    assert router.shell(["test", "-f", done.text.strip()]).code == 0
    for unit in ("ssh.service", "ssh.socket", "systemd-networkd.service", "dnsmasq.service", "haproxy.service"):
        assert not router.active(unit), unit


def test_a_router_forwards_and_the_probe_tells_a_good_moment_from_a_bad_one(lab: Lab) -> None:
    first, _ = pair(lab)
    world, router = outside(lab), bare_router(lab)
    router.boot()
    forward(router)
    first.route("default", "10.1.1.1")
    world.serve(80)
    assert first.can_fetch(world).address == "203.0.113.11"
    flows = [
        Flow(first, world, 5000),
        Flow(first, world, 5001, kind="new"),
        Flow(world, first, 5002, address="203.0.113.11", target_port=6002),
    ]
    refused = [Flow(world, first, 5003, address="203.0.113.11", refused=True)]
    quiet = lab.measure([*flows, *refused], lambda: time.sleep(0.5))
    for count in quiet[:3]:
        assert count.sent > 400
        assert (count.lost, count.longest_gap) == (0, 0)
    assert quiet[0].returned == quiet[0].sent
    assert quiet[3].sent > 400
    assert quiet[3].leaked == 0

    def bad_moment() -> None:
        time.sleep(0.2)
        router.carrier("eth2", up=False)
        time.sleep(0.1)
        router.carrier("eth2", up=True)
        world.pings("203.0.113.11")  # the neighbour is found again, at the latest when the kernel asks again after 1 s
        first.pings(world)
        time.sleep(0.2)

    for count in lab.measure(flows, bad_moment):
        assert count.lost == count.longest_gap > 50
        assert count.received > 300
    leak = lab.measure([Flow(world, first, 5002, address="203.0.113.11", target_port=6002, refused=True)], bad_moment)
    assert leak[0].leaked > 300


def test_a_probe_whose_own_control_flow_loses_is_void(lab: Lab) -> None:
    first, second = pair(lab)
    with lab.probe([Flow(first, second, 5000)]) as probe:
        lab.cable(first, "eth0", up=False)
        time.sleep(0.1)
        lab.cable(first, "eth0", up=True)
    assert probe.void
    assert probe.controls[0].lost > 50


def test_nics_are_plugged_into_and_pulled_out_of_a_running_router(lab: Lab) -> None:
    router = bare_router(lab)
    router.boot()
    assert router.plug(lab.segment("tier2"), "02:00:00:00:00:04") == "eth3"
    assert router.read("/sys/class/net/eth3/address") == "02:00:00:00:00:04\n"
    router.unplug("eth1")
    assert router.shell(["ip", "link", "show", "eth1"]).code != 0
    assert router.plug(lab.segment("tier3"), "02:00:00:00:00:05") == "eth1"


def test_dhcp_and_names_from_a_real_dnsmasq_unit(lab: Lab) -> None:
    guest = lab.guest("vm", lab.segment("guest"), "02:00:00:00:01:01")
    unknown = lab.guest("unknown", lab.segment("guest"), "02:00:00:00:01:99")
    router = bare_router(lab)
    router.boot()
    forward(router)
    assert not router.active("dnsmasq")
    router.write("/etc/dnsmasq.conf", DNSMASQ)
    started = router.shell(["systemctl", "start", "dnsmasq"])
    assert started.code == 0, router.journal()
    lease = guest.gets_lease()
    assert (lease.address, lease.prefix, lease.router, lease.dns) == ("10.1.1.10", 24, "10.1.1.1", ("10.1.1.1",))
    assert (lease.domain, lease.hostname, lease.mtu) == ("cs1.example", "web1", 1400)
    assert "mtu 1400" in guest.run(["ip", "link", "show", "eth0"]).text
    assert guest.resolves("web1") == ("10.1.1.10",)
    assert guest.resolves("10.1.1.10", kind="PTR") == ("web1.cs1.example",)
    guest.cannot_resolve("web9")
    assert "10.1.1.10" in guest.run(["getent", "ahostsv4", "web1"]).text
    unknown.gets_no_lease(timeout_s=1)
    router.write("/etc/hosts", "127.0.0.1 localhost\n10.1.1.77 web9\n")
    assert router.shell(["systemctl", "reload", "dnsmasq"]).code == 0
    assert guest.resolves("web9") == ("10.1.1.77",)
    assert guest.renews_lease().address == "10.1.1.10"
    assert "10.1.1.10" in router.read("/var/lib/misc/dnsmasq.leases")
    guest.releases_lease()
    router.eventually(lambda: not router.read("/var/lib/misc/dnsmasq.leases"), "forgets a lease that was given back")


@pytest.mark.parametrize("end", ["reboot", "crash", "power_cut", "power_cut and wipe"])
def test_what_survives_each_end_of_a_router(lab: Lab, end: str) -> None:
    router, world = bare_router(lab), outside(lab)
    router.boot()
    forward(router)
    router.write("/etc/kept", "on the disk")
    router.write("/run/holdfast/mark", "in memory")
    boot = router.read("/proc/sys/kernel/random/boot_id")
    world.pings("203.0.113.11")
    if end == "reboot":
        router.reboot()
    elif end == "crash":
        router.crash()
        world.pings("203.0.113.11")  # the kernel goes on
        router.boot()
    else:
        router.power_cut(keep_disk=end == "power_cut")
        world.cannot_ping("203.0.113.11")
        router.boot()
    assert router.read("/proc/sys/kernel/random/boot_id") != boot
    with pytest.raises(NotSo):
        router.read("/run/holdfast/mark")
    kernel_kept = end == "crash"
    assert ("203.0.113.11" in addresses(router)) == kernel_kept
    assert ("snat" in rules(router)) == kernel_kept
    if end == "power_cut and wipe":
        with pytest.raises(NotSo):
            router.read("/etc/kept")
    else:
        assert router.read("/etc/kept") == "on the disk"
        assert router.journal(1, boot=-1)
    for number, mac in enumerate(MACS):
        assert router.read(f"/sys/class/net/eth{number}/address") == f"{mac}\n"


def test_an_orderly_reboot_that_keeps_the_kernel(lab: Lab) -> None:
    router = bare_router(lab)
    router.boot()
    forward(router)
    router.reboot(kernel=True)
    assert "snat" in rules(router)
    router.shutdown()
    assert not router.running
    with pytest.raises(LabError, match="r1 is off"):
        router.run("update_config.py", "x.json")


def test_a_script_is_run_as_ssh_would_and_its_children_can_be_counted(lab: Lab) -> None:
    router = bare_router(lab)
    router.boot()
    router.write("/opt/cloud/bin/three", "#!/bin/sh\n/bin/true\n/bin/true\n/bin/true\nenv\nexit 7\n", 0o755)
    result = router.run("three", count_children=True)
    assert result.code == 7
    assert result.children == 4
    assert "HOME=/root" in result.text
    assert "PYTEST" not in result.text
    assert router.run("three").seconds < 5


def namespaces(prefix: str) -> set[int]:
    return {path.stat().st_ino for path in Path("/run/netns").iterdir() if path.name.startswith(prefix)}


def inhabitants(wanted: set[int]) -> Iterator[Process]:
    for proc in Path("/proc").iterdir():
        try:
            if proc.name.isdigit() and (proc / "ns/net").stat().st_ino in wanted:
                found = look_up(int(proc.name))
                if found:
                    yield found
        except (FileNotFoundError, ProcessLookupError, PermissionError):
            continue


def traces(prefix: str) -> list[str]:
    """Everything on this machine that carries a lab's name."""
    places = [Path("/run/netns"), Path("/run/systemd/nspawn/propagate"), ROOT]
    found = [str(path) for place in places if place.is_dir() for path in place.iterdir()]
    found += [folder for folder, _, _ in os.walk("/sys/fs/cgroup")]
    found += Path("/proc/self/mountinfo").read_text().splitlines()
    found += finish(["ps", "-eo", "args"]).text.splitlines()
    return [trace for trace in found if prefix in trace]


def busy(lab: Lab) -> None:
    """Start one of everything that could be left behind."""
    first, second = pair(lab)
    router = bare_router(lab)
    router.boot()
    forward(router)
    first.serve(80)
    lab.probe([Flow(first, second, 5000)]).start()
    with pytest.raises(NotSo):
        first.gets_lease(timeout_s=0.1)


def test_nothing_is_left_of_a_lab_that_failed() -> None:
    prefixes: list[str] = []
    inside: set[int] = set()
    seen: list[Process] = []

    def work_and_fail() -> None:
        with Lab("gone") as lab:
            prefixes.append(lab.prefix)
            busy(lab)
            inside.update(namespaces(lab.prefix))
            seen.extend(inhabitants(inside))
            raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        work_and_fail()
    assert len(inside) == 5  # two guests, the router, the switch, the bystander
    assert len(seen) > 8
    assert not traces(prefixes[0])
    assert not [process for process in seen if process.alive()]
    assert not list(inhabitants(inside))


def test_what_a_killed_lab_left_is_swept_by_its_records() -> None:
    program = """
import sys, time
from holdfast.lab.lab import Lab
lab = Lab("killed")
lab.guest("web1", lab.segment("guest"), "02:00:00:00:01:01").address("eth0", "10.1.1.1/24")
lab.router("r1", [(lab.segment("guest"), "02:00:00:00:00:01")]).boot()
print(lab.prefix, flush=True)
time.sleep(60)
"""
    with subprocess.Popen([sys.executable, "-c", program], stdout=subprocess.PIPE, text=True) as owner:
        try:
            assert owner.stdout is not None
            prefix = owner.stdout.readline().strip()
            assert prefix.startswith("hf-killed-")
            assert prefix not in sweep()
            inside = namespaces(prefix)
            assert list(inhabitants(inside))
        finally:
            owner.kill()
    sweep()
    assert not traces(prefix)
    assert not list(inhabitants(inside))


def test_a_lab_that_stays_outlives_its_command_until_it_is_taken_down() -> None:
    name = f"stay{os.getpid()}"
    program = f"from holdfast.lab import commands; commands.up({name!r})"
    try:
        up = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=False, timeout=120)
        assert up.returncode == 0, up.stderr
        assert name in commands.names()
        assert commands.run(name, "r1", ["systemctl", "is-active", "--quiet", "dbus"]) == 0
        assert commands.run(name, "world", ["ping", "-c", "1", "-W", "1", "192.0.2.10"]) == 0
        assert commands.run(name, "web1", ["test", "-e", "/sys/class/net/eth7"]) == 1
        with pytest.raises(LabError, match="has no web9"):
            commands.run(name, "web9", ["true"])
        with pytest.raises(LabError, match="already"):
            commands.up(name)
    finally:
        commands.down(name)
    assert not traces(f"hf-{name}")
    with pytest.raises(LabError, match="no lab named"):
        commands.down(name)


def test_the_install_layer_is_made_again_only_when_a_source_changed() -> None:
    first = image.install()
    began = time.monotonic()
    assert image.install() == first
    assert time.monotonic() - began < SLACK * 0.5
    assert not list(first.glob("opt/holdfast/lib/holdfast/lab*"))
