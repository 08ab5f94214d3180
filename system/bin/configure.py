#!/usr/bin/python3 -IS
"""Compare everything with the machine and put right what differs."""

import sys

sys.path.insert(0, "/opt/holdfast/lib")

from holdfast.cli import configure

sys.exit(configure(sys.argv[1:]))
