"""Changes how processes of the compiler measure: briefly, and as if the machine were quiet.

For tests that are not about measurements, which have to pass on whatever machine runs them, and soon. Python imports
this module when it starts with this directory on its path; modules are changed when they are imported.
"""

from __future__ import annotations

import importlib.abc
import importlib.machinery
import importlib.util
import os
import sys
from collections.abc import Sequence
from types import ModuleType

from changed import CHANGED


class _Finder(importlib.abc.MetaPathFinder):
    """Finds the modules of `CHANGED` as others do, and changes their constants once they are executed."""

    def __init__(self) -> None:
        self._left = set(CHANGED)

    def find_spec(
        self, name: str, path: Sequence[str] | None = None, target: ModuleType | None = None
    ) -> importlib.machinery.ModuleSpec | None:
        if name not in self._left:
            return None
        self._left.remove(name)
        spec = importlib.util.find_spec(name)
        if spec is not None and isinstance(loader := spec.loader, importlib.machinery.SourceFileLoader):
            spec.loader = _Loader(loader.name, loader.path)
        return spec


class _Loader(importlib.machinery.SourceFileLoader):
    def exec_module(self, module: ModuleType) -> None:
        super().exec_module(module)
        constants = vars(module)
        changed = CHANGED[module.__name__]
        if unknown := changed.keys() - constants.keys():
            raise ImportError(f"{module.__name__} has no {sorted(unknown)}; see {__file__}")
        constants.update(changed)


sys.meta_path.insert(0, _Finder())
if "PYTEST_WARM_SERVERS" in os.environ and "-m" in sys.orig_argv[1:3]:
    import warm

    warm.hand_over()
