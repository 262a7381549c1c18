"""`ortc targets`: the target profiles that a spec can name."""

import sys
from pathlib import Path

import rich_click as click

from ortc.spec.boundary import project_root
from ortc.spec.load import load_profile, profile_files


@click.command
def targets() -> None:
    """List the target profiles: those that come with ortc, and those in targets/ of this project."""
    root = project_root(Path.cwd() / "spec.yaml")
    rows = [("NAME", "RUNTIME", "PLATFORMS", "PRECISION", "DESCRIPTION")]
    for name in sorted(profile_files(root)):
        profile = load_profile(name, root=root)
        runtime = f"{profile.runtime.package} {profile.runtime.version}"
        rows.append((name, runtime, ", ".join(profile.platforms), profile.precision, profile.description))
    widths = [max(len(row[column]) for row in rows) for column in range(len(rows[0]))]
    for row in rows:
        sys.stdout.write("  ".join(f"{cell:<{width}}" for cell, width in zip(row, widths, strict=True)).rstrip() + "\n")
