#!/usr/bin/python3 -IS
"""Results of the health checks."""

import os
import sys

sys.path.insert(0, os.path.realpath("/opt/holdfast/lib"))

from holdfast.calls import called
from holdfast.scripts.monitor_results import get_router_monitor_results

sys.exit(called("getRouterMonitorResults.sh", get_router_monitor_results, sys.argv[1:]))
