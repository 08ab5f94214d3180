#!/usr/bin/python3 -IS
import sys
sys.path.insert(0, "/opt/holdfast/lib")
from holdfast.cli import configure
sys.exit(configure(sys.argv[1:]))
