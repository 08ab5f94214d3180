#!/usr/bin/python3 -IS
"""Merge one file of /var/cache/cloud into the store; apply nothing."""

import sys

sys.path.insert(0, "/opt/holdfast/lib")

from holdfast.cli import merge

sys.exit(merge(sys.argv[1:]))
