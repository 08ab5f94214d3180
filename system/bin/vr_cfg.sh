#!/usr/bin/python3 -IS
"""Merge a bundle of messages and converge once."""

import sys

sys.path.insert(0, "/opt/holdfast/lib")

from holdfast.cli import vr_cfg

sys.exit(vr_cfg(sys.argv[1:]))
