"""`ortc registry`: versions of bundles, shared by machines and people."""

from __future__ import annotations

import json
import sys
from datetime import timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Any

import rich_click as click

from ortc.cli.cache import age
from ortc.cli.options import key_option, output_option
from ortc.cli.verify import note
from ortc.common.errors import StageError
from ortc.common.units import format_bytes
from ortc.spec.diagnostics.excerpt import printable

if TYPE_CHECKING:
    from collections.abc import Callable

    from ortc.registry.store import Registry

_BUNDLE = click.Path(path_type=Path, exists=True, file_okay=False)
_JSON = click.option("--json", "as_json", is_flag=True, help="Print the result as JSON.")


def at(command: Callable[..., Any]) -> Callable[..., Any]:
    """The option that names the registry."""
    return click.option(
        "--registry",
        "url",
        envvar="ORTC_REGISTRY",
        show_envvar=True,
        required=True,
        metavar="URL",
        help="The registry: a directory, or a URL of fsspec (file://, s3://, gs://, …).",
    )(command)


def open_registry(url: str) -> Registry:
    """The registry at a URL.

    Raises:
        UsageError: fsspec cannot reach such a place.
    """
    from ortc.registry.store import Registry

    return Registry(url)


@click.group
def registry() -> None:
    """Keep versions of bundles, name them by aliases, and bring them back."""


@registry.command
@click.argument("bundles", metavar="BUNDLE...", nargs=-1, required=True, type=_BUNDLE)
@at
@click.option(
    "--repair", is_flag=True, help="Write files that are there already, too: for a registry that was damaged."
)
@key_option("bundles that are not signed with it are refused.")
@_JSON
def add(bundles: tuple[Path, ...], url: str, repair: bool, key: Path | None, as_json: bool) -> int:
    """Register bundles, after comparing every file with its digest.

    A version never changes: another bundle under the same name, version and target is refused. The same bundle again
    adds the measurements and signatures that joined it since. A measurement beside a signed bundle joins once a
    signature covers it.
    """
    from ortc.bundle.supply_chain.companions import left_out

    to = open_registry(url)
    done = [to.add(bundle, repair=repair, key=key) for bundle in bundles]
    if as_json:
        return _print({"added": [entry.model_dump(mode="json") for entry in done]})
    for entry in done:
        more = f", {len(entry.companions)} new beside it" if entry.companions and not entry.new else ""
        state = "registered" if entry.new else "was registered"
        sys.stdout.write(f"{entry.name}@{entry.version} for {entry.target}: {state}{more}\n")
        if told := left_out(f"{entry.name}@{entry.version} for {entry.target}", entry.unsigned):
            note(told)
    return 0


@registry.command("ls")
@click.argument("name", required=False)
@at
@_JSON
def list_models(name: str | None, url: str, as_json: bool) -> int:
    """List the models, or the versions of one, with their aliases."""
    from ortc.registry.views import listing

    found = listing(open_registry(url), name)
    if as_json:
        return _print({"models": [entry.model_dump(mode="json") for entry in found]})
    for model in found:
        for version in reversed(model.versions):
            aliases = sorted(alias for alias, named in model.aliases.items() if named == version.version)
            tail = f"  ({', '.join(aliases)})" if aliases else ""
            line = f"{model.name}@{version.version}  {', '.join(version.targets)}{tail}"
            sys.stdout.write(f"{printable(line)}\n")
    return 0


@registry.command
@click.argument("reference", metavar="NAME[@VERSION|@ALIAS]")
@at
@key_option("bundles and measurements that are not signed with it are refused.")
@_JSON
def show(reference: str, url: str, key: Path | None, as_json: bool) -> int:
    """Show a version: how it was exported, with which tools, how fast it is on which hardware, and its history."""
    from ortc.cli.registry_text import write_version
    from ortc.registry.views import view

    found = view(open_registry(url), reference, key)
    if as_json:
        return _print(found.model_dump(mode="json"))
    write_version(found)
    return 0


@registry.command
@click.argument("reference", metavar="NAME@VERSION")
@click.argument("alias")
@at
@click.option("--allow-unfit", is_flag=True, help="Promote even a version whose weights are random.")
@click.option(
    "--allow-missing-targets", is_flag=True, help="Promote even where a target of the version before is lost."
)
@click.option(
    "--allow-broken-promises", is_flag=True, help="Promote even a version that a measurement says breaks a promise."
)
@key_option("versions that are not signed with it are refused.")
@_JSON
def promote(
    reference: str,
    alias: str,
    url: str,
    allow_unfit: bool,
    allow_missing_targets: bool,
    allow_broken_promises: bool,
    key: Path | None,
    as_json: bool,
) -> int:
    """Let an alias like `production` name a version."""
    from ortc.registry import aliases

    version = aliases.promote(
        open_registry(url),
        reference,
        alias,
        unfit=allow_unfit,
        fewer=allow_missing_targets,
        broken=allow_broken_promises,
        key=key,
    )
    name = reference.partition("@")[0]
    if as_json:
        return _print({"name": name, "alias": alias, "version": version})
    sys.stdout.write(f"{name}@{alias} is {version}\n")
    return 0


@registry.command
@click.argument("name")
@click.argument("alias")
@at
@_JSON
def rollback(name: str, alias: str, url: str, as_json: bool) -> int:
    """Let an alias name what it named before its newest promotion."""
    from ortc.registry import aliases

    before, version = aliases.rollback(open_registry(url), name, alias)
    if as_json:
        return _print({"name": name, "alias": alias, "version": version, "before": before})
    sys.stdout.write(f"{name}@{alias} is {version} again, and was {before}\n")
    return 0


@registry.command
@click.argument("reference", metavar="NAME[@VERSION|@ALIAS]")
@at
@click.option("-t", "--target", "targets", multiple=True, help="Only this target; may be repeated.")
@output_option("Directory for bundles: OUTPUT/NAME/VERSION/TARGET.")
@key_option("bundles that are not signed with it are refused before they appear.")
@_JSON
def get(reference: str, url: str, targets: tuple[str, ...], output: Path, key: Path | None, as_json: bool) -> int:
    """Bring a version's bundles back, compared with their digests."""
    from ortc.registry.retrieval import retrieve

    found = open_registry(url)
    name, version = found.resolve(reference)
    places = [retrieve(found, name, version, target, output, key) for target in targets or found.targets(name, version)]
    if as_json:
        return _print({"name": name, "version": version, "bundles": [str(place) for place in places]})
    for place in places:
        sys.stdout.write(f"{place}\n")
    return 0


@registry.command
@at
@click.option(
    "--keep",
    type=click.IntRange(min=1),
    metavar="N",
    help="Forget versions but for the N highest of a model and those that an alias names, or would after a rollback.",
)
@click.option(
    "--grace",
    callback=age,
    default="1d",
    show_default=True,
    metavar="AGE",
    help="How long files that nothing needs stay; longer than any registration takes.",
)
@click.option("--dry-run", is_flag=True, help="Only tell what would go.")
@_JSON
def gc(url: str, keep: int | None, grace: float, dry_run: bool, as_json: bool) -> int:
    """Delete files that no version needs any more; they are marked first, and a run after the grace period deletes."""
    from ortc.registry.collect import collect

    done = collect(open_registry(url), keep=keep, grace=timedelta(seconds=grace), dry_run=dry_run)
    if as_json:
        _print({"dry_run": dry_run, **done.model_dump(mode="json")})
        return StageError.exit_code if done.unreadable else 0
    would = "would be " if dry_run else ""
    for version in done.versions:
        sys.stdout.write(f"{version}: {would}forgotten\n")
    sys.stdout.write(
        f"{len(done.deleted)} files {would}deleted ({format_bytes(done.freed_bytes)}), "
        f"{len(done.marked)} {would}marked for a later run\n"
    )
    for message in done.unreadable:
        note(f"{message}; nothing is deleted that it may need")
    return StageError.exit_code if done.unreadable else 0


def _print(document: dict[str, Any]) -> int:
    sys.stdout.write(json.dumps({"format_version": 1, **document}, indent=2) + "\n")
    return 0
