#!/usr/bin/python3 -IS
"""Remove an archive of diagnostics."""

import os
import sys

sys.path.insert(0, os.path.realpath("/opt/holdfast/lib"))

from holdfast.calls import called
from holdfast.scripts.files import cleanup

sys.exit(called("cleanup.sh", cleanup, sys.argv[1:]))
