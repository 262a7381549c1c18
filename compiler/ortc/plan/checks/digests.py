"""Digests that a spec declares of files at hand, against what those files hold now."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from ortc.common.digests import sha256_file
from ortc.common.plain_files import is_plain
from ortc.inspection.hub_files import WEIGHT_SUFFIXES
from ortc.plan.plan import SourcePlan
from ortc.spec.diagnostics.diagnostic import Diagnostic, quoted
from ortc.spec.diagnostics.rules import sources as rules
from ortc.spec.load import LoadedSpec
from ortc.spec.model_sources import ExportedProgramSource, HuggingFaceSource, OnnxSource, PyTorchSource, models_beside

UPDATE = "ortc lock --update-digests"


@dataclass(frozen=True, slots=True)
class Declared:
    """A digest in a spec, where it stands, and the file that it is of."""

    at: tuple[str, ...]
    name: str
    """As the spec gives it, from the root of the project."""
    sha256: str
    file: Path

    def found(self, root: Path) -> str | None:
        """The sha256 that the file has; None without the file, and of one that lies outside of the project."""
        if not is_plain(self.file) or not self.file.resolve().is_relative_to(root.resolve()):
            return None
        return sha256_file(self.file)


def declared(loaded: LoadedSpec) -> Iterator[Declared]:
    """Every digest of a local file: of the model, and of the models beside it."""
    yield from _of(loaded.spec.model, ("model",), loaded.root)
    for role, source in models_beside(loaded.spec.model).items():
        yield from _of(source, ("model", role, "model"), loaded.root)


def check(loaded: LoadedSpec) -> Iterator[Diagnostic]:
    """Digests that are not those of their files: what was retrained is another model until the spec says so."""
    for entry in declared(loaded):
        found = entry.found(loaded.root)
        if found not in (None, entry.sha256):
            yield Diagnostic(
                rules.DIGEST_DIFFERS,
                f"{quoted(entry.name)} has another sha256 than declared: {found}",
                loaded.document.locate(entry.at),
                help=f"restore the file; or, where it is meant to be another, `{UPDATE} SPEC` writes the new digests",
            )


def _of(source: SourcePlan, at: tuple[str, ...], root: Path) -> Iterator[Declared]:
    match source:
        case PyTorchSource(weights_file=str() as name) | OnnxSource(path=name) | ExportedProgramSource(path=name):
            if source.sha256 is not None:
                yield Declared((*at, "sha256"), name, source.sha256, root / name)
        case HuggingFaceSource(path=str() as directory):
            for name, sha256 in source.files.items():
                if source.weights == "pretrained" or not name.endswith(WEIGHT_SUFFIXES):
                    yield Declared((*at, "files", name), f"{directory}/{name}", sha256, root / directory / name)
    adapter = source.adapter if isinstance(source, HuggingFaceSource) else None
    if adapter is not None and adapter.path is not None:
        for name, sha256 in adapter.files.items():
            place = root / adapter.path / name
            yield Declared((*at, "adapter", "files", name), f"{adapter.path}/{name}", sha256, place)
