#!/usr/bin/python3 -IS
"""Nothing: a name that older servers call."""

import os
import sys

sys.path.insert(0, os.path.realpath("/opt/holdfast/lib"))

from holdfast.calls import called
from holdfast.scripts.small import bumpup_priority

sys.exit(called("bumpup_priority.sh", bumpup_priority, sys.argv[1:]))
