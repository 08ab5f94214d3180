"""The vocabulary of the firewall: chains, stages, rules, elements and their canonical text.  Pure."""

from enum import Enum

from msgspec import Struct

TABLE = "holdfast"
WAY = 0x00000FFF
EPOCH = 0x0FFFF000
VPN = 0xF0000000
EPOCHS = EPOCH // (EPOCH & -EPOCH)  # from 1 to this; 0 is what a flow carries that was never judged


def unsettled(epoch: int) -> int:
    """Return the epoch of a transaction after this one: odd, since the sets are published a moment after it."""
    return (epoch + 1 | 1) % (EPOCHS + 1)


def settled(epoch: int) -> int:
    """Return the epoch that follows it once they are: even, never 0."""
    return (epoch + 1 & ~1) % (EPOCHS + 1) or 2


def is_settled(epoch: int) -> bool:
    """Whether every flow that carries it was judged by what is in the sets."""
    return epoch % 2 == 0


class Chain(Enum):
    """Every chain, in the order in which they are written; `HOOKS` says which of them the kernel calls."""

    JUDGED = "judged"
    STAMP = "stamp"
    INGRESS = "judge_ingress"
    RESTRICTED = "judge_source"
    ACL = "judge_acl"
    TRANSLATION = "judge_translation"
    PREROUTING = "prerouting"
    DNAT = "nat_in"
    OUTPUT_DNAT = "nat_local"
    INPUT = "input"
    EGRESS = "judge_egress"
    FORWARDED = "judge_forwarded"
    REPLY_EGRESS = "reply_egress"
    REPLY_FORWARDED = "reply_forwarded"
    FORWARD = "forward"
    OUTPUT = "output"
    SNAT = "nat_out"
    SETTLE_INGRESS = "settle_ingress"
    SETTLE = "settle"
    POSTROUTING = "postrouting"


class Stage(Enum):
    """Named places in a chain, in the order in which a packet meets them; ours come before the features' in each."""

    PREPARE = 0  # Changes the packet, gives no verdict: segment sizes, checksums, marks.
    GUARD = 1  # Refuses what is never right, whatever is configured.
    ADMIT = 2  # Accepts before any judgement: VRRP of the peer, tunnel traffic.
    TRUST = 3  # Accepts what was judged in the current epoch.
    JUDGE = 4  # Look-ups that decide.
    EXEMPT = 5  # NAT: leaves untranslated.
    PORT = 6  # NAT: one port or a range of ports.
    HAIRPIN = 7  # NAT: what leaves by the nic by which it came in.
    STATIC = 8  # NAT: one address for one address.
    SOURCE = 9  # NAT: many addresses behind one.
    REFUSE = 10  # What no rule before has accepted.


class Rule(Struct, frozen=True):
    """A structural rule: nft text of one rule, without a line break."""

    chain: Chain
    stage: Stage
    text: str


class Element(Struct, frozen=True):
    """An entry of a named set, or with a value of a map; canonical text, see `key`, `ports`, `quoted`, `mark`."""

    set: str
    key: str
    value: str = ""


def key(*parts: str) -> str:
    """Join the fields of a concatenated key or value.

    Canonical: networks without host bits and a single address without `/32`, any address `0.0.0.0/0`, protocols `tcp`,
    `udp` or else a decimal number, ICMP types and codes as numbers or ranges (any: `0-255`).
    """
    return " . ".join(parts)


def ports(first: int, last: int) -> str:
    """Write a port, ICMP type or code, or a range of them, as nft lists it; every port is `0-65535`."""
    return str(first) if first == last else f"{first}-{last}"


def quoted(device: str) -> str:
    """Write a device's name as nft lists it."""
    return f'"{device}"'


def mark(value: int) -> str:
    """Write a mark as nft lists it."""
    return f"0x{value:08x}"
