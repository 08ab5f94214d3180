"""What a command costs: `make bench`, or `make bench ONLY=firewall-noop`; one JSON object a line.

Each figure is the median of several runs inside a lab router, beside `/usr/bin/python3 -I -c pass` in the same router
in the same minute: `ratio` is wall time against that, so figures of different machines can be compared.
"""

import json
import sys
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

sys.path[:0] = [str(Path(__file__).parents[1] / "src"), str(Path(__file__).parent)]

import guests
import vpc
from measure import RUNS, SIZES, expect, figure, measured, update

from holdfast.lab.lab import Lab
from holdfast.lab.router import Router

BOUNDS = {
    ("firewall-noop", 10_000): 25.0,
    **{("firewall-add-one", size): 30.0 for size in SIZES},
    ("bundle-guests", guests.MANY): 220.0,  # 3 s where the yardstick takes 13.6 ms
    ("guest-add-one", guests.MANY): 30.0,
}
FLATNESS = 3.0
"""A no-op at 10,000 rules may cost so many times the one at 10."""
PUBLIC_MAC, ADDRESS = "1e:00:00:00:00:03", "203.0.113.20"
LINE = (
    "template=domP name=r-1-VM type=router eth0ip=10.1.1.1 eth0mask=255.255.255.0 eth1ip=169.254.10.2 "
    "eth1mask=255.255.0.0 eth2ip=203.0.113.10 eth2mask=255.255.255.0 gateway=203.0.113.1 dns1=192.0.2.53 "
    "domain=bench.example disable_rp_filter=true\n"
)


def main(only: str) -> int:
    """Run the benchmarks; the exit status tells whether the bounds of this page hold."""
    broken = []
    with Lab("bench") as lab:
        if only in ("", *BENCHES):
            broken += run(BENCHES, only, isolated(lab))
        if only in ("", *vpc.BENCHES):
            broken += run(vpc.BENCHES, only, vpc.Vpc(lab))
        if only in ("", *guests.BENCHES):
            broken += run(guests.BENCHES, only, guests.Guests(lab))
    for text in broken:
        print(f"bound broken: {text}", file=sys.stderr)
    return 1 if broken else 0


def isolated(lab: Lab) -> Router:
    """An isolated router, booted."""
    guest, control, public = (lab.segment(name) for name in ("guest", "control", "public"))
    nics = [(guest, "1e:00:00:00:00:01"), (control, "1e:00:00:00:00:02"), (public, PUBLIC_MAC)]
    router = lab.router("r1", nics)
    router.boot()
    router.write("/var/cache/cloud/cmdline", LINE)
    expect(router.shell(["/usr/sbin/holdfast", "boot"]).code == 0, "the router boots")
    return router


def run(benches: Mapping[str, Callable[[str, Any], Iterator[dict[str, Any]]]], only: str, place: Any) -> list[str]:
    """Print the figures of these benchmarks, or of one; return the bounds that do not hold."""
    broken = []
    for name, measure in benches.items():
        for found in measure(name, place) if only in ("", name) else ():
            print(json.dumps(found), flush=True)
            bound = BOUNDS.get((name, found["size"]), float("inf"))
            if found.get("ratio", 0) > bound:
                broken.append(f"{name} at {found['size']}: {found['ratio']} > {bound}")
            if found.get("flatness", 0) > FLATNESS:
                broken.append(f"{name}: {found['flatness']} times the smallest size > {FLATNESS}")
            if found.get("rate", 1) < vpc.SETUP_RATE:
                broken.append(f"{name}: {found['rate']} of the rate through 10 rules < {vpc.SETUP_RATE}")
    return broken


def rule(number: int) -> dict[str, Any]:
    """An ingress rule unlike any other: one port from one network."""
    return {
        "id": number, "src_ip": ADDRESS, "protocol": "tcp", "src_port_range": [1 + number % 60_000] * 2,
        "revoked": False, "already_added": False, "source_cidr_list": [f"10.{number >> 8 & 255}.{number & 255}.0/24"],
        "dest_cidr_list": [], "purpose": "Firewall", "traffic_type": "Ingress", "default_egress_policy": False,
    }  # fmt: skip


def message(rules: list[dict[str, Any]]) -> bytes:
    """A firewall message as management servers send it."""
    return json.dumps({"rules": rules, "type": "firewallrules", "delete_from_processed_cache": False}).encode()


def load(router: Router, size: int) -> None:
    """Put this many rules into force, whatever was there."""
    held = [{**rule(number), "revoked": True} for number in range(1, max(SIZES) + 100)]
    drop = router.command("firewall_rules.json.drop", message(held), timeout_s=300)
    expect(drop.code == 0, f"all rules go: {drop.text[-300:]}")
    put = router.command("firewall_rules.json.load", message([rule(n) for n in range(1, size + 1)]), timeout_s=300)
    expect(put.code == 0, f"{size} rules are loaded: {put.text[-300:]}")


def firewall_noop(name: str, router: Router) -> Iterator[dict[str, Any]]:
    """The same rules again."""
    smallest = 0.0
    for size in SIZES:
        load(router, size)
        router.send(message([rule(n) for n in range(1, size + 1)]), "firewall_rules.json.same")
        rows = measured(router, [update("firewall_rules.json.same")] * (RUNS + 1))[1:]
        made = figure(name, size, rows)
        smallest = smallest or made["wall_s"]
        yield {**made, "flatness": round(made["wall_s"] / smallest, 2)}


def firewall_add_one(name: str, router: Router) -> Iterator[dict[str, Any]]:
    """One rule more, in a list with all the others."""
    for size in SIZES:
        load(router, size)
        for run in range(RUNS):
            rules = [rule(n) for n in range(1, size + 2 + run)]
            router.send(message(rules), f"firewall_rules.json.add{run}")
        rows = measured(router, [update(f"firewall_rules.json.add{run}") for run in range(RUNS)])
        yield figure(name, size, rows)


BENCHES: dict[str, Callable[[str, Router], Iterator[dict[str, Any]]]] = {
    "firewall-noop": firewall_noop,
    "firewall-add-one": firewall_add_one,
}

if __name__ == "__main__":
    sys.exit(main(sys.argv[1] if len(sys.argv) > 1 else ""))
