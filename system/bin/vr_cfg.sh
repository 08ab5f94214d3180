#!/usr/bin/python3 -IS
"""Merge a bundle of messages and converge once."""

import os
import sys

sys.path.insert(0, os.path.realpath("/opt/holdfast/lib"))

from holdfast.client import main

sys.exit(main("vr_cfg.sh", sys.argv[1:]))
