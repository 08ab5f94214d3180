#!/usr/bin/python3 -IS
"""Average sessions of the servers behind one listener."""

import os
import sys

sys.path.insert(0, os.path.realpath("/opt/holdfast/lib"))

from holdfast.calls import called
from holdfast.haproxy_stats import get_haproxy_stats

sys.exit(called("get_haproxy_stats.sh", get_haproxy_stats, sys.argv[1:]))
