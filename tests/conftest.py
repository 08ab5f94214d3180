"""Settings of all tests."""

from hypothesis import settings

from counts import TIMES

# How long an example takes on a busy machine says nothing: what has to be quick has a bound of its own.
settings.register_profile("holdfast", deadline=None, max_examples=100 * TIMES)
settings.load_profile("holdfast")
