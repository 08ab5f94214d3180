"""How much slower than promised a machine may be that runs other tests meanwhile; nothing but times has slack."""

import os

SOAK = os.environ.get("HOLDFAST_SOAK") == "1"
SLACK = 1 if SOAK else 3
"""A bound times this is what a test holds a time, or a share of the processor, to; what was measured is printed."""
