"""A router as CloudStack's own agent leaves it: its bags, its rules as iptables' nf_tables back end writes them, its
policy routing, and what it has running and lying about.  Made by hand, since that agent is no part of this project.
"""

from collections.abc import Mapping

import legacy_bags as old
from holdfast.lab.process import Result
from holdfast.lab.router import Router

BAGS, COSMIC_BAGS = "/etc/cloudstack", "/etc/cosmic/router"
UNITS = ("cloud-early-config.service", "holdfast-closed.service")
"""What makes Holdfast act at a boot."""


def sh(router: Router, script: str) -> str:
    """Run lines inside that all have to succeed; return what they printed."""
    done = router.shell(["/bin/sh", "-eu"], stdin=script.encode())
    assert done.code == 0, f"{script}\n{done.text}{done.errors}"
    return done.text


def adopt(router: Router, *words: str) -> Result:
    """Adopt as an operator does."""
    return router.shell(["/usr/sbin/holdfast", "adopt", *words], timeout_s=120)


def boots_alone(router: Router) -> None:
    """Let it start without Holdfast: nothing of ours is in force."""
    for unit in UNITS:
        sh(router, f"find /etc/systemd/system -path '*.wants/{unit}' -delete")
    router.boot()
    assert not sh(router, "nft list tables")


def with_bags(router: Router, bags: Mapping[str, old.Json], age: str) -> None:
    """Put the bags where an agent of that age has them, for everybody to read."""
    place = COSMIC_BAGS if age == "cosmic" else BAGS
    sh(router, f"mkdir -p {place}")
    for name, text in old.written(dict(bags)).items():
        router.write(f"{place}/{name}.json", text)


def number(age: str, nic: int) -> int:
    """Mark and table of a nic: N in 4.6, 100 + N since."""
    return nic if age == "4.6.1" else 100 + nic


def public(  # noqa: PLR0913, PLR0917 what a nic's routing is made of
    router: Router, age: str, nic: int, network: str, gateway: str, inner: str
) -> None:
    """Policy routing of one public nic."""
    table = number(age, nic)
    sh(
        router,
        f"""
        mkdir -p /etc/iproute2
        echo '{table} Table_eth{nic}' >> /etc/iproute2/rt_tables
        ip rule add fwmark {table} table {table}
        ip rule add from {network} table {table}
        ip route add default via {gateway} dev eth{nic} table {table}
        ip route add throw {inner} table {table}
        ip route add throw {network} table {table}
        """,
    )


def leftovers(router: Router) -> None:
    """What runs and lies about."""
    router.write("/etc/cron.d/heartbeat", "*/1 * * * * root /ramdisk/rrouter/check_heartbeat.sh\n")
    router.write("/etc/cron.d/other", "0 4 * * * root /bin/true\n")
    router.write("/etc/udev/rules.d/cloud-nic.rules", 'SUBSYSTEM=="net", RUN+="/opt/cloud/bin/cloud-nic.sh %k"\n')
    router.write("/usr/lib/systemd/system/apache2.service", "[Service]\nExecStart=/bin/sleep 86400\n")
    router.write("/opt/cloud/bin/passwd_server_ip.py", "import time\ntime.sleep(86400)\n")
    sh(
        router,
        """
        systemctl daemon-reload
        systemctl start apache2.service
        systemd-run --quiet /usr/bin/python3 /opt/cloud/bin/passwd_server_ip.py 10.31.5.1
        """,
    )


def nothing_of_theirs(router: Router) -> None:
    """Ours is the only hand: tables, rules, routes, units, programs, cron."""
    tables = sh(router, "nft list tables").split("\n")
    ours = {f"table inet holdfast{part}" for part in ("", "_adopted", "_usage")}
    assert {line for line in tables if line} == ours
    rules = [line.split(":")[0] for line in sh(router, "ip rule").splitlines()]
    assert [one for one in rules if one not in ("0", "32766", "32767") and not 1000 <= int(one) < 2000] == []
    routes = sh(router, "ip -N route show table all").splitlines()
    assert [line for line in routes if "proto 3" in line or "proto 4" in line] == []
    assert "Table_eth" not in sh(router, "cat /etc/iproute2/rt_tables")
    assert sh(router, "ls /etc/cron.d").split().count("heartbeat") == 0
    assert "other" in sh(router, "ls /etc/cron.d")
    assert "cloud-nic.rules" not in sh(router, "ls /etc/udev/rules.d")
    assert not router.active("apache2.service")
    assert sh(router, "readlink -f /etc/systemd/system/apache2.service").strip() == "/dev/null"
    assert "passwd_server" not in sh(router, "cat /proc/[0-9]*/cmdline | tr '\\0' ' '").replace("cat /proc", "")
    kept = sh(router, f"ls -A {BAGS}/legacy; stat -c %a {BAGS}/legacy")
    assert "firewall.nft" in kept
    assert "unfinished" not in kept
    assert kept.strip().endswith("700")
