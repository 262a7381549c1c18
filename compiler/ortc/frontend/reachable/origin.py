"""Whose code it is: the user's, that of an installed package, or Python's own."""

from __future__ import annotations

import importlib.metadata
import os
import sys
import sysconfig
from functools import cache
from pathlib import Path
from typing import Any

_INSTALLED = (f"{os.sep}site-packages{os.sep}", f"{os.sep}dist-packages{os.sep}")
_OWN = f"{Path(__file__).resolve().parents[2]}{os.sep}"
"""The directory of this package, which may be installed as editable."""
_STANDARD = tuple(f"{os.path.realpath(sysconfig.get_path(name))}{os.sep}" for name in ("stdlib", "platstdlib"))


@cache
def is_library(file: str) -> bool:
    """Whether a source file is installed, and no user's: its code is known by the version of its package."""
    if file.startswith("<frozen"):
        return True
    real = os.path.realpath(file)
    return any(place in real for place in _INSTALLED) or real.startswith((_OWN, *_STANDARD))


def is_users_module(name: str) -> bool:
    """Whether a module is of the user's code; one that nobody imported is, for nothing else says what it is."""
    package = name.partition(".")[0]
    if package in sys.stdlib_module_names and package != "__main__":
        return False
    module = sys.modules.get(name)
    file = getattr(module, "__file__", None)
    if file is None:
        return package not in sys.builtin_module_names and getattr(module, "__spec__", None) is None
    return not is_library(file)


@cache
def version(module: str) -> str:
    """The version of the package that a module is of; empty for Python's own.

    How a package was built is no part of it: `2.13.0` for `2.13.0+cpu`.
    """
    package = module.partition(".")[0]
    if package in sys.stdlib_module_names or package in sys.builtin_module_names:
        return ""
    said = getattr(sys.modules.get(package), "__version__", None)
    if not isinstance(said, str):
        try:
            said = importlib.metadata.version(package)
        except (importlib.metadata.PackageNotFoundError, ValueError):
            said = ""
    return said.partition("+")[0]


def named(value: Any) -> list[str]:
    """What stands for a function or class of a library: its name, and the version of its package."""
    module = str(getattr(value, "__module__", None) or "")
    name = str(getattr(value, "__qualname__", None) or getattr(value, "__name__", None) or type(value).__qualname__)
    return [module, name, version(module)]
