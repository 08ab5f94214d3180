#!/usr/bin/python3 -IS
"""Bytes sent and received by an isolated network."""

import os
import sys

sys.path.insert(0, os.path.realpath("/opt/holdfast/lib"))

from holdfast.calls import called
from holdfast.scripts.netusage import netusage

sys.exit(called("netusage.sh", netusage, sys.argv[1:]))
