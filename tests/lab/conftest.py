"""What all tests in the lab share."""

import os
from collections.abc import Callable, Iterator

import pytest

from holdfast.lab.lab import Lab


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
