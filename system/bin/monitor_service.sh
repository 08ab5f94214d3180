#!/usr/bin/python3 -IS
"""Services that systemd keeps, and this script does not watch."""

import os
import sys

sys.path.insert(0, os.path.realpath("/opt/holdfast/lib"))

from holdfast.calls import called
from holdfast.scripts.small import monitor_service

sys.exit(called("monitor_service.sh", monitor_service, sys.argv[1:]))
