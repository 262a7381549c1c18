"""Run a module of ortc in an environment that has no ortc: `python run_module.py MODULE`.

Of the compiler's environment, only the package `ortc` becomes importable. A module that runs so imports the standard
library, packages of its own environment, and modules of ortc for which the same holds.
"""

from __future__ import annotations

import runpy
import sys
from pathlib import Path
from types import ModuleType

PACKAGE = "ortc"


def main(module: str) -> None:
    """Run a module as a program."""
    package = ModuleType(PACKAGE)
    package.__path__ = [str(Path(__file__).parents[1])]
    sys.modules[PACKAGE] = package
    runpy.run_module(module, run_name="__main__")


if __name__ == "__main__":
    main(sys.argv[1])
