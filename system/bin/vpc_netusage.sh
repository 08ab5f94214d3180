#!/usr/bin/python3 -IS
"""Bytes sent and received by a VPC, by public address."""

import os
import sys

sys.path.insert(0, os.path.realpath("/opt/holdfast/lib"))

from holdfast.calls import called
from holdfast.scripts.netusage import vpc_netusage

sys.exit(called("vpc_netusage.sh", vpc_netusage, sys.argv[1:]))
