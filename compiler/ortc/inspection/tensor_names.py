"""Names of a model's inputs, outputs and axes: which of them manifests, requests and specs can hold."""

from __future__ import annotations

from collections.abc import Iterable

from ortc.common.errors import StageError
from ortc.common.texts import shown
from ortc.inspection.draft_spec import scalar

MOST_KEY = 1000
"""Most characters of a key of a YAML mapping, with its quotes; YAML has 1,024 for all before the colon."""
NAME_HELP = f"rename it in the model: a name is one printable line of at most {MOST_KEY} characters, and used once"


def name_problem(name: str) -> str | None:
    """Why a bundle and its spec cannot hold a name, in words; None where they can."""
    if not name:
        return "has an empty name"
    if len(name) > MOST_KEY or len(scalar(name)) > MOST_KEY:
        return f"has a name of {len(name)} characters"
    if not name.isprintable():
        return "has characters in its name that are not printable"
    return None


def check_names(side: str, names: Iterable[str]) -> None:
    """Check the names that a model's inputs or outputs will have in a bundle.

    Args:
        side: `input` or `output`.
        names: in order.

    Raises:
        StageError: a manifest cannot hold one of them, or two are the same.
    """
    seen: set[str] = set()
    for name in names:
        if (why := name_problem(name)) is not None:
            raise StageError(f"the model's {side} `{shown(name)}` {why}", help=NAME_HELP)
        if name in seen:
            raise StageError(f"the model has two {side}s that are called `{shown(name)}`", help=NAME_HELP)
        seen.add(name)
