"""`python -m ortc.spec.diagnostics.rules` writes docs/diagnostics.md to stdout."""

import sys

from ortc.spec.diagnostics.rules.markdown import page

sys.stdout.write(page())
