#!/usr/bin/python3 -IS
"""Merge one file of /var/cache/cloud and converge."""

import sys

sys.path.insert(0, "/opt/holdfast/lib")

from holdfast.cli import update_config

sys.exit(update_config(sys.argv[1:]))
