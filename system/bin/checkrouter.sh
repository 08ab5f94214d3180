#!/usr/bin/python3 -IS
"""Which of a pair this router is."""

import os
import sys

sys.path.insert(0, os.path.realpath("/opt/holdfast/lib"))

from holdfast.role_report import checkrouter

sys.exit(checkrouter(sys.argv[1:]))
