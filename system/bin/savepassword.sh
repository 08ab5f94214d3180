#!/usr/bin/python3 -IS
"""A password for one VM."""

import os
import sys

sys.path.insert(0, os.path.realpath("/opt/holdfast/lib"))

from holdfast.calls import called
from holdfast.scripts.configuration import savepassword

sys.exit(called("savepassword.sh", savepassword, sys.argv[1:]))
