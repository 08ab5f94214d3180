"""How a command is measured: from inside the router, beside the same interpreter doing nothing."""

import json
import statistics
from typing import Any

from holdfast.lab.router import Router

RUNS = 7
SIZES = (10, 100, 1_000, 10_000)

# Measures commands from inside the router: its own start must not count.
TIMER = """
import json, os, resource, subprocess, sys, time
out = []
for argv in json.loads(sys.stdin.read()):
    pids = int(open("/proc/sys/kernel/ns_last_pid").read())
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    began = time.perf_counter()
    done = subprocess.run(argv, capture_output=True, text=True)
    wall = time.perf_counter() - began
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    children = int(open("/proc/sys/kernel/ns_last_pid").read()) - pids - 1
    cpu = after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime
    out.append([wall, cpu, children, done.returncode, done.stdout[-400:] + done.stderr[-400:]])
print(json.dumps(out))
"""
YARDSTICK = ["/usr/bin/python3", "-I", "-c", "pass"]


def expect(*claims: Any) -> None:
    """Stop when something that the figures rest on is not so."""
    for truth, sentence in zip(claims[::2], claims[1::2], strict=True):
        if not truth:
            raise SystemExit(f"not so: {sentence}")


def measured(router: Router, commands: list[list[str]]) -> list[tuple[float, float, int, float]]:
    """Wall and CPU seconds, children, and wall of the yardstick run right beside, for each command."""
    pairs = [argv for command in commands for argv in (YARDSTICK, command)]
    told = router.shell(["/usr/bin/python3", "-I", "-c", TIMER], stdin=json.dumps(pairs).encode(), timeout_s=600)
    expect(told.code == 0, told.text[-500:])
    rows = json.loads(told.text)
    for row in rows:
        expect(row[3] == 0, f"every command succeeds: {row[4]}")
    return [(row[0], row[1], row[2], yard[0]) for yard, row in zip(rows[::2], rows[1::2], strict=True)]


def figure(name: str, size: int, rows: list[tuple[float, float, int, float]]) -> dict[str, Any]:
    """Medians."""
    wall, cpu, children, yard = (statistics.median(column) for column in zip(*rows, strict=True))
    return {
        "bench": name, "size": size, "wall_s": round(wall, 4), "cpu_s": round(cpu, 4), "children": children,
        "ratio": round(wall / yard, 1),
    }  # fmt: skip


def update(name: str) -> list[str]:
    """The command of a management server."""
    return ["/opt/cloud/bin/update_config.py", name]
