#!/usr/bin/python3 -IS
"""Stop a service for a while, or let it run again."""

import os
import sys

sys.path.insert(0, os.path.realpath("/opt/holdfast/lib"))

from holdfast.client import main

sys.exit(main("manage_service.sh", sys.argv[1:]))
