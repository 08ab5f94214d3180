#!/usr/bin/python3 -IS
"""Look from the router whether something answers."""

import os
import sys

sys.path.insert(0, os.path.realpath("/opt/holdfast/lib"))

from holdfast.scripts.diagnostics import diagnostics

sys.exit(diagnostics(sys.argv[1:]))
