"""netusage.sh and vpc_netusage.sh: how much a router's tenant has sent and received."""

import getopt
import json
import re
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

from holdfast import usage_totals
from holdfast.answers.netusage import NOTHING, holder, of_all, of_nic
from holdfast.scripts import note, refuse
from holdfast.texts import is_ipv4, is_network
from holdfast.usage_table import NOTE, names

_DEVICE = re.compile(r"eth\d{1,3}", re.ASCII)
_ISOLATED = "netusage.sh -c | -g [-l IP] | -r | -a ethN | -d ethN   bytes sent:received by the public nics"
_VPC = "vpc_netusage.sh -l IP -c|-g|-r|-n|-d [-v CIDR]   bytes sent:received by the public nic with this address"


class _Table(NamedTuple):
    """Each public nic with its addresses, and whether counts outlive a reboot."""

    nics: list[tuple[str, list[str]]]
    lasting: bool


def netusage(argv: Sequence[str], root: Path = Path("/")) -> int:
    """An isolated network's router: all public nics together, or with `-l` the one that has an address."""
    verb, address, device = _options(argv, "cgrl:a:d:")
    if len(verb) != 1 or (address and (verb != "g" or not is_ipv4(address))):
        return refuse(_ISOLATED)
    if verb in "ad" and not _DEVICE.fullmatch(device):
        return refuse(_ISOLATED)
    if verb in "cad":
        return 0  # the agent counts at every public nic that there is
    return _answer("netusage.sh", verb, address, root)


def vpc_netusage(argv: Sequence[str], root: Path = Path("/")) -> int:
    """A VPC's router: the one public nic that has the address."""
    verb, address, cidr = _options(argv, "cgrndl:v:")
    if len(verb) != 1 or not is_ipv4(address) or (cidr and not is_network(cidr)):
        return refuse(_VPC)
    if verb in "cdn":
        return 0  # what a tunnel carries is not reported, and what is counted follows the addresses
    return _answer("vpc_netusage.sh", verb, address, root)


def _options(argv: Sequence[str], known: str) -> tuple[str, str, str]:
    """The verbs together, the address, and the other value; no verb if there is anything else."""
    try:
        pairs, rest = getopt.getopt(list(argv), known)
    except getopt.GetoptError:
        return "", "", ""
    given = dict(pairs)
    if rest or len(given) != len(pairs):
        return "", "", ""
    verb = "".join(name[1] for name in given if name not in ("-l", "-v"))
    return verb, given.pop("-l", ""), next(filter(None, given.values()), "")


def _answer(script: str, verb: str, address: str, root: Path) -> int:
    """Print, or reset.  Of what cannot be told nothing is printed: a reader would take a word for a number."""
    try:
        with usage_totals.locked(root):
            sys.stdout.write(_get(address, root) if verb == "g" else _reset(address, root))
    except (OSError, ValueError, LookupError, TypeError) as error:
        note(script, str(error))
        return 1
    return 0


def _table(root: Path) -> _Table:
    held = json.loads((root / "run/holdfast/marks" / NOTE).read_bytes())["usage"]
    if held is None:
        return _Table([], lasting=False)  # a router without a public nic
    return _Table([(counted["nic"], counted["addresses"]) for counted in held["nics"]], held["lasting"])


def _get(address: str, root: Path) -> str:
    table = _table(root)
    nic = holder(table.nics, address) if address else ""
    if not table.nics or (address and not nic):
        return NOTHING
    counters = usage_totals.read_counters()
    if not counters:
        raise OSError("nothing is counted: the table is gone")
    # What is told is written down first: what is told later, also after a power cut, is never less.
    usage_totals.save(root, counters, lasting=table.lasting)
    return of_nic(counters, nic) if nic else of_all(counters)


def _reset(address: str, root: Path) -> str:
    table = _table(root)
    counters = usage_totals.read_counters()
    nic = holder(table.nics, address) if address else ""
    gone = set(names(nic)) if nic else set() if address else set(counters)
    # In this order a power cut in between has reset, and an end of this process has not.
    usage_totals.save(root, {n: c for n, c in counters.items() if n not in gone}, lasting=table.lasting)
    usage_totals.reset(gone & counters.keys())
    return NOTHING
