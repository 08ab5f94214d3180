"""What all tests in the lab share."""

import os
from collections.abc import Callable, Iterator

import pytest

from holdfast.lab.lab import Lab

_LONGEST_FIRST = (
    "test_pair_replay", "test_vpc_packets", "test_drift", "test_load_balancer", "test_vpc_tiers", "test_vpc_replay",
    "test_replay", "test_faults", "test_redundancy_daemons", "test_usage", "test_packets", "test_shared",
)  # fmt: skip


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """A file is one worker's, and in the order of names the longest stories would begin when the others are done."""
    place = {name: at for at, name in enumerate(_LONGEST_FIRST)}
    items.sort(key=lambda item: place.get(item.path.stem, len(place)))


@pytest.fixture
def lab() -> Iterator[Lab]:
    if os.geteuid() != 0:
        pytest.skip("the lab needs root: it makes network namespaces and containers")
    with Lab("test") as lab:
        yield lab


@pytest.fixture
def tell(capsys: pytest.CaptureFixture[str]) -> Callable[[str], None]:
    """Say what was measured."""

    def say(line: str) -> None:
        with capsys.disabled():
            print(f"\n  {line}", end="")  # noqa: T201 the measurement is half of what it is for

    return say
