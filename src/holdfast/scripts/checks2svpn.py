"""checks2svpn.sh and checkbatchs2svpn.sh: whether site-to-site tunnels are up, as charon itself tells."""

import sys
import time
from collections.abc import Sequence
from pathlib import Path

from holdfast import names
from holdfast.answers.checks2svpn import NAMELESS, NOT_CONNECTED, SILENT, Found, Tunnel, found, item, tunnels
from holdfast.scripts import refuse, words
from holdfast.swanctl import UNIT, is_peer, peer_of
from holdfast.vici import Vici

_TIMEOUT_S = 5.0
_LINES = "100"
_AGAIN_S = 0.2
"""After this a tunnel that did not look joined is looked at once more."""


def checks2svpn(argv: Sequence[str], root: Path = Path("/")) -> int:
    """checks2svpn.sh PEER: a text; 0 up, 11 not up, 1 no such tunnel."""
    given = words(argv)
    if len(given) != 1 or not is_peer(given[0]):
        return refuse("checks2svpn.sh PEER   whether the tunnel to this address or name is up")
    answer = _look(given, root)[0]
    sys.stdout.write(f"{answer.text}\n")
    return answer.code


def checkbatchs2svpn(argv: Sequence[str], root: Path = Path("/")) -> int:
    """checkbatchs2svpn.sh PEER…: an item for each; always 0, since what a failing script prints may be lost."""
    peers = [peer for word in words(argv) for peer in word.split()]
    if not all(is_peer(peer) for peer in peers):
        return refuse("checkbatchs2svpn.sh PEER…   which of the tunnels to these addresses or names are up")
    for peer, answer in zip(peers, _look(peers, root), strict=True):
        sys.stdout.write(item(peer, answer))
    return 0


def _look(peers: Sequence[str], root: Path) -> list[Found]:
    try:
        with Vici(root, _TIMEOUT_S) as vici:
            known = _known(vici)
            answers = {peer: found(peer, known) for peer in peers}
            down = [peer for peer in answers if answers[peer].code == NOT_CONNECTED]
            if down:
                # While charon replaces an exchange of keys its list may hold neither the old one's networks nor the new
                # one: who says that a joined tunnel is not alarms its owner.
                time.sleep(_AGAIN_S)
                known = _known(vici)
    except TimeoutError:
        return [SILENT] * len(peers)
    except OSError:
        return [found(peer, None) for peer in peers]
    lost = {peer.lower() for peer in down}
    log = {one.name: _said(one.name) for one in known if one.joined < one.wanted and peer_of(one.name) in lost}
    answers |= {peer: found(peer, known, log) for peer in down}
    nameless = {*names.wanted(root)} - names.found(root).keys()
    return [NAMELESS if peer.lower() in nameless else answers[peer] for peer in peers]


def _known(vici: Vici) -> list[Tunnel]:
    return tunnels(vici.stream("list-conns", "list-conn"), vici.stream("list-sas", "list-sa"))


def _said(name: str) -> list[str]:
    """What charon has said of a connection; nothing where the journal cannot be read in time: a reason is an extra."""
    from holdfast.run import run  # noqa: PLC0415 only where a tunnel is not up

    asked = ["journalctl", "-q", "-o", "cat", "-n", _LINES, f"_SYSTEMD_UNIT={UNIT}", f"IKE_SA_NAME={name}"]
    try:
        return run(asked, timeout_s=_TIMEOUT_S).splitlines()
    except OSError:
        return []
