"""Command lines of Python processes that import nothing from the working directory.

`python -m MODULE` puts the working directory first on the import path, so a `torch.py` or a `venv/` there would run.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Mapping
from pathlib import Path

from ortc.common.permissions import TRUST_ENTRYPOINT, trusted_packages


def own_interpreter() -> Path:
    """The Python of this compiler."""
    return Path(sys.executable)


def own_module(module: str, *arguments: str) -> list[str]:
    """The command that runs a module of this compiler."""
    return [sys.executable, "-P", "-m", module, *arguments]


def standard_module(module: str, *arguments: str, python: str = sys.executable) -> list[str]:
    """The command that runs a module that came with a Python or was installed into it, such as `venv` or `pip`."""
    return [python, "-I", "-m", module, *arguments]


def module_elsewhere(interpreter: Path, module: str) -> list[str]:
    """The command that runs a module of this compiler in an environment that has no ortc; see `run_module.py`."""
    return [str(interpreter), "-I", "-B", str(Path(__file__).with_name("run_module.py")), module]


def bundled_script(interpreter: Path, file: Path, *arguments: str) -> list[str]:
    """The command that runs a program of a bundle, which also imports the files beside it."""
    return [str(interpreter), "-E", "-s", "-B", str(file), *arguments]


def demo_script(file: Path) -> list[str]:
    """The command that runs a program of the demo, with the packages of this compiler."""
    return [sys.executable, "-B", str(file)]


def emulated_python(
    emulator: Path, *options: str, root: Path, interpreter: Path, isolated: bool = True
) -> tuple[str, ...]:
    """The beginning of a command that runs a program of a bundle on an emulated processor.

    Args:
        emulator: of the processor, with its own `options`.
        root: directory where the emulator looks for files before it looks elsewhere.
        interpreter: the Python that it runs.
        isolated: whether Python ignores PYTHONPATH; a system of another processor has its packages there.
    """
    ignored = ("-E",) if isolated else ()
    return (str(emulator), *options, "-L", str(root), str(interpreter), *ignored, "-s", "-B")


def standard_script(file: Path, *arguments: str) -> list[str]:
    """The command that runs a file of this compiler, which imports only the standard library."""
    return [sys.executable, "-I", "-B", str(file), *arguments]


def own_environment(variables: Mapping[str, str] | None = None) -> dict[str, str]:
    """The variables of a process that runs `own_module`; Python processes that it starts keep to the same rule."""
    paths = [str(Path(__file__).parents[2]), *os.environ.get("PYTHONPATH", "").split(os.pathsep)]
    return {
        "PYTHONPATH": os.pathsep.join(path for path in paths if path),
        "PYTHONSAFEPATH": "1",
        # The order of sets of texts, which a module may keep, is the same in all of them.
        "PYTHONHASHSEED": "0",
        TRUST_ENTRYPOINT: ",".join(sorted(trusted_packages())),
        **(variables or {}),
    }
