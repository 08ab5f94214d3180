#!/usr/bin/python3 -IS
"""Routes for TFTP, which this router does not set."""

import os
import sys

sys.path.insert(0, os.path.realpath("/opt/holdfast/lib"))

from holdfast.calls import called
from holdfast.scripts.small import setup_tf_route

sys.exit(called("setup_tf_route.py", setup_tf_route, sys.argv[1:]))
