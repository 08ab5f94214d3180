#!/usr/bin/python3 -IS
"""Bytes sent and received by a VPC, by public address."""

import os
import sys

sys.path.insert(0, os.path.realpath("/opt/holdfast/lib"))

from holdfast.scripts.netusage import vpc_netusage

sys.exit(vpc_netusage(sys.argv[1:]))
