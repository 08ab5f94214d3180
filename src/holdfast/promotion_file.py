"""Leaves the batch of a promotion where keepalived's hook finds it."""

from pathlib import Path

from msgspec.structs import replace

from holdfast import promotion, whole
from holdfast.config import Config
from holdfast.desired import desired
from holdfast.router import Facts, Role, Router
from holdfast.state import State


def prepare(root: Path, config: Config, facts: Facts, generation: int) -> None:
    """Leave the batch for these bags and nics, or take it away on a router that has no pair; `generation`: in force.

    For the end of each run, whatever the role and the outcome.  What is there already is not written again; OSError
    if /run is full.
    """
    router = Router(config, facts)
    if not router.boot.redundant or router.segment is None:
        (root / promotion.PATH.lstrip("/")).unlink(missing_ok=True)
        return
    standing_by, serving = (desired(config, replace(facts, role=role)).state for role in (Role.BACKUP, Role.MASTER))
    leave(root, standing_by, serving, generation, {nic.name: nic.mac for nic in facts.nics})


def leave(root: Path, standing_by: State, serving: State, generation: int, macs: dict[str, str]) -> None:
    """Leave the batch that makes the one state into the other; `macs`: MAC by name of each nic that there is."""
    text = promotion.batch(standing_by, serving, generation, macs).encode()
    path = root / promotion.PATH.lstrip("/")
    if path.is_file() and path.read_bytes() == text:
        return
    path.parent.mkdir(parents=True, exist_ok=True)
    whole.put(path, text, lasting=False)
