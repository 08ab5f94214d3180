#!/usr/bin/python3 -IS
"""What an operator must hear of."""

import os
import sys

sys.path.insert(0, os.path.realpath("/opt/holdfast/lib"))

from holdfast.calls import called
from holdfast.scripts.router_alerts import get_router_alerts

sys.exit(called("getRouterAlerts.sh", get_router_alerts, sys.argv[1:]))
