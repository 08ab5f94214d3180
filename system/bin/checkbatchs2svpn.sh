#!/usr/bin/python3 -IS
"""Which site-to-site tunnels are up."""

import os
import sys

sys.path.insert(0, os.path.realpath("/opt/holdfast/lib"))

from holdfast.calls import called
from holdfast.scripts.checks2svpn import checkbatchs2svpn

sys.exit(called("checkbatchs2svpn.sh", checkbatchs2svpn, sys.argv[1:]))
