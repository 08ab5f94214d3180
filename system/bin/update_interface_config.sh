#!/usr/bin/python3 -IS
"""The MTU of the nic that has an address."""

import os
import sys

sys.path.insert(0, os.path.realpath("/opt/holdfast/lib"))

from holdfast.calls import called
from holdfast.scripts.configuration import update_interface_config

sys.exit(called("update_interface_config.sh", update_interface_config, sys.argv[1:]))
