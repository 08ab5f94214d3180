#!/usr/bin/python3 -IS
"""Put diagnostics into an archive."""

import os
import sys

sys.path.insert(0, os.path.realpath("/opt/holdfast/lib"))

from holdfast.calls import called
from holdfast.scripts.files import get_diagnostics_files

sys.exit(called("get_diagnostics_files.py", get_diagnostics_files, sys.argv[1:]))
