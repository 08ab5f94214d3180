#!/usr/bin/python3 -IS
"""Which scripts are there."""

import os
import sys

sys.path.insert(0, os.path.realpath("/opt/holdfast/lib"))

from holdfast.calls import called
from holdfast.scripts.small import patched

sys.exit(called("patched.sh", patched, sys.argv[1:]))
