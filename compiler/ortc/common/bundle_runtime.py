"""Modules of the code that bundles carry, in this process: what both sides say, they say in the same words."""

from __future__ import annotations

import importlib
import sys
from types import ModuleType
from typing import Any

from ortc.common.resources import templates_dir

_PACKAGE = "ortc_bundle_runtime"


def runtime_module(name: str) -> Any:
    """A module of `templates/runtime` by its name there: `machine`, `loading.files`.

    Code closures (`ortc.execution.code_closure`) follow calls whose argument is a literal.

    Raises:
        ModuleNotFoundError: there is none of that name.
    """
    if _PACKAGE not in sys.modules:
        package = ModuleType(_PACKAGE, "The code that bundles carry.")
        package.__path__ = [str(templates_dir() / "runtime")]
        sys.modules[_PACKAGE] = package
    return importlib.import_module(f"{_PACKAGE}.{name}")
