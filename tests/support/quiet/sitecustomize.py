"""Opens the bounds of noise in processes of the compiler: what they time is taken for times of a quiet machine.

For tests that are not about noise, which have to pass on whatever machine runs them. Python imports this module when
it starts with this directory on its path; `ortc.evaluation.noise` is changed when it is imported.
"""

from __future__ import annotations

import importlib.abc
import importlib.machinery
import importlib.util
import sys
from collections.abc import Sequence
from types import ModuleType

from noise_bounds import OPEN


class _Opened(importlib.abc.MetaPathFinder):
    """Finds `ortc.evaluation.noise` as others do, and changes its bounds once it is executed."""

    def find_spec(
        self, name: str, path: Sequence[str] | None = None, target: ModuleType | None = None
    ) -> importlib.machinery.ModuleSpec | None:
        if name != "ortc.evaluation.noise":
            return None
        sys.meta_path.remove(self)
        spec = importlib.util.find_spec(name)
        if spec is not None and isinstance(loader := spec.loader, importlib.machinery.SourceFileLoader):
            spec.loader = _Loader(loader.name, loader.path)
        return spec


class _Loader(importlib.machinery.SourceFileLoader):
    def exec_module(self, module: ModuleType) -> None:
        super().exec_module(module)
        vars(module).update(OPEN)


sys.meta_path.insert(0, _Opened())
