"""What the two arguments of `ortc diff` name.

    DIRECTORY      a bundle, or a directory whose directories are bundles
    FILE           a spec of the work tree
    REV:PATH       a spec at a revision; PATH from the root of the repository, or from here if it starts with ./ or ../
    REV            with --spec PATH: that spec at a revision

As in git, what exists as a path is a path; `./` in front makes a path of any name.
"""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path

from ortc.common.errors import UsageError
from ortc.common.plain_files import is_directory
from ortc.diff.git import Repository

MANIFEST = "manifest.json"
_GRAMMAR = (
    "give a bundle, a directory of bundles, a spec, or a spec at a revision as REV:PATH (or REV with --spec PATH)"
)


@dataclass(frozen=True)
class Bundles:
    """Bundles by target; `single` when the argument is one bundle itself."""

    label: str
    bundles: dict[str, Path]
    single: bool


@dataclass(frozen=True)
class SpecAt:
    """A spec in the work tree, or, with a repository, at a commit of it."""

    label: str
    path: Path
    """The file; from the root of the repository where there is one."""
    repository: Repository | None = None
    revision: str | None = None
    """As the user calls the commit."""
    commit: str | None = None


@dataclass(frozen=True)
class BundlePair:
    """Two bundles, or two directories of them."""

    before: Bundles
    after: Bundles


@dataclass(frozen=True)
class SpecPair:
    """Two states of a spec, or two specs."""

    before: SpecAt
    after: SpecAt


def sides(before: str, after: str | None, spec: Path | None) -> BundlePair | SpecPair:
    """What is to be compared.

    Args:
        before: the first argument.
        after: the second one; only with `spec` may it be left out, for the work tree.
        spec: value of `--spec`: both arguments are revisions then.

    Raises:
        UsageError: an argument names nothing, or the two are not of one kind.
    """
    if spec is not None:
        return SpecPair(_at(before, spec), SpecAt(str(spec), spec) if after is None else _at(after, spec))
    if after is None:
        raise UsageError("there is nothing to compare it with", help=f"{_GRAMMAR}; twice")
    one, other = side(before), side(after)
    if isinstance(one, SpecAt) and isinstance(other, SpecAt):
        return SpecPair(one, other)
    if isinstance(one, Bundles) and isinstance(other, Bundles):
        if one.single != other.single:
            alone, many = (one, other) if one.single else (other, one)
            raise UsageError(
                f"{alone.label} is one bundle, {many.label} a directory of bundles",
                help=f"name one of {', '.join(str(path) for path in many.bundles.values())}",
            )
        return BundlePair(one, other)
    kinds = {True: "a spec", False: "no spec"}
    raise UsageError(
        f"{before} is {kinds[isinstance(one, SpecAt)]}, {after} is {kinds[isinstance(other, SpecAt)]}",
        help="compare bundles with bundles and specs with specs",
    )


def side(argument: str) -> Bundles | SpecAt:
    """What one argument names.

    Raises:
        UsageError: nothing.
    """
    path = Path(argument)
    if is_directory(path):
        return _bundles(argument, path)
    if os.path.lexists(path):
        return SpecAt(argument, path)
    revision, colon, name = argument.partition(":")
    if not colon:
        advice = _GRAMMAR if path.suffix else f"{_GRAMMAR}; to compare revisions: `ortc diff {argument} --spec PATH`"
        raise UsageError(f"there is no file or directory `{argument}`", help=advice)
    repository = Repository.around(Path())
    if name.startswith(("./", "../")):
        name = repository.here + name
    return _in_commit(repository, revision, name, argument)


def _bundles(argument: str, path: Path) -> Bundles:
    if (path / MANIFEST).is_file():
        return Bundles(argument, {path.resolve().name: path}, single=True)
    # What a build is about to publish lies beside its place, with a dot in front.
    found = {
        entry.name: entry
        for entry in sorted(path.iterdir())
        if not entry.name.startswith(".") and (entry / MANIFEST).is_file()
    }
    if not found:
        below = sorted({str(place.parents[1]) for place in path.glob(f"*/*/{MANIFEST}")})
        below += sorted({str(place.parents[1]) for place in path.glob(f"*/*/*/{MANIFEST}")})
        advice = f"name one of {', '.join(below[:8])}" if below else "`ortc build` leaves bundles in dist/NAME/VERSION"
        raise UsageError(f"{argument} is no bundle and holds none: there is no {MANIFEST}", help=advice)
    return Bundles(argument, found, single=False)


def _at(revision: str, spec: Path) -> SpecAt:
    """The spec that `--spec` names, at a revision."""
    directory = spec.parent if is_directory(spec.parent) else Path()
    repository = Repository.around(directory)
    name = os.path.relpath(spec.parent.resolve() / spec.name, repository.top)
    return _in_commit(repository, revision, name, f"{revision}:{name}")


def _in_commit(repository: Repository, revision: str, name: str, label: str) -> SpecAt:
    commit = repository.commit(revision)
    path = os.path.normpath(name)
    if path.startswith(("/", "..")):
        raise UsageError(
            f"`{name}` lies outside of the repository {repository.top}",
            help="in REV:PATH the path starts from the root of the repository, or from here with ./ in front",
        )
    if not repository.has(commit, path):
        raise UsageError(
            f"there is no file `{path}` at revision `{revision}`",
            help=f"`git ls-tree -r --name-only {revision}` lists what it has; a spec that is new since has no state to "
            "compare with: see `ortc plan`",
        )
    return SpecAt(label, Path(path), repository, revision, commit)
