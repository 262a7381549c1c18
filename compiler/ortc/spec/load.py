"""Specs and target profiles from files, with the overrides of the command line."""

import os
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path

from ortc.common.resources import targets_dir
from ortc.common.suggest import closest, listed
from ortc.spec.boundary import checkout_of, keep_inside, project_root
from ortc.spec.deployment import Spec
from ortc.spec.diagnostics.diagnostic import Diagnostic, in_order
from ortc.spec.diagnostics.errors import SpecError
from ortc.spec.diagnostics.rules import checks as rules
from ortc.spec.diagnostics.rules.schema import OVERRIDE_BASE
from ortc.spec.diagnostics.source import Document, SourceFile, Span
from ortc.spec.env_references import substitute
from ortc.spec.former_keys import former_keys
from ortc.spec.inheritance import KEY, inherited
from ortc.spec.model_sources import OnnxSource
from ortc.spec.onnx_header import read_header
from ortc.spec.overrides import apply_overrides
from ortc.spec.profile import TargetProfile
from ortc.spec.syntax.text import read
from ortc.spec.syntax.validation import validate
from ortc.spec.syntax.yaml_parser import parse
from ortc.spec.vocabulary import LEAST_OPSET


@dataclass(frozen=True, slots=True)
class LoadedSpec:
    """A spec that follows the schema, where it was written, and what its relative paths start from.

    `written` is the document with its references to the environment, before values took their places.
    """

    spec: Spec
    document: Document
    root: Path
    written: Document


@dataclass(frozen=True, slots=True)
class LoadedProfile:
    """A target profile and where it was written; `shipped` when it is one of those that come with ortc."""

    profile: TargetProfile
    document: Document
    shipped: bool = False


def load_spec(path: Path | str, overrides: tuple[str, ...] = ()) -> LoadedSpec:
    """The spec in a file, with what it inherits and what it takes from the environment.

    Args:
        path: The file; messages name it as given here.
        overrides: Arguments of `--set`, each `key.path=value`, applied in order.

    Raises:
        SpecError: the file, an override or the result of both is not a spec.
    """
    path = Path(path)
    return from_document(inherited(path), overrides, project_root(path))


def from_document(document: Document, overrides: tuple[str, ...], root: Path) -> LoadedSpec:
    """The spec in a document, with overrides and with what it takes from the environment.

    Raises:
        SpecError: an override, or the result of all, is not a spec.
    """
    document = apply_overrides(document, overrides)
    base = document.root.entries.get(KEY)
    if base is not None and base.key.source.argument is not None:
        raise SpecError(
            [Diagnostic(OVERRIDE_BASE, "`base` cannot be set", base.key, help="write `base:` into the file")]
        )
    written = document
    document, wrong = substitute(Spec, document, os.environ)
    try:
        spec = validate(Spec, document)
    except SpecError as error:
        hidden = {diagnostic.span for diagnostic in wrong}
        others = (diagnostic for diagnostic in error.diagnostics if diagnostic.span not in hidden)
        raise SpecError(in_order((*wrong, *others))) from None
    if wrong:
        raise SpecError(in_order(wrong))
    return LoadedSpec(_with_own_opset(spec, root), document, root, written)


def _with_own_opset(spec: Spec, root: Path) -> Spec:
    """The spec with the opset of its ONNX file, where it says none: a conversion is done only when it is asked for."""
    if not isinstance(spec.model, OnnxSource) or spec.export.opset is not None:
        return spec
    try:
        found = read_header(root / spec.model.path).opset
    except (OSError, ValueError):
        return spec  # a file that is missing or damaged is reported by the checks and by the build
    if not found:
        return spec
    return spec.model_copy(update={"export": spec.export.model_copy(update={"opset": max(found, LEAST_OPSET)})})


def load_profile(name: str, *, root: Path | None = None, span: Span | None = None) -> TargetProfile:
    """The target profile of a name or a path.

    Args:
        name: A name from `ortc targets`, or the path of a YAML file.
        root: A project whose `targets/NAME.yaml` goes before the profiles that come with ortc.
        span: Where the name was written, for the message.

    Raises:
        SpecError: there is no such profile, or it does not follow the schema.
    """
    return find_profile(name, root=root, span=span).profile


def is_path(name: str) -> bool:
    """Whether a target's `profile` is the path of a file, and not the name of a profile."""
    return "/" in name or name.endswith((".yaml", ".yml"))


def find_profile(name: str, *, root: Path | None = None, span: Span | None = None) -> LoadedProfile:
    """The same as `load_profile`, with the place of every value."""
    if is_path(name):
        if root is not None:
            keep_inside(Path(name), checkout_of(root / "spec"), span)
        return LoadedProfile(*_validated(read(Path(name))), _is_shipped(Path(name)))
    known = profile_files(root)
    if name not in known:
        meant = closest(name, known)
        # A label needs a place to stand at.
        advice = f"did you mean `{meant}`? " if meant and span is None else ""
        raise SpecError(
            [
                Diagnostic(
                    rules.UNKNOWN_TARGET,
                    f"there is no target profile `{name}`",
                    span,
                    f"did you mean `{meant}`?" if meant else "",
                    help=f"{advice}the profiles are {listed(known, 'and')}; name another one with `profile:`, or write "
                    f"targets/{name}.yaml",
                )
            ]
        )
    if root is not None and known[name].is_relative_to(root):
        keep_inside(known[name], checkout_of(root / "spec"), span)
    loaded = LoadedProfile(*_validated(read(known[name], f"targets/{name}.yaml")), _is_shipped(known[name]))
    if loaded.profile.name != name:
        raise SpecError(
            [
                Diagnostic(
                    rules.PROFILE_NAME,
                    f"the profile in targets/{name}.yaml calls itself `{loaded.profile.name}`",
                    loaded.document.locate(["name"]),
                    f"expected `{name}`",
                    help="name the file after the profile",
                )
            ]
        )
    return loaded


@lru_cache(maxsize=64)
def _validated(source: SourceFile) -> tuple[TargetProfile, Document]:
    """The profile in a text; the targets of many specs name the same one."""
    document = parse(source)
    if former := tuple(former_keys(document)):
        raise SpecError(in_order(former))
    return validate(TargetProfile, document), document


def _is_shipped(path: Path) -> bool:
    return path.resolve().parent == targets_dir().resolve()


def profile_files(root: Path | None = None) -> dict[str, Path]:
    """The files of all target profiles by name; those of a project go before ortc's own."""
    directories = [targets_dir()] + ([root / "targets"] if root is not None else [])
    files = {path.stem: path for directory in directories for path in directory.glob("*.yaml")}
    return dict(sorted(files.items()))
