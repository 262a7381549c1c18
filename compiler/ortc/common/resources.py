"""Where the files that are not Python lie: target profiles, generated data, templates."""

import os
from pathlib import Path

from platformdirs import user_cache_path

_PACKAGE = Path(__file__).resolve().parents[1]


def targets_dir() -> Path:
    """The directory of target profiles.

    Raises:
        FileNotFoundError: neither the installed package nor a checkout has it.
    """
    return _find("targets")


def data_dir() -> Path:
    """The directory of generated data: version tables and pins.

    Raises:
        FileNotFoundError: neither the installed package nor a checkout has it.
    """
    return targets_dir() / "data"


def templates_dir() -> Path:
    """The directory of templates and of the runtime that bundles ship.

    Raises:
        FileNotFoundError: neither the installed package nor a checkout has it.
    """
    return _find("templates")


def _find(name: str) -> Path:
    # A wheel carries the directory inside the package; in a checkout it lies beside `compiler/`.
    places = (_PACKAGE / "_data" / name, _PACKAGE.parent.parent / name)
    for place in places:
        if place.is_dir():
            return place
    raise FileNotFoundError(
        f"ortc's own directory `{name}` is missing; looked at {places[0]} (installed) and {places[1]} (checkout): "
        "install ortc again, or run it from a complete checkout"
    )


def cache_root() -> Path:
    """`$ORTC_CACHE_DIR`, or `ortc` in the user's cache directory."""
    configured = os.environ.get("ORTC_CACHE_DIR")
    return Path(configured) if configured else user_cache_path("ortc")
