"""What bundles for browsers carry verbatim: the page and the loader of `templates/web`."""

from __future__ import annotations

from ortc.common.digests import sha256_file
from ortc.common.resources import templates_dir
from ortc.common.values import digest

WEB = "web"
"""Directory below templates of what bundles for browsers have instead of `runtime`."""
CARRIED = "runtime/ort"
"""Directory of such a bundle that holds the files of ONNX Runtime's npm package."""


def web_places() -> tuple[str, ...]:
    """Paths of the files, in `templates/web` and in a bundle alike."""
    root = templates_dir() / WEB
    return tuple(sorted(path.relative_to(root).as_posix() for path in root.rglob("*") if path.is_file()))


def web_digest() -> str:
    """sha256 over the files: what computes in a page, for cache keys."""
    return digest([[place, sha256_file(templates_dir() / WEB / place)] for place in web_places()])
