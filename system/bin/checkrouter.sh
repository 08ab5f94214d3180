#!/usr/bin/python3 -IS
"""Which of a pair this router is."""

import os
import sys

sys.path.insert(0, os.path.realpath("/opt/holdfast/lib"))

from holdfast.calls import called
from holdfast.role_report import checkrouter

sys.exit(called("checkrouter.sh", checkrouter, sys.argv[1:]))
