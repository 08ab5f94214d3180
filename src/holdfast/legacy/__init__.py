"""CloudStack's own databags, of every age, read as the messages that would have made them.  Never written.  Pure.

`read` takes the files as they lie in /etc/cloudstack (or cosmic's /etc/cosmic/router) and gives messages of the wire
format; decoding, merging and refusing are done by who does it for every other message.  What is repaired on the way is
said, in one line each; what cannot be read is named and never guessed.
"""

from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

from holdfast.legacy import addresses, boot, cosmic, guests, others, rules
from holdfast.legacy.reading import Bag, Json, Notes, bag, is_modern
from holdfast.router import Nic

BAGS = (
    "cmdline", "ips", "guestnetwork", "networkacl", "firewallrules", "ipv6firewallrules", "forwardingrules",
    "staticroutes", "loadbalancer", "dhcpentry", "vmdata", "vmpassword", "monitorservice", "site2sitevpn",
    "remoteaccessvpn", "vpnuserlist", "bgppeers", "network_overview", "vm_overview", "privategateway",
)  # fmt: skip
"""Names of the bags that are understood, each in a file `<name>.json`."""
UNDERSTOOD_IN_PART = ("publicipacl", "virtualrouter")
"""Bags of cosmic's without a counterpart here; a file of another name was no bag."""

OF_COSMIC = frozenset({"network_overview", "vm_overview", "privategateway", "publicipacl", "virtualrouter"})


class Found(NamedTuple):
    """What lay there.  `line`: the boot line's text, used where its bag is lost; `passwords`: the lines of the old
    password servers' files; `nics`: those that the machine has now.
    """

    files: Mapping[str, bytes]
    line: str = ""
    passwords: Sequence[str] | None = None
    nics: tuple[Nic, ...] = ()


class Legacy(NamedTuple):
    """`messages`: name and content, in an order in which they can be merged.  `repaired`: what was put right or left
    out on purpose.  `unread`: what could not be read; adopting without it would take something away.
    """

    messages: tuple[tuple[str, Json], ...]
    repaired: tuple[str, ...]
    unread: tuple[str, ...]


def read(found: Found) -> Legacy:
    """Read all bags.  Nothing is raised for what they hold: it is in `repaired` and `unread`."""
    notes = Notes()
    bags: dict[str, Bag] = {}
    for name in (*BAGS, *UNDERSTOOD_IN_PART):
        if name in found.files:
            bags[name] = bag(name, found.files[name], notes)
    modern, of_cosmic = is_modern(bags), bool(OF_COSMIC & bags.keys())
    cosmic.expand(bags, found.nics, notes)
    line = boot.line(bags, found.line, notes)
    dhcp = guests.dhcp(bags, line, notes)
    readers: Sequence[tuple[str, Callable[[], list[Json]]]] = (
        ("cmdline", lambda: boot.message(line)),
        ("ips", lambda: addresses.ips(bags, line, found.nics, notes)),
        ("guestnetwork", lambda: addresses.tiers(bags, notes)),
        ("ipaliases", lambda: addresses.aliases(bags, line)),
        ("acldefault", lambda: rules.acl_default(bags, line, strict=of_cosmic, notes=notes)),
        ("networkacl", lambda: rules.acls(bags, modern=modern, notes=notes)),
        ("firewallrules", lambda: rules.firewall(bags, line, modern=modern, notes=notes)),
        ("ipv6firewallrules", lambda: rules.ipv6(bags, notes)),
        ("forwardingrules", lambda: rules.forwarding(bags, notes)),
        ("staticroutes", lambda: rules.routes(bags, applied=modern or of_cosmic, notes=notes)),
        ("loadbalancer", lambda: others.load_balancer(bags, notes)),
        ("dhcpentry", lambda: dhcp),
        ("vmdata", lambda: guests.metadata(bags, dhcp, notes)),
        ("vmpassword", lambda: guests.passwords(bags, found.passwords, notes)),
        ("monitorservice", lambda: others.monitor(bags)),
        ("site2sitevpn", lambda: others.tunnels(bags, notes)),
        ("remoteaccessvpn", lambda: others.remote_access(bags, notes)),
        ("vpnuserlist", lambda: others.users(bags, notes)),
        ("bgppeers", lambda: others.peers(bags)),
    )
    messages = [(f"{name}.json", message) for name, reader in readers for message in reader()]
    return Legacy(tuple(messages), tuple(notes.repaired), tuple(notes.unread))


def counts(legacy: Legacy) -> list[str]:
    """What was read, a line for each kind: `firewallrules: 12`."""
    found: dict[str, int] = {}
    for _, message in legacy.messages:
        kind: Any = message["type"]
        lists = [value for value in message.values() if isinstance(value, list)]
        found[kind] = found.get(kind, 0) + (len(lists[0]) if kind in _LISTED and lists else 1)
    return [f"{kind}: {count}" for kind, count in found.items()]


_LISTED = frozenset(
    {"ips", "firewallrules", "ipv6firewallrules", "forwardrules", "staticnatrules", "staticroutes", "ipaliases",
     "vpnuserlist", "bgppeers"}
)  # fmt: skip
