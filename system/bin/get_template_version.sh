#!/usr/bin/python3 -IS
"""The template's release and the scripts' signature."""

import os
import sys

sys.path.insert(0, os.path.realpath("/opt/holdfast/lib"))

from holdfast.calls import called
from holdfast.scripts.version import get_template_version

sys.exit(called("get_template_version.sh", get_template_version, sys.argv[1:]))
