"""What get_haproxy_stats.sh prints: how busy the servers of one listener are.  Pure.

One reader takes the first comma field for the current connections, the other takes the whole for the average number of
sessions of the servers that are up.  One integer without a comma satisfies both, and it is the average: that is the
load that decides whether a group of servers grows or shrinks.
"""


class NoListenerError(LookupError):
    """haproxy serves nothing at this address and port: there is no number that would be true."""


def average_sessions(table: str, address: str, port: int) -> str:
    """From haproxy's `show stat`: current sessions by server that is up, rounded down; 0 if none is up.

    NoListenerError if there is no such listener, ValueError if the table cannot be read.
    """
    lines = table.strip().splitlines()
    if not lines or not lines[0].startswith("# "):
        raise ValueError("haproxy's table has no head")
    head = lines[0].removeprefix("# ").split(",")
    rows = [dict(zip(head, line.split(","), strict=False)) for line in lines[1:]]
    name = f"{address.replace('.', '_')}-{port}"
    mine = [row for row in rows if row.get("pxname") == name]
    if not mine:
        raise NoListenerError(f"there is no listener at {address}:{port}")
    servers = [row for row in mine if row["svname"] not in ("FRONTEND", "BACKEND")]
    up = [int(row["scur"]) for row in servers if row["status"].startswith(("UP", "no check"))]
    return str(sum(up) // len(up)) if up else "0"
