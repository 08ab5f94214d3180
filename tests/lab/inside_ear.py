"""Inside a network namespace: one router's ears for its peer, for links and for pokes, in the agent's kind of loop."""

import json
import select
import sys
import time
from pathlib import Path

from holdfast import errands
from holdfast.ears import Ear
from holdfast.ears.hello import PeerEar
from holdfast.ears.links import Links
from holdfast.ears.wake import Wake


def main() -> None:
    """Listen until this process is ended; wishes go to a file, one a line."""
    root = Path(sys.argv[1])
    ears: list[Ear] = [PeerEar(root, time.monotonic()), Links(), Wake(root)]
    while True:
        due = min(ear.due() for ear in ears) - time.monotonic()
        ready, _, _ = select.select(ears, [], [], max(0.0, due))
        now = time.monotonic()
        wishes = [wish for ear in ears if ear in ready for wish in ear.ready(now)]
        roused = any(wish.urgent for wish in wishes)
        wishes += [wish for ear in ears if roused or now >= ear.due() for wish in ear.tick(now)]
        if any(wish.cause for wish in wishes):
            errands.do(root, [wish.cause for wish in wishes])
            with (root / "wishes").open("a") as said:
                said.writelines(json.dumps([now, wish.cause]) + "\n" for wish in wishes if wish.cause)


main()
