"""Counting what goes out and comes in by each public nic: the table, and what its counters mean.  Pure."""

from collections.abc import Iterable, Iterator, Mapping

from msgspec import Struct

from holdfast.state import Resource
from holdfast.usage_table import TABLE, Count, names


class Counted(Struct, frozen=True):
    """A public nic: `nic` names its counters (its MAC, or ethN where none is known), `device` is what it is called now,
    `addresses` are those that it has.
    """

    nic: str
    device: str
    addresses: tuple[str, ...] = ()


class Usage(Resource, frozen=True):
    """What is counted: `nics`, and the devices that guests are on.  `lasting`: the counts outlive a reboot."""

    identity = ()
    nics: tuple[Counted, ...]
    inside: tuple[str, ...]
    lasting: bool = False


def program(usage: Usage, there: Iterable[str], seeds: Mapping[str, Count]) -> str:
    """The transaction that makes the table count so.  What is in `there` goes on counting, whatever it has counted.

    New counters begin with what `seeds` says.  Those of nics that have left stay: what they counted was used.
    """
    table, known = f"inet {TABLE}", set(there)
    wanted = [name for counted in usage.nics for name in names(counted.nic)]
    lines = [f"add table {table}", f"add set {table} inside {{ type ifname; }}", f"flush set {table} inside"]
    for name in dict.fromkeys([*wanted, *seeds]):
        if name not in known:
            count = seeds.get(name, Count(0, 0))
            lines.append(f"add counter {table} {name} {{ packets {count.packets} bytes {count.size} ; }}")
    if usage.inside:
        lines.append(f"add element {table} inside {{ {', '.join(quoted(usage.inside))} }}")
    for chain, hook in (("leaves", "postrouting"), ("arrives", "input")):
        lines.append(f"add chain {table} {chain} {{ type filter hook {hook} priority 200; policy accept; }}")
        lines.append(f"flush chain {table} {chain}")
    lines += [f"add rule {table} {rule}" for rule in _rules(usage)]
    return "".join(f"{line}\n" for line in lines)


def _rules(usage: Usage) -> Iterator[str]:
    present = [(counted.device, names(counted.nic)) for counted in usage.nics if counted.device]
    for device, (out, into, _, _) in present:
        yield f'leaves iifname @inside oifname "{device}" counter name "{out}" accept'
        yield f'leaves iifname "{device}" oifname @inside counter name "{into}" accept'
    yield "leaves iif != 0 accept"
    for device, (_, _, own_out, own_in) in present:
        yield f'leaves oifname "{device}" meta l4proto tcp counter name "{own_out}" accept'
        yield f'arrives iifname "{device}" meta l4proto tcp counter name "{own_in}" accept'


def quoted(devices: Iterable[str]) -> list[str]:
    """Names of devices as nft wants them."""
    return [f'"{device}"' for device in devices]
