"""What the hook sets of the gateways' MACs at a promotion, so that nobody waits for an answer by ARP.  Pure."""

from collections import Counter
from collections.abc import Iterable, Iterator, Mapping

from holdfast import ip_words

PATH = "/run/holdfast/neighbours"
"""The text for `ip -force -batch`, put there by rename; none is there where no gateway's MAC is known."""


def batch(gateways: Iterable[tuple[str, str]], macs: Mapping[str, str]) -> str:
    """Return the text; `gateways`: (device, address), `macs`: by address, as `peer.Hello.neighbours` spells them.

    What has become wrong does not last, since the kernel asks at once.  An address that is two devices' is left to ARP:
    which of them is meant is not said.
    """
    return "".join(
        " ".join(ip_words.neighbour(address, macs[address], device)) + "\n"
        for device, address in _unique(gateways)
        if address in macs and is_station(macs[address])
    )


def _unique(gateways: Iterable[tuple[str, str]]) -> Iterator[tuple[str, str]]:
    found = sorted(set(gateways))
    times = Counter(address for _, address in found)
    return ((device, address) for device, address in found if times[address] == 1)


def is_station(mac: str) -> bool:
    """Whether a MAC may be one machine's: no group's, and not all zeros (IEEE 802)."""
    return not int(mac[:2], 16) & 1 and set(mac) != set("0:")
