"""`ortc cache`: look at what builds keep, and drop what is old."""

from __future__ import annotations

import json
import sys
import time

import rich_click as click

from ortc.common.texts import shown
from ortc.common.units import format_bytes, parse_duration

DAYS = 86400


@click.group
def cache() -> None:
    """Look at what builds keep, and drop what is old."""


@cache.command("ls")
@click.option("--json", "as_json", is_flag=True, help="Print the entries as JSON.")
def list_entries(as_json: bool) -> int:
    """List what is kept, with sizes and times of last use."""
    from ortc.common.resources import cache_root
    from ortc.execution.cache_pruning import entries

    root = cache_root()
    found = sorted(entries(root), key=lambda entry: (entry.kind, -entry.bytes))
    if as_json:
        document = {
            "format_version": 1,
            "root": str(root),
            "entries": [
                {"kind": e.kind, "key": e.key, "bytes": e.bytes, "used": e.used, "subject": e.subject} for e in found
            ],
        }
        sys.stdout.write(json.dumps(document, indent=2) + "\n")
        return 0
    sys.stdout.write(f"{root}\n")
    totals: dict[str, tuple[int, int]] = {}
    for entry in found:
        count, size = totals.get(entry.kind, (0, 0))
        totals[entry.kind] = (count + 1, size + entry.bytes)
    for kind, (count, size) in sorted(totals.items()):
        sys.stdout.write(f"  {shown(kind):<14} {count:>5} entries  {format_bytes(size):>10}\n")
    total = sum(entry.bytes for entry in found)
    sys.stdout.write(f"  {'total':<14} {len(found):>5} entries  {format_bytes(total):>10}\n")
    return 0


def age(context: click.Context, parameter: click.Parameter, value: str | None) -> float | None:
    """Seconds of an age like `30d`: a callback of options."""
    if value is None:
        return None
    if value.endswith("d") and value[:-1].isdecimal():
        return float(value[:-1]) * DAYS
    try:
        return parse_duration(value)
    except ValueError as error:
        raise click.BadParameter(f"{error}; or days, like `30d`", context, parameter) from error


@cache.command("prune")
@click.option("--older-than", callback=age, metavar="AGE", help="Drop what was not used for this long, e.g. 30d.")
@click.option("--all", "everything", is_flag=True, help="Drop everything.")
@click.option("--dry-run", is_flag=True, help="Only tell what would go.")
def prune_entries(older_than: float | None, everything: bool, dry_run: bool) -> int:
    """Drop entries by age; not while a build is running."""
    from ortc.common.resources import cache_root
    from ortc.execution.action_cache import Store
    from ortc.execution.cache_pruning import prune

    if (older_than is None) == (not everything):
        raise click.UsageError("give either --older-than AGE or --all")
    before = time.time() - (older_than or 0)
    gone = prune(Store(cache_root()), before=before, dry_run=dry_run)
    verb = "would free" if dry_run else "freed"
    sys.stdout.write(f"{verb} {format_bytes(sum(entry.bytes for entry in gone))} in {len(gone)} entries\n")
    return 0
