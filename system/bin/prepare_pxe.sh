#!/usr/bin/python3 -IS
"""Baremetal hosts, which this router does not serve."""

import os
import sys

sys.path.insert(0, os.path.realpath("/opt/holdfast/lib"))

from holdfast.calls import called
from holdfast.scripts.small import prepare_pxe

sys.exit(called("prepare_pxe.sh", prepare_pxe, sys.argv[1:]))
