"""A router that keeps itself in the state it was told to be in."""

__version__ = "0.1.0"
