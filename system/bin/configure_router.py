#!/usr/bin/python3 -IS
"""Take a role and converge."""

import os
import sys

sys.path.insert(0, os.path.realpath("/opt/holdfast/lib"))

from holdfast.client import main

sys.exit(main("configure_router.py", sys.argv[1:]))
