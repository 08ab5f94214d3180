#!/usr/bin/python3 -IS
import sys
sys.path.insert(0, "/opt/holdfast/lib")
from holdfast.cli import merge
sys.exit(merge(sys.argv[1:]))
