#!/usr/bin/python3 -IS
"""Take a role and converge: the name of older servers."""

import os
import sys

sys.path.insert(0, os.path.realpath("/opt/holdfast/lib"))

from holdfast.client import main

sys.exit(main("master.py", sys.argv[1:]))
