#!/usr/bin/python3 -IS
"""Look from the router whether something answers."""

import os
import sys

sys.path.insert(0, os.path.realpath("/opt/holdfast/lib"))

from holdfast.calls import called
from holdfast.scripts.diagnostics import diagnostics

sys.exit(called("diagnostics.py", diagnostics, sys.argv[1:]))
