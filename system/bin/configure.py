#!/usr/bin/python3 -IS
"""Compare everything with the machine and put right what differs."""

import os
import sys

sys.path.insert(0, os.path.realpath("/opt/holdfast/lib"))

from holdfast.client import main

sys.exit(main("configure.py", sys.argv[1:]))
