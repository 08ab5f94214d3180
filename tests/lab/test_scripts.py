"""Every script that management servers ask a router with, on a router: what it prints is read as they read it."""

import json
from collections.abc import Callable, Iterator
from typing import Any

import pytest
from balancing import Rule, balance
from isolated import GATEWAY, SOURCE_NAT, Isolated, forward, isolated
from slack import SOAK

import java_reader
from holdfast.lab.process import Result

pytestmark = pytest.mark.lab

RELEASE = "Cloudstack Release 4.22.0 Fri Oct 24 10:11:12 UTC 2025"
HOME = "/usr/local/cloud/systemvm/conf"
SERVICES = (
    "[dhcp]:processname=dnsmasq:servicename=dnsmasq:pidfile=/var/run/dnsmasq/dnsmasq.pid:,"
    "[loadbalancing]:processname=haproxy:servicename=haproxy:pidfile=/var/run/haproxy.pid:,"
    "[ssh]:processname=sshd:servicename=ssh:pidfile=/var/run/sshd.pid:,"
    "[webserver]:processname=apache2:servicename=apache2:pidfile=/var/run/apache2/apache2.pid:,"
)
THRESHOLDS = "minDiskNeeded=1.0,maxCpuUsage=100.0,maxMemoryUsage=100.0;"
VM = "vmName=web1,macAddress=02:1a:33:00:01:01,ip=10.31.5.10,dhcp=true,dns=true;"
FORWARD = "sourceIp={},sourcePortStart={},sourcePortEnd={},destIp=10.31.5.10,destPortStart=80,destPortEnd=80;"
BASIC = {f"{name}_check.py" for name in ("cpu_usage", "memory_usage", "disk_space", "gateways", "router_version")}
ANSWER_S = 0.1 if SOAK else 0.25
ADVANCED = {"dhcp_check.py", "dns_check.py", "haproxy_check.py", "iptables_check.py"}


@pytest.fixture(scope="module")
def net() -> Iterator[Isolated]:
    with isolated("scripts") as net:
        net.associate(SOURCE_NAT)
        net.forward(forward(SOURCE_NAT, "tcp", "8080:8080", "10.31.5.10", "80:80"))
        net.router.write("/etc/cloudstack-release", f"{RELEASE}\n")
        yield net


def merged(done: Result) -> tuple[int, str]:
    """What reaches the server: both streams."""
    return done.code, done.text + done.errors


def monitor(net: Isolated, *, config: str | None = SERVICES, **data: str) -> None:
    message: dict[str, Any] = {
        "health_checks_enabled": True, "health_checks_basic_run_interval": 3, "health_checks_advanced_run_interval": 10,
        "excluded_health_checks": "", "type": "monitorservice", "health_checks_config": {
            "gateways": f"gatewaysIps=169.254.0.1 {GATEWAY} ", "systemThresholds": THRESHOLDS, "virtualMachines": "",
            "portForwarding": "", "haproxyData": "", "routerVersion": f"templateVersion={RELEASE},scriptsVersion=d41d",
            **data,
        },
    }  # fmt: skip
    net.command("monitor_service", message | ({"config": config} if config else {}))
    assert net.router.run("configure.py", "monitor_service.json").code == 0


def results(net: Isolated, fresh: str) -> java_reader.Results:
    return java_reader.monitor_results(*merged(net.router.run("getRouterMonitorResults.sh", fresh)))


def alerts(net: Isolated, since: str = "1970-01-01 00:00:00") -> java_reader.Alerts:
    return java_reader.alerts(*merged(net.router.run("getRouterAlerts.sh", *since.split())))


def test_what_is_asked_first_and_often(net: Isolated) -> None:
    router = net.router
    template, scripts = java_reader.version(*merged(router.run("get_template_version.sh")))
    assert (template, scripts[:9]) == (RELEASE, "holdfast-")
    assert java_reader.file_system(*merged(router.run("filesystem_writable_check.py"))) == ""
    assert merged(router.run("bumpup_priority.sh")) == (0, "")
    assert merged(router.run("cks_iso.sh", "false")) == (0, "")
    assert merged(router.run("cks_iso.sh", "true"))[0] == 1  # it has no drive
    for script in ("prepare_pxe.sh", "baremetal_snat.sh", "monitor_service.sh", "setup_tf_route.py"):
        assert router.run(script, "x").code == 1


@pytest.mark.alone
def test_what_is_asked_often_is_answered_at_once(net: Isolated, tell: Callable[[str], None]) -> None:
    quick = {
        script: sorted(net.router.run(script, *words).seconds for _ in range(5))[2]
        for script, *words in (
            ("get_template_version.sh",), ("getRouterAlerts.sh",), ("filesystem_writable_check.py",),
            ("netusage.sh", "-g"), ("getRouterMonitorResults.sh", "false"),
        )
    }  # fmt: skip
    tell(f"ms, by script: { {script: round(took * 1000) for script, took in quick.items()} }")
    assert max(quick.values()) < ANSWER_S


def test_each_answer_is_in_the_journal_and_in_history(net: Isolated) -> None:
    router = net.router
    asked = router.run("netusage.sh", "-g")
    refused = router.command("firewall_rules.json.bad", b'{"rules": 7, "type": "firewallrules"}')
    missing = router.run("update_config.py", "nothing.json")
    bundle = router.run("vr_cfg.sh", "-c", "/var/cache/cloud/VR-none.cfg")
    pxe = router.run("prepare_pxe.sh", "02:00:00:00:00:01")
    assert [done.code for done in (asked, refused, missing, bundle, pxe)] == [0, 2, 2, 2, 1]

    done = router.shell(["holdfast", "history"])
    newest = [" ".join((*line[:6].split(), line[27:])) for line in done.text.splitlines()[:5]]
    journal = router.journal(40)
    for line, (words, given) in zip(
        reversed(newest),
        {
            "netusage.sh -g": asked, "update_config.py firewall_rules.json.bad": refused,
            "update_config.py nothing.json": missing, "vr_cfg.sh -c /var/cache/cloud/VR-none.cfg": bundle,
            "prepare_pxe.sh 02:00:00:00:00:01": pxe,
        }.items(), strict=True,
    ):  # fmt: skip
        said = "; ".join((given.text + given.errors).splitlines())[:500]
        assert said
        assert line.startswith(f"exit {given.code} {words}: {said}")
        assert f"{words}: exit {given.code}: {said}" in journal
    assert router.shell(["stat", "-c", "%a", "/var/log/holdfast-answers.log"]).text == "600\n"
    router.eventually(lambda: "prepare_pxe.sh" in str(alerts(net).texts), "the alert's second is over")
    net.converged()


def test_a_full_disk_fails_no_script(net: Isolated) -> None:
    full = (
        "mount -t tmpfs -o size=4k none /var/log && head -c 4096 /dev/zero >/var/log/x && "
        "! echo more >>/var/log/x 2>/dev/null && /opt/cloud/bin/getRouterAlerts.sh 1970-01-01 00:00:00"
    )
    done = net.router.shell(["unshare", "-m", "sh", "-c", full])

    assert java_reader.alerts(*merged(done)).texts == []
    assert "this answer is in the journal alone: [Errno 28]" in net.router.journal(5)


def test_a_disk_that_cannot_be_written_to_is_told(net: Isolated) -> None:
    script = (
        "mount --bind /var/cache/cloud /var/cache/cloud && mount -o remount,bind,ro /var/cache/cloud && "
        "/opt/cloud/bin/filesystem_writable_check.py"
    )
    done = net.router.shell(["unshare", "-m", "sh", "-ec", script])

    assert done.code == 1
    assert java_reader.file_system(*merged(done)) == "Read-only file system"


def test_an_operator_looks_from_the_router(net: Isolated) -> None:
    run = net.router.run
    out, _, code = java_reader.diagnostics(*merged(run("diagnostics.py", "ping", GATEWAY, "-c", "1")))
    assert (code, "1 received" in out) == ("0", True), out
    out, _, code = java_reader.diagnostics(
        *merged(run("diagnostics.py", "arping", "10.31.5.10", "-I", "eth0", "-c", "1"))
    )
    assert (code, "Received 1 response" in out) == ("0", True), out
    _, _, code = java_reader.diagnostics(*merged(run("diagnostics.py", "ping", "203.0.113.250", "-c", "1", "-W", "1")))
    assert code == "1"
    _, errors, code = java_reader.diagnostics(*merged(run("diagnostics.py", "traceroute", GATEWAY)))
    assert code == "0" or "not installed" in errors
    _, errors, _ = java_reader.diagnostics(*merged(run("diagnostics.py", "ping", "$(reboot)")))
    assert errors.startswith("refused")

    words = "iptables ipaddr iprule iproute /etc/dnsmasq.conf /etc/hosts /etc/shadow /etc/cloudstack/vmpassword.json"
    path = java_reader.archive(*merged(run("get_diagnostics_files.py", *words.split())))
    listing = net.router.shell(["python3", "-m", "zipfile", "-l", path]).text
    assert all(name in listing for name in ("iptables.txt", "etc/dnsmasq.conf", "fileinfo.txt"))
    assert "shadow" not in listing
    assert "vmpassword" not in listing
    assert merged(run("cleanup.sh", path)) == (0, "")
    assert net.router.shell(["test", "-e", path]).code == 1
    assert run("cleanup.sh", "/etc/hosts").code == 2


def test_a_certificate_is_asked_for_and_comes(net: Isolated) -> None:
    router = net.router
    words = [f"{HOME}/agent.properties", f"{HOME}/cloud.jks", "ksPassw0rd", "365", f"{HOME}/cloud.csr"]
    done = router.run("keystore-setup", *words)
    request = java_reader.request(done.text + done.errors)
    assert request.startswith("-----BEGIN CERTIFICATE REQUEST-----")

    sign = (
        "cd /root; "
        "openssl req -x509 -newkey rsa:2048 -nodes -keyout ca.key -out ca.crt -subj /CN=a -days 2 2>/dev/null; "
        f"openssl x509 -req -in {HOME}/cloud.csr -CA ca.crt -CAkey ca.key -CAcreateserial -days 2 2>/dev/null"
    )
    certificate, authority = router.shell(["sh", "-ec", sign]).text, router.read("/root/ca.crt")
    wire = [f'"{text}"'.replace("\n", "^").replace(" ", "~") for text in (certificate, authority, "")]
    words = [
        f"{HOME}/agent.properties", "jnG97cK3VmNMpurU", f"{HOME}/cloud.jks", "ssh", f"{HOME}/cloud.crt", wire[0],
        f"{HOME}/cloud.ca.crt", wire[1], f"{HOME}/cloud.key", wire[2],
    ]  # fmt: skip
    assert merged(router.run("keystore-cert-import", *words)) == (0, "")
    assert router.read(f"{HOME}/cloud.crt").strip() == certificate.strip()
    assert router.shell(["stat", "-c", "%a", f"{HOME}/cloud.key"]).text == "600\n"
    assert router.run("keystore-cert-import", *words[:5], wire[1], *words[6:]).code == 1  # of another key
    scripts = [f"/opt/cloud/bin/{name}" for name in ("keystore-setup", "keystore-cert-import")]
    assert router.run("patched.sh", *scripts).text.split() == scripts


def test_a_password_by_the_older_script(net: Isolated) -> None:
    done = net.router.run("savepassword.sh", "-v", "10.31.5.10", "-p", "Sw0rd;fish")

    assert done.code == 0, done
    view = json.loads(net.router.read("/run/holdfast/guest/view.json"))
    assert view["guests"]["10.31.5.10"]["password"] == "Sw0rd;fish"  # noqa: S105 the test's own
    assert "Sw0rd" not in done.text + done.errors + net.router.journal(200)
    assert net.router.run("savepassword.sh", "-v", "10.31.5.10;id", "-p", "x").code == 2
    net.converged()


def mtu(net: Isolated, nic: str) -> int:
    return int(net.router.read(f"/sys/class/net/{nic}/mtu"))


def test_an_mtu_changes_at_run_time(net: Isolated) -> None:
    run = net.router.run
    done = run("update_interface_config.sh", "10.31.5.1", "24", "1400", "15")
    assert java_reader.interface_update(*merged(done), "10.31.5.1"), done
    assert (done.code, mtu(net, "eth0")) == (0, 1400)
    assert "26,1400" in net.router.read("/etc/dnsmasq-options.txt")

    done = run("update_interface_config.sh", SOURCE_NAT, "24", "1480", "15")
    assert (done.code, mtu(net, "eth2")) == (0, 1480), done
    net.converged()

    done = run("update_interface_config.sh", "203.0.113.99", "24", "1480", "15")
    assert done.code == 1
    assert java_reader.interface_update(*merged(done), "203.0.113.99")
    for words in (["10.31.5.1", "24", "10"], ["10.31.5.1", "24", "1400;id"], ["x", "24", "1400"], []):
        assert run("update_interface_config.sh", *words).code == 2

    net.power_cut()
    assert (mtu(net, "eth0"), mtu(net, "eth2")) == (1400, 1480)


def test_health_checks_see_and_tell(net: Isolated) -> None:
    monitor(net, virtualMachines=VM, portForwarding=FORWARD.format(SOURCE_NAT, 8080, 8080))
    assert net.router.active("holdfast-health.timer")

    found = results(net, "true")

    assert {check.name for check in found.checks if check.kind == "advanced"} == ADVANCED
    services = {"dhcp.service", "ssh.service", "webserver.service"}  # nothing is balanced: haproxy has no work
    assert {check.name for check in found.checks if check.kind == "basic"} == BASIC | services
    said = {check.name: (check.success, check.message) for check in found.checks}
    assert said.pop("router_version_check.py")[0] == "WARNING"
    assert {success for success, _ in said.values()} == {"SUCCESS"}, said
    assert (found.failing, results(net, "false")) == ([], found)

    began = max((check.at for check in found.checks), default=None)
    assert began
    since = began.strftime(java_reader.STAMP)
    monitor(net, config=None, portForwarding=FORWARD.format("203.0.113.21", 9999, 9999))
    assert results(net, "true").failing == ["iptables_check.py"]
    net.router.eventually(
        lambda: any("iptables_check.py" in text and "9999" in text for text in alerts(net).texts), "it is alerted"
    )
    assert alerts(net, alerts(net).last).texts == []
    assert since <= alerts(net).last
    net.converged()  # it looked, and did nothing else


def test_a_service_that_dies_comes_back_by_systemd_and_is_told(net: Isolated) -> None:
    monitor(net)
    net.router.shell(["systemctl", "kill", "-s", "KILL", "dnsmasq.service"])
    net.router.eventually(lambda: net.router.active("dnsmasq.service"), "dnsmasq is back")
    (dhcp,) = (check for check in results(net, "true").checks if check.name == "dhcp.service")
    assert (dhcp.success, "restarted 1 times" in dhcp.message) == ("SUCCESS", True), dhcp

    net.router.shell(["systemctl", "stop", "dnsmasq.service"])  # somebody's hand
    assert "dhcp.service" in results(net, "true").failing
    assert not net.router.active("dnsmasq.service")  # a check restarts nothing
    assert net.router.run("configure.py", "monitor_service.json").code == 0
    assert "dhcp.service" not in results(net, "true").failing

    off = {"disable_monitoring": "false", "health_checks_enabled": False, "type": "monitorservice"}
    net.command("monitor_service", off | {"config": SERVICES})
    assert not net.router.active("holdfast-health.timer")


def test_the_checks_find_everything_out_in_the_sandbox_of_their_unit(net: Isolated) -> None:
    balance(net, [Rule(SOURCE_NAT, 8088, ["10.31.5.10:80"])])
    listener = f"sourceIp={SOURCE_NAT},sourcePortStart=8088,protocol=tcp,vmIps=10.31.5.10;"
    forwarded = FORWARD.format(SOURCE_NAT, 8080, 8080)
    monitor(net, virtualMachines=VM, portForwarding=forwarded, haproxyData=listener)
    net.router.shell(["rm", "-f", "/run/holdfast/health.json"])

    started = net.router.shell(["systemctl", "start", "holdfast-health.service"])

    assert started.code == 0, net.router.journal(40)
    found = results(net, "false")
    said = {check.name: (check.success, check.message) for check in found.checks}
    services = {f"{name}.service" for name in ("dhcp", "ssh", "webserver", "loadbalancing")}
    assert said.keys() == BASIC | ADVANCED | services
    assert said.pop("router_version_check.py")[0] == "WARNING"
    assert {success for success, _ in said.values()} == {"SUCCESS"}, said
