"""What the management server makes of what scripts print: its readers' rules, written anew from the wire reference."""

import json
import re
from datetime import datetime
from typing import Any, NamedTuple

STAMP = "%Y-%m-%d %H:%M:%S"


class Unreadable(ValueError):
    """The reader would fail here, or take the answer for none."""


def _split(text: str, separator: str) -> list[str]:
    """Java's split: empty words at the end are dropped."""
    words = text.split(separator)
    while len(words) > 1 and not words[-1]:
        words.pop()
    return words


def pairs(output: str) -> tuple[int, int]:
    """Counters: the first line alone, split at colons, read as pairs of sent and received, added up."""
    words = _split(output.split("\n", 1)[0], ":")
    sent = received = 0
    for at in range(0, len(words) - 1, 2):
        if not re.fullmatch(r"[+-]?\d+", words[at]) or not re.fullmatch(r"[+-]?\d+", words[at + 1]):
            raise Unreadable(f"no number: {words[at : at + 2]}")
        sent, received = sent + int(words[at]), received + int(words[at + 1])
    return sent, received


def version(code: int, output: str) -> tuple[str, str]:
    """get_template_version.sh: template and scripts, exactly two words around one `&`."""
    words = _split(output, "&")
    if code or len(words) != 2:
        raise Unreadable(output)
    return words[0], words[1]


class Alerts(NamedTuple):
    """What was read: the alerts, and the time from which the next question asks on."""

    texts: list[str]
    last: str


def alerts(code: int, output: str) -> Alerts:
    """getRouterAlerts.sh: alerts joined by backslash and n; the time is the first comma field of the last."""
    text = output.strip()
    if code:
        raise Unreadable(output)
    if not text or text == "No Alerts":
        return Alerts([], "")
    found = _split(text, "\\n")
    last = found[-1].split(",")[0]
    try:
        datetime.strptime(last, STAMP)  # noqa: DTZ007 the reader's has no zone either
    except ValueError as error:
        raise Unreadable(last) from error
    return Alerts(found, last)


class Check(NamedTuple):
    """One check as it is shown to an administrator."""

    kind: str
    name: str
    success: str
    at: datetime
    message: str


class Results(NamedTuple):
    """Names of checks that fail, and all results."""

    failing: list[str]
    checks: list[Check]


def monitor_results(code: int, output: str) -> Results:
    """getRouterMonitorResults.sh: names after one marker, JSON after the other; what does not parse is skipped."""
    if code or not output.strip():
        raise Unreadable(output)
    failing: list[str] = []
    document, section = "", ""
    for line in output.splitlines():
        if "FAILING CHECKS" in line:
            section = "failing"
        elif "MONITOR RESULTS" in line:
            section = "results"
        elif section == "failing":
            failing += [name for name in _split(line, ",") if name.strip()]
        elif section == "results":
            document += line.strip()
    checks = []
    for kind, held in json.loads(document or "{}").items():
        for name, fields in held.items():
            if name != "lastRun" and (check := _check(kind, name, fields)):
                checks.append(check)
    return Results(failing, checks)


def _check(kind: str, name: str, fields: Any) -> Check | None:
    """All inner values are read as text."""
    if not isinstance(fields, dict) or not all(isinstance(value, str) for value in fields.values()):
        return None
    if not fields.get("lastUpdate", "").isdigit() or fields.get("success") not in _SUCCESS:
        return None
    at = datetime.fromtimestamp(int(fields["lastUpdate"]) / 1000)  # noqa: DTZ006 as the reader does
    float(fields["lastRunDuration"])
    return Check(kind, name, fields["success"], at, fields["message"])


_SUCCESS = ("SUCCESS", "FAILED", "WARNING", "UNKNOWN", "true", "false")


def file_system(code: int, output: str) -> str:
    """filesystem_writable_check.py: empty if all is well, else the reason that is shown."""
    if code == 0:
        return ""
    return "Read-only file system" if "Read-only file system" in output else output


def diagnostics(code: int, output: str) -> tuple[str, str, str]:
    """diagnostics.py: at least three words around `&&`: what was printed, complaints, exit status."""
    words = _split(output, "&&")
    if code or len(words) < 3:
        raise Unreadable(output)
    return words[0].strip(), words[1].strip(), words[2].strip()


def archive(code: int, output: str) -> str:
    """get_diagnostics_files.py: the archive's path, line breaks stripped."""
    if code:
        raise Unreadable(output)
    return output.replace("\n", "")


def interface_update(code: int, output: str, address: str, *, primary: bool = True) -> bool:
    """update_interface_config.sh: whether the command goes on."""
    return code == 0 or f"Interface with IP {address} not found" in output or not primary


def succeeded(code: int, output: str) -> str:
    """Scripts of which the exit status alone counts: their text, which becomes the details."""
    if code:
        raise Unreadable(output)
    return output


def usage(code: int, output: str) -> tuple[int, int]:
    """netusage.sh and vpc_netusage.sh `-g`, `-n`: counters; of a script that fails there is no result."""
    if code:
        raise Unreadable(output)
    return pairs(output)


def connections(code: int, output: str) -> int:
    """get_haproxy_stats.sh: the first line's first comma field is a number; of a script that fails there is none."""
    first = output.partition("\n")[0].partition(",")[0]
    if code or not re.fullmatch(r"[+-]?\d+", first):
        raise Unreadable(output)
    return int(first)


def role(code: int, output: str, *, older: bool = False) -> str:
    """checkrouter.sh: what the text begins with; any other text is a success that tells nothing, none is a failure."""
    if code or not output.strip():
        raise Unreadable(output)
    serves = "MASTER" if older else "PRIMARY"
    return next((word for word in (serves, "BACKUP", "FAULT") if output.startswith(f"Status: {word}")), "UNKNOWN")


class Tunnel(NamedTuple):
    """Whether a site-to-site tunnel is up, and what is said of it."""

    up: bool
    detail: str


def tunnels(code: int, output: str) -> dict[str, Tunnel]:
    """checkbatchs2svpn.sh: tunnels by peer; the first item that has not three parts ends the reading."""
    if code:
        raise Unreadable(output)
    found: dict[str, Tunnel] = {}
    for item in _split(output, "&"):
        words = _split(item, ":")
        if len(words) != 3:
            break
        found[words[0]] = Tunnel(words[1] == "0", words[2])
    return found


def request(output: str) -> str:
    """keystore-setup: all of it is the certificate request, whatever the exit status."""
    if not output.strip():
        raise Unreadable("empty")
    return output
