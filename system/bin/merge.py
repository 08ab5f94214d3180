#!/usr/bin/python3 -IS
"""Merge one file of /var/cache/cloud into the store; apply nothing."""

import os
import sys

sys.path.insert(0, os.path.realpath("/opt/holdfast/lib"))

from holdfast.client import main

sys.exit(main("merge.py", sys.argv[1:]))
