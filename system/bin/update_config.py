#!/usr/bin/python3 -IS
"""Merge one file of /var/cache/cloud and converge."""

import os
import sys

sys.path.insert(0, os.path.realpath("/opt/holdfast/lib"))

from holdfast.client import main

sys.exit(main("update_config.py", sys.argv[1:]))
