#!/usr/bin/python3 -IS
"""Which of a pair this router is."""

import sys

sys.path.insert(0, "/opt/holdfast/lib")

from holdfast.role_report import checkrouter

sys.exit(checkrouter(sys.argv[1:]))
