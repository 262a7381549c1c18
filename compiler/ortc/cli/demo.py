"""`ortc init --demo`: a small project that builds, serves and tests."""

from __future__ import annotations

import os
import shutil
import subprocess
import tempfile
from pathlib import Path

from ortc.common.errors import StageError, UsageError
from ortc.common.resources import templates_dir
from ortc.execution.processes import demo_script

SPEC = Path("specs/messages.yaml")
_TRAINING = "train.py"
_RENAMED = {"gitignore": ".gitignore"}
"""Files that would act where they are kept."""
_LAST_LINES = 10


def write_demo(directory: Path) -> str:
    """Write the project, and train its model with this interpreter, without a network.

    Args:
        directory: one that does not exist, or is empty.

    Returns:
        What the training printed.

    Raises:
        UsageError: there is something in the directory, or it is a file.
        StageError: the training fails, or the directory cannot be written.
    """
    _expect_empty(directory)
    try:
        with tempfile.TemporaryDirectory(prefix="ortc-demo-") as temporary:
            place = Path(temporary) / "project"
            shutil.copytree(
                templates_dir() / "demo",
                place,
                ignore=shutil.ignore_patterns("__pycache__"),
                copy_function=shutil.copyfile,
            )
            for name, other in _RENAMED.items():
                (place / name).rename(place / other)
            said = _train(place)
            directory.mkdir(parents=True, exist_ok=True)
            for entry in sorted(place.iterdir()):
                shutil.move(entry, directory / entry.name)
    except OSError as error:
        raise StageError(
            f"cannot write the project to {directory}: {error.strerror or error}", help="name another directory"
        ) from error
    return said


def _expect_empty(directory: Path) -> None:
    try:
        entries = sorted(directory.iterdir())
    except FileNotFoundError:
        return
    except NotADirectoryError:
        raise UsageError(f"{directory} is not a directory", help="name one that does not exist yet") from None
    except OSError as error:
        raise UsageError(f"cannot look into {directory}: {error.strerror or error}", help="name another one") from error
    if entries:
        raise UsageError(
            f"{directory} is not empty: it has `{entries[0].name}`", help="name a directory that does not exist yet"
        )


def _train(place: Path) -> str:
    """Train the model, and write the digests of its files into the spec."""
    from ortc.plan.digest_updates import digest_updates

    environment = {**os.environ, "HF_HUB_OFFLINE": "1"}
    command = demo_script(place / _TRAINING)
    done = subprocess.run(command, cwd=place, env=environment, capture_output=True, text=True, check=False)
    if done.returncode != 0:
        raise StageError(
            f"the training of the demo's model fails with exit code {done.returncode}",
            details=tuple(done.stderr.splitlines()[-_LAST_LINES:]),
            help="`ortc doctor` shows what this machine lacks",
        )
    for file in digest_updates(place / SPEC).files:
        file.write()
    return done.stdout.strip()
