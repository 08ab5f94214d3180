#!/usr/bin/python3 -IS
"""Baremetal hosts, which this router does not serve."""

import os
import sys

sys.path.insert(0, os.path.realpath("/opt/holdfast/lib"))

from holdfast.calls import called
from holdfast.scripts.small import baremetal_snat

sys.exit(called("baremetal_snat.sh", baremetal_snat, sys.argv[1:]))
