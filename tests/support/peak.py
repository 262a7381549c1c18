"""`python peak.py SCRIPT ARGUMENT…`: run a program, then print the most memory that it held resident, in bytes."""

import os
import re
import runpy
import sys
from pathlib import Path

# A worker sends what it prints to stderr.
printed = os.dup(1)
sys.argv = sys.argv[1:]
runpy.run_path(sys.argv[0], run_name="__main__")
# VmHWM and not ru_maxrss: Linux carries the peak of the process that forked and executed us into ru_maxrss.
found = re.search(r"^VmHWM:\s+(\d+) kB$", Path("/proc/self/status").read_text("utf-8"), re.MULTILINE)
os.write(printed, str(int(found[1]) * 1024 if found else 0).encode())
