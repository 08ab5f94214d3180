#!/usr/bin/python3 -IS
"""Whether the disk can be written to."""

import os
import sys

sys.path.insert(0, os.path.realpath("/opt/holdfast/lib"))

from holdfast.calls import called
from holdfast.scripts.files import filesystem_writable_check

sys.exit(called("filesystem_writable_check.py", filesystem_writable_check, sys.argv[1:]))
