"""Leaves the batches of a promotion and of the way back where keepalived's hook finds them."""

from pathlib import Path

from msgspec.structs import replace

from holdfast import promotion, whole
from holdfast.config import Config
from holdfast.desired import desired
from holdfast.router import Facts, Role, Router
from holdfast.state import State


def prepare(root: Path, config: Config, facts: Facts, generation: int) -> None:
    """Leave them for these bags and nics, or take them away on a router that has no pair; `generation`: in force.

    For the end of each run, whatever the role and the outcome.  What is there already is not written again; OSError
    if /run is full.
    """
    router = Router(config, facts)
    if not router.boot.redundant or router.segment is None:
        for path in (promotion.PATH, promotion.BACK):
            (root / path.lstrip("/")).unlink(missing_ok=True)
        return
    standing_by, serving = (desired(config, replace(facts, role=role)).state for role in (Role.BACKUP, Role.MASTER))
    leave(root, standing_by, serving, generation, {nic.name: nic.mac for nic in facts.nics})


def leave(root: Path, standing_by: State, serving: State, generation: int, macs: dict[str, str]) -> None:
    """Leave the batches between the two states; `macs`: MAC by name of each nic that there is."""
    for name, now, then in ((promotion.PATH, standing_by, serving), (promotion.BACK, serving, standing_by)):
        text = promotion.batch(now, then, generation, macs).encode()
        path = root / name.lstrip("/")
        if path.is_file() and path.read_bytes() == text:
            continue
        path.parent.mkdir(parents=True, exist_ok=True)
        whole.put(path, text, lasting=False)
