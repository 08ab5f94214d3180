#!/usr/bin/python3 -IS
"""The Kubernetes ISO."""

import os
import sys

sys.path.insert(0, os.path.realpath("/opt/holdfast/lib"))

from holdfast.calls import called
from holdfast.scripts.cks_iso import cks_iso

sys.exit(called("cks_iso.sh", cks_iso, sys.argv[1:]))
