#!/usr/bin/python3 -IS
"""Take a role and converge."""

import sys

sys.path.insert(0, "/opt/holdfast/lib")

from holdfast.cli import configure_router

sys.exit(configure_router(sys.argv[1:]))
