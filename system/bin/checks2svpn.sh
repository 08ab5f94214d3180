#!/usr/bin/python3 -IS
"""Whether one site-to-site tunnel is up."""

import os
import sys

sys.path.insert(0, os.path.realpath("/opt/holdfast/lib"))

from holdfast.calls import called
from holdfast.scripts.checks2svpn import checks2svpn

sys.exit(called("checks2svpn.sh", checks2svpn, sys.argv[1:]))
