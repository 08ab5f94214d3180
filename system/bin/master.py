#!/usr/bin/python3 -IS
"""Take a role and converge: the name of older servers."""

import sys

sys.path.insert(0, "/opt/holdfast/lib")

from holdfast.cli import master

sys.exit(master(sys.argv[1:]))
