"""`python -m ortc.rules` writes docs/diagnostics.md to stdout."""

import sys

from ortc.rules.markdown import page

sys.stdout.write(page())
