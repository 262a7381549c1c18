"""Bundles with other providers than those they are shipped with."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from tests.support import bundles

loader = bundles.runtime_module("loader")
CPU = {"name": "CPUExecutionProvider", "options": {}}


def bundle_with(root: Path, *, manifest: dict[str, Any] | None = None, **session: Any) -> Path:
    recipe = bundles.linear()
    recipe.session |= session
    recipe.manifest |= manifest or {}
    return recipe.write(root / "bundle")
