"""What all tests in the lab share."""

import os
from collections.abc import Iterator

import pytest

from holdfast.lab.lab import Lab


@pytest.fixture
def lab() -> Iterator[Lab]:
    if os.geteuid() != 0:
        pytest.skip("the lab needs root: it makes network namespaces and containers")
    with Lab("test") as lab:
        yield lab
