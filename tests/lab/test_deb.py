"""The package on a router that has never seen Holdfast: installed, started, upgraded, taken back, removed, purged."""

import contextlib
import importlib
import re
import threading
import time
from base64 import b64encode
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType
from typing import NamedTuple

import pytest
from packaged import ROOT, Make, bare_disks
from replay import BOOT_LINE, Site, egress_default, firewall, ingress, ips, said, site, vm

from holdfast import outside
from holdfast.lab.process import Result, must
from holdfast.lab.world import Management

pytestmark = [pytest.mark.lab, pytest.mark.appliance]

COMMAND = "/usr/sbin/holdfast"
CONTROL = "169.254.216.73"
KEYS = "/etc/ssh/holdfast_keys"
LOGIN = 'command="exec /opt/holdfast/libexec/holdfast-login" '
GUEST_CHANGED = {"guest/http.py": "\n# another\n"}
GHOST = """

def _ghost(bag: None, router: Router) -> Iterator[Claim]:
    yield from contribute(bag, router)
    yield Claim("ghost", Service("ghost.service", wanted=True))


FEATURE = Feature("clock", (), None, None, _ghost)
"""
"""A service that no machine has: nothing is as wanted where this is in force."""
HAPROXYS_OWN = "/etc/haproxy/haproxy.cfg"
OURS = (
    "/opt/holdfast", "/opt/cloud", "/usr/sbin/holdfast", "/etc/cloudstack", "/var/lib/holdfast",
    "/var/lib/holdfast-guest", "/var/log/routerServiceMonitor.log", "/var/log/holdfast-answers.log",
    "/etc/ssh/sshd_config.d/holdfast.conf",
    "/usr/lib/sysusers.d/holdfast.conf", "/usr/lib/tmpfiles.d/holdfast.conf", "/lib/systemd/system/dnsmasq.service",
)  # fmt: skip
VPN = {
    "create": True, "vpn_server_ip": "203.0.113.10", "ip_range": "10.9.2.2-10.9.2.8", "preshared_key": "for everybody",
    "local_ip": "10.9.2.1", "local_cidr": "10.1.1.0/24", "public_interface": "eth2", "type": "remoteaccessvpn",
}  # fmt: skip
STEERED = (
    "dnsmasq.service", "holdfast-agent.service", "holdfast-guest.service", "holdfast-guest.socket",
    "holdfast-role.path", "strongswan.service", "xl2tpd.service",
)  # fmt: skip
"""What runs on this router because Holdfast wants it."""


class Bare(NamedTuple):
    """A router with Debian alone on its disk, and what makes packages.

    `key` is the management server's, `mgmt` where it logs in from.
    """

    site: Site
    make: Make
    mgmt: Management
    key: Path

    @property
    def line(self) -> str:
        """Its boot line, with the server's key."""
        encoded = b64encode(self.key.with_suffix(".pub").read_bytes()).decode()
        return f"{BOOT_LINE.strip()} authorized_key={encoded}\n"

    def ssh(self, *words: str) -> Result:
        """Log in as the management server does, and run something."""
        own = ("ssh", "-F", "none", "-p", "3922", "-i", str(self.key), "-oStrictHostKeyChecking=no", "-oBatchMode=yes")
        known = ("-oUserKnownHostsFile=/dev/null", "-oConnectTimeout=5", "-oLogLevel=ERROR")
        return self.mgmt.run([*own, *known, f"root@{CONTROL}", *words], timeout_s=30)

    def install(self, version: str, changed: dict[str, str] | None = None) -> Result:
        """Make a package, put it on the router and install it, without a network."""
        return self.unpack(self.bring(version, changed))

    def bring(self, version: str, changed: dict[str, str] | None = None) -> str:
        """Make a package and put it on the router; return where it is there."""
        package = self.make(version, changed or {})
        self.site.router.write(f"/root/{package.name}", package.read_bytes())
        return f"/root/{package.name}"

    def unpack(self, path: str) -> Result:
        """Install what lies on the router."""
        return self.site.router.shell(["dpkg", "--install", path], timeout_s=120)

    def version(self) -> str:
        """Which tree is in use, without its digest."""
        return (self.site.path("/opt/holdfast") / "current").readlink().name.rpartition("-")[0]

    def wanted(self) -> str:
        """What `status` says below its first line."""
        done = self.site.router.shell([COMMAND, "status"])
        assert done.code == 0, said(done)
        return done.text.partition("\n")[2]

    def invocations(self) -> dict[str, str]:
        """Which run of each service this is."""
        return {name: unit["InvocationID"] for name, unit in self.site.units().items()}


@pytest.fixture(scope="module")
def bare(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Bare]:
    home = tmp_path_factory.mktemp("packages")
    with bare_disks(home) as make:
        key = home / "id"
        must(["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", str(key)])
        with site("deb") as made:
            yield Bare(made, make, made.lab.mgmt(made.lab.segment("control"), "169.254.0.1/16"), key)


@pytest.fixture(scope="module")
def installed(bare: Bare) -> Bare:
    """Installed while it runs, as on an image that is being made; then started as a router."""
    router = bare.site.router
    router.boot()
    assert router.shell(["systemctl", "enable", "--quiet", "haproxy.service"]).code == 0  # as Debian leaves it
    before = router.shell(["nft", "list", "ruleset"]).text
    done = bare.install("1.0-1")
    assert done.code == 0, said(done)
    assert router.shell(["nft", "list", "ruleset"]).text == before, "installing closes nothing"
    router.write("/var/cache/cloud/cmdline", bare.line)
    router.power_cut()
    router.boot()
    return bare


def test_it_comes_up_as_the_router_that_its_boot_line_names(installed: Bare) -> None:
    router = installed.site.router

    assert installed.version() == "1.0-1"
    assert installed.wanted() == "everything is as wanted\n"
    assert router.run("checkrouter.sh").text == "Status: PRIMARY\n"
    assert router.shell(["systemctl", "--failed", "--no-legend", "--plain"]).text == ""
    verified = router.shell(["dpkg", "--verify", "holdfast"]).text.splitlines()
    assert [line for line in verified if "/usr/share/" not in line] == [], "the lab's disk keeps no documents"


def test_nobody_starts_the_daemons_but_the_agent(installed: Bare) -> None:
    names = ("haproxy", "keepalived", "conntrackd", "ssh")
    told = installed.site.router.shell(["systemctl", "is-enabled", *names]).text.split()

    assert told == ["disabled"] * len(names)
    assert installed.site.router.active("ssh.service")
    assert not installed.site.router.active("haproxy.service")


def test_it_takes_what_a_management_server_says(installed: Bare) -> None:
    site = installed.site
    for payload in (ips("203.0.113.10", "203.0.113.11"), firewall(egress_default()), firewall(ingress(1, 80)), vm(1)):
        done = site.tell(payload)
        assert done.code == 0, said(done)

    assert "203.0.113.11 . 6 . 0.0.0.0/0 . 80" in site.holds("ingress_port")
    assert site.router.active("dnsmasq.service")
    assert site.router.active("holdfast-guest.service")
    assert installed.wanted() == "everything is as wanted\n"


@contextlib.contextmanager
def commands(bare: Bare) -> Iterator[list[Result]]:
    """Commands as a management server gives them, one after the other, as long as this lasts; what came of them."""
    ended: list[Result] = []
    over = threading.Event()

    def give() -> None:
        while not over.is_set():
            ended.append(bare.site.router.run("configure.py"))

    giver = threading.Thread(target=give)
    giver.start()
    try:
        yield ended
    finally:
        over.set()
        giver.join()


def test_an_upgrade_that_changes_nothing_restarts_nothing(installed: Bare) -> None:
    store, state, runs = installed.site.store(), installed.site.state(), installed.invocations()

    with commands(installed) as ended:
        done = installed.install("1.1-1")

    assert done.code == 0, said(done)
    assert [result for result in ended if result.code] == [], "commands go on meanwhile"
    assert len(ended) > 3
    assert "wants what 1.0-1" in done.text
    assert installed.version() == "1.1-1"
    assert installed.site.store() == store
    assert installed.site.state() == state
    assert installed.invocations() == runs


def test_an_upgrade_restarts_what_has_changed(installed: Bare) -> None:
    store, runs = installed.site.store(), installed.invocations()

    done = installed.install("1.2-1", GUEST_CHANGED)

    assert done.code == 0, said(done)
    now = installed.invocations()
    assert {name for name in now if now[name] != runs[name]} == {"holdfast-guest.service"}
    assert installed.site.store() == store
    assert installed.wanted() == "everything is as wanted\n"
    kept = {path.name.rpartition("-")[0] for path in installed.site.path("/opt/holdfast/versions").iterdir()}
    assert kept == {"1.1-1", "1.2-1"}


@pytest.mark.parametrize(
    ("version", "broken", "why"),
    [
        ("1.3-1", {"desired.py": "\nraise RuntimeError\n"}, "RuntimeError"),
        ("1.3-2", {"config.py": "\nload = None\n"}, "1.3-2-[0-9a-f]{8} cannot say what it makes of what is stored"),
    ],
)
def test_a_version_that_cannot_read_what_is_stored_is_never_used(
    installed: Bare, version: str, broken: dict[str, str], why: str
) -> None:
    done = installed.install(version, broken)

    assert done.code == 1, said(done)
    assert re.search(why, done.errors), done.errors
    assert installed.version() == "1.2-1"
    assert installed.wanted() == "everything is as wanted\n"


def test_a_version_under_which_the_router_is_not_right_is_left_again(installed: Bare) -> None:
    runs, store = installed.invocations(), installed.site.store()

    done = installed.install("1.4-1", {"features/clock.py": GHOST, **GUEST_CHANGED})

    assert done.code == 1, said(done)
    assert "+ Unit ghost.service" in done.text
    assert "1.2-1" in done.errors.partition("Unit ghost.service")[2]
    assert installed.version() == "1.2-1"
    assert installed.wanted() == "everything is as wanted\n"
    assert (installed.invocations(), installed.site.store()) == (runs, store)


def test_a_version_that_is_left_takes_its_programs_and_units_with_it(installed: Bare) -> None:
    router, system = installed.site.router, ROOT / "system"
    before = _outside(installed)
    unit = (system / "holdfast-health.timer").read_text()
    told = (system / "bin/checkrouter.sh").read_text()
    newer = {
        "system/bin/checkrouter.sh": told.replace("from holdfast.role_report", "from holdfast.moved_here"),
        "moved_here.py": (ROOT / "src/holdfast/role_report.py").read_text(),
        "system/bin/newer.sh": told,
        "system/bin/bumpup_priority.sh": "",
        "system/holdfast-health.timer": unit.replace("Description=", "Description=Newer: "),
        "system/holdfast-newer.timer": unit,
        "features/clock.py": GHOST,
    }

    done = installed.install("1.4-2", newer)

    assert done.code == 1, said(done)
    assert "moved_here" in (installed.site.path("/opt/holdfast/package/bin/checkrouter.sh")).read_text()
    assert _outside(installed) == before
    assert router.run("checkrouter.sh").text == "Status: PRIMARY\n"
    assert router.run("bumpup_priority.sh").code == 0
    assert "Newer" not in router.shell(["systemctl", "show", "-P", "Description", "holdfast-health.timer"]).text
    assert router.shell(["systemctl", "show", "-P", "LoadState", "holdfast-newer.timer"]).text == "not-found\n"
    assert installed.wanted() == "everything is as wanted\n"

    done = router.shell(["dpkg", "--configure", "holdfast"], timeout_s=120)  # as `apt-get -f install` does it

    assert done.code == 1, said(done)
    assert _outside(installed) == before
    installed.site.router.power_cut()
    installed.site.router.boot()
    assert installed.wanted() == "everything is as wanted\n"


def test_a_power_cut_on_the_way_back_leaves_no_unit_of_the_other_version(installed: Bare) -> None:
    """Between the link, which is back already, and the units, which are not."""
    site, unit = installed.site, "/usr/lib/systemd/system/holdfast-health.timer"
    before = _outside(installed)
    site.path(unit).write_text(site.path(unit).read_text().replace("Description=", "Description=Newer: "))
    link = site.path("/opt/cloud/bin/checkrouter.sh")
    link.unlink()
    link.symlink_to("../../holdfast/current/bin/newer.sh")
    site.path("/opt/holdfast/unsettled").touch()
    site.router.power_cut()

    site.router.boot()

    assert _outside(installed) == before
    assert not site.path("/opt/holdfast/unsettled").exists()
    assert "Newer" not in site.router.shell(["systemctl", "show", "-P", "Description", "holdfast-health.timer"]).text
    assert site.router.shell(["systemctl", "--failed", "--no-legend", "--plain"]).text == ""
    assert site.router.run("checkrouter.sh").text == "Status: PRIMARY\n"
    site.router.power_cut()
    site.router.boot()
    settled = ["systemctl", "show", "-P", "ConditionResult", "holdfast-settle.service"]
    assert site.router.shell(settled).text == "no\n", "it is for power cuts alone"


def _differs(bare: Bare) -> list[str]:
    """What of the version in use is not as it has it, outside its tree."""
    tree = bare.site.path("/opt/holdfast") / bare.site.path("/opt/holdfast/current").readlink()
    root = bare.site.path("/")
    return [path for path, thing in outside.held(tree).items() if outside.there(root / path) != thing]


def _outside(bare: Bare) -> dict[str, str]:
    """What of a version lies outside its tree: programs by their links, units by their texts."""
    cloud, units = bare.site.path("/opt/cloud/bin"), bare.site.path("/usr/lib/systemd/system")
    ours = [*cloud.iterdir(), *units.rglob("holdfast*"), units / "cloud-early-config.service"]
    return {str(path): str(path.readlink()) if path.is_symlink() else path.read_text() for path in ours}


def test_the_next_version_mends_it_and_lasts(installed: Bare) -> None:
    store = installed.site.store()

    done = installed.install("1.5-1")

    assert done.code == 0, said(done)
    assert installed.site.router.shell(["dpkg", "--audit"]).text == ""
    installed.site.router.power_cut()
    installed.site.router.boot()
    assert installed.version() == "1.5-1"
    assert installed.site.store()["current"] == store["current"]
    assert installed.wanted() == "everything is as wanted\n"


@pytest.mark.parametrize("moment_s", [0.1, 0.4, 0.8, 1.2])
def test_a_power_cut_amid_an_upgrade_leaves_one_version_or_the_other(installed: Bare, moment_s: float) -> None:
    before, version = installed.version(), f"1.6-{moment_s}"
    store = installed.site.store()["current"]
    path = installed.bring(version)
    upgrade = threading.Thread(target=installed.unpack, args=(path,))
    upgrade.start()
    time.sleep(moment_s)
    installed.site.router.power_cut()
    upgrade.join()

    installed.site.router.boot()

    assert installed.version() in {before, version}
    assert _differs(installed) == []
    assert installed.wanted() == "everything is as wanted\n"
    assert installed.site.store()["current"] == store
    done = installed.unpack(path)
    assert (done.code, installed.version()) == (0, version), said(done)
    assert installed.site.router.shell(["dpkg", "--audit"]).text == ""


def test_a_removal_ends_what_it_steers_and_the_server_still_gets_in(installed: Bare) -> None:
    site, router = installed.site, installed.site.router
    told = site.tell(VPN, "remote_access_vpn.json.1")
    assert told.code == 0, said(told)
    assert [name for name in STEERED if not router.active(name)] == []
    assert site.path(KEYS).read_text().count(LOGIN) == 1
    before, store = installed.ssh("echo in"), site.store()["current"]
    assert (before.code, before.text) == (0, "in\n"), said(before)

    done = router.shell(["dpkg", "--remove", "holdfast"], timeout_s=120)

    assert done.code == 0, said(done)
    assert [name for name in STEERED if router.active(name)] == []
    assert router.shell(["systemctl", "--failed", "--no-legend", "--plain"]).text == ""
    assert not site.path("/opt/holdfast").exists()
    assert site.path("/etc/cloudstack/generations").is_dir()
    assert "table inet holdfast" in router.shell(["nft", "list", "ruleset"]).text
    assert "/opt/holdfast" not in site.path(KEYS).read_text()
    assert f"{site.path(KEYS).stat().st_mode & 0o777:o}" == "600"
    after = installed.ssh("echo in; exit 7")
    assert (after.code, after.text) == (7, "in\n"), said(after)

    done = installed.install("1.7-1")
    assert done.code == 0, said(done)
    done = router.shell([COMMAND, "converge"])
    assert done.code == 0, said(done)
    # The lab's kernel has no PPP for the users of the remote access.
    assert [line for line in installed.wanted().splitlines() if " waits for PPP " not in line] == []
    assert site.path(KEYS).read_text().count(LOGIN) == 1
    assert installed.ssh("echo in").text == "in\n"
    assert site.store()["current"] == store
    assert router.active("strongswan.service")


def test_a_purge_leaves_nothing(installed: Bare) -> None:
    site, router = installed.site, installed.site.router
    written = site.manifest()
    before = site.path("/var/lib/holdfast/before")
    others = {f"/{path.relative_to(before)}": path.read_bytes() for path in before.glob("etc/**/*") if path.is_file()}

    done = router.shell(["dpkg", "--purge", "holdfast"], timeout_s=120)

    assert (done.code, done.errors) == (0, "")
    assert [path for path in OURS if site.path(path).exists() or site.path(path).is_symlink()] == []
    assert [path for path in written if path not in others and site.path(path).exists()] == []
    assert {path: site.path(path).read_bytes() for path in others} == others
    assert site.path("/etc/hosts").read_text() == "127.0.0.1 localhost\n"
    assert site.path("/etc/hostname").read_text() == "r1\n"
    assert "global" in site.path(HAPROXYS_OWN).read_text()
    assert router.shell(["systemctl", "is-enabled", "haproxy.service"]).text.strip() == "enabled"
    found = router.shell(["find", "/etc", "/usr/lib", "/var/lib/systemd", "-iname", "*holdfast*"]).text
    assert found == ""
    assert router.shell(["find", "/run/holdfast"]).text == ""


def test_what_has_never_started_is_removed_again(installed: Bare) -> None:
    done = installed.install("1.8-1")
    assert done.code == 0, said(done)

    done = installed.site.router.shell(["dpkg", "--purge", "holdfast"], timeout_s=120)

    assert done.code == 0, said(done)
    assert [path for path in OURS if installed.site.path(path).exists()] == []


def test_it_is_installed_on_a_disk_that_nothing_runs_on(installed: Bare) -> None:
    router = installed.site.router
    router.power_cut()

    done = installed.install("2.0-1")

    assert done.code == 0, said(done)
    assert installed.version() == "2.0-1"
    router.write("/var/cache/cloud/cmdline", installed.line)
    router.boot()
    assert installed.wanted() == "everything is as wanted\n"
    assert router.shell(["systemctl", "is-enabled", "haproxy.service"]).text.strip() == "disabled"


def test_every_architecture_is_made_for_itself(tmp_path: Path, bare: Bare) -> None:
    assert bare
    build: ModuleType = importlib.import_module("build")
    control: ModuleType = importlib.import_module("control")
    machines = {"amd64": 62, "arm64": 183}  # e_machine of elf(5)
    for architecture, number in machines.items():
        package = control.Package(architecture, "1.0-1")
        one, other = (build.build(package, tmp_path / name, 1700000000) for name in ("one", "other"))
        assert one.read_bytes() == other.read_bytes()
        must(["dpkg-deb", "--extract", str(one), str(tmp_path / architecture)])
        (library,) = (tmp_path / architecture / "opt/holdfast/package/lib/msgspec").glob("_core*.so")
        assert int.from_bytes(library.read_bytes()[18:20], "little") == number
        assert f"Architecture: {architecture}" in must(["dpkg-deb", "--field", str(one)])
