"""What bundles for browsers and Node carry verbatim: a loader in JavaScript, and the page of those for browsers."""

from __future__ import annotations

from pathlib import Path

from ortc.common.digests import sha256_file
from ortc.common.resources import templates_dir
from ortc.common.values import digest

SHARED, WEB, NODE = "javascript", "web", "node"
"""Directories below templates of what such bundles have instead of `runtime`: for both, for browsers, for Node."""
PROCESSING = "runtime/processing/"
"""Below it lie the files of bundles that answer texts."""


def script_sources(*, is_web: bool, texts: bool = True) -> dict[str, Path]:
    """The files by their places in a bundle; without `texts` those of a bundle of tensors.

    Pages have the style that all pages share.
    """
    found: dict[str, Path] = {}
    for folder in (SHARED, WEB if is_web else NODE):
        root = templates_dir() / folder
        found |= {path.relative_to(root).as_posix(): path for path in root.rglob("*") if path.is_file()}
    if is_web:
        found["runtime/page.css"] = templates_dir() / "runtime" / "serving" / "page.css"
    return {place: found[place] for place in sorted(found) if texts or not place.startswith(PROCESSING)}


def script_digest(*, is_web: bool) -> str:
    """sha256 over the files: what computes in a page or in Node, for cache keys."""
    return digest([[place, sha256_file(source)] for place, source in script_sources(is_web=is_web).items()])
