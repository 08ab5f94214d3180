"""What the agent does for an ear that asks for no convergence: words to daemons and in their name, an end to one."""

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import NamedTuple

from holdfast import alerts, keepalived, pair_files
from holdfast.drivers.handover import TO_FORGET, TO_SERVE, TO_TELL_AGAIN, ask
from holdfast.ears.acknowledged import KEEP, keep
from holdfast.ears.connections import MISSED, REFILL, TELL
from holdfast.ears.deaf import DEAF, hangs
from holdfast.ears.observed import AWAY, GONE, HERE, look
from holdfast.role_report import word
from holdfast.run import run


class Errand(NamedTuple):
    """`role`: the only one in which it is done, for it may have changed since it was asked for; empty for any."""

    role: str
    act: Callable[[Path], object]


def do(root: Path, causes: Sequence[str]) -> None:
    """Do those among these causes, in a child.  One that fails is noted: its ear asks for it again."""
    for cause, errand in ERRANDS.items():
        if cause in causes and errand.role in ("", word(root)):
            try:
                errand.act(root)
            except OSError as error:
                alerts.note(f"{cause}: {error}")


def _ask(requests: Sequence[Sequence[str]]) -> Callable[[Path], object]:
    def act(root: Path) -> None:
        ask(requests)
        pair_files.note_synced(root)

    return act


def _end_keepalived(root: Path) -> None:
    """What it elects with ends with it, and the peer takes over; systemd starts another after a while."""
    if not hangs(root):
        return  # it has heard meanwhile
    run(["systemctl", "kill", "--kill-whom=main", "--signal=KILL", "keepalived.service"])
    alerts.alert(root, ["keepalived hangs and takes no new text: ended, another one is started"])


def _say(cause: str, word: str) -> Callable[[Path], object]:
    """Say through the hook what keepalived should have said, if it still is so."""

    def say(root: Path) -> None:
        if look(root) == cause:
            run([keepalived.HOOK, "INSTANCE", keepalived.INSTANCE, word, "0"])
            alerts.alert(root, [f"{cause}: {word} was said in keepalived's name"])

    return say


ERRANDS = {
    TELL: Errand("MASTER", _ask(TO_TELL_AGAIN)),
    MISSED: Errand("MASTER", _ask(TO_SERVE)),
    REFILL: Errand("BACKUP", _ask(TO_FORGET)),
    DEAF: Errand("", _end_keepalived),
    KEEP: Errand("", keep),
    GONE: Errand("MASTER", _say(GONE, "STOP")),
    AWAY: Errand("MASTER", _say(AWAY, "BACKUP")),
    HERE: Errand("", _say(HERE, "MASTER")),
}
