"""How many examples a law is tried with; a soak has more time."""

import os

from hypothesis import settings

TIMES = 20 if os.environ.get("HOLDFAST_SOAK") == "1" else 1


def examples(count: int) -> settings:
    """So many, in a soak twenty times as many."""
    return settings(max_examples=count * TIMES)
