"""What bundles for browsers carry verbatim: the page and the loader of `templates/web`."""

from __future__ import annotations

from pathlib import Path

from ortc.common.digests import sha256_file
from ortc.common.resources import templates_dir
from ortc.common.values import digest

WEB = "web"
"""Directory below templates of what bundles for browsers have instead of `runtime`."""
PROCESSING = "runtime/processing/"
"""Below it lie the files of bundles that answer texts."""


def web_sources(*, texts: bool = True) -> dict[str, Path]:
    """The files by their places in a bundle: those of `templates/web`, and the style that all pages share.

    Without `texts` those of a bundle of tensors.
    """
    root = templates_dir() / WEB
    found = {path.relative_to(root).as_posix(): path for path in root.rglob("*") if path.is_file()}
    found["runtime/page.css"] = templates_dir() / "runtime" / "serving" / "page.css"
    return {place: found[place] for place in sorted(found) if texts or not place.startswith(PROCESSING)}


def web_digest() -> str:
    """sha256 over the files: what computes in a page, for cache keys."""
    return digest([[place, sha256_file(source)] for place, source in web_sources().items()])
