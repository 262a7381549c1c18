"""Two bundles by what lies in them; nothing is run."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

from ortc.bundle.manifest import FileInfo, Manifest, read_bundle
from ortc.bundle.session_file import SessionFile, read_session
from ortc.common.digests import sha256_file
from ortc.common.errors import StageError
from ortc.common.plain_files import read_plain_text
from ortc.diff.report import BundleInfo, OperatorChange, Section, Sizes
from ortc.diff.requirements import versions
from ortc.diff.values import changes
from ortc.execution.worker import is_script

_DECIDED = ("model/", "golden/")
_TOLD = {"session.json", "requirements.txt"}
"""Files that other sections tell of."""


class Bundle:
    """A bundle and what its small files say.

    Raises:
        StageError: it is none that this ortc reads.
    """

    def __init__(self, path: Path) -> None:
        self.path = path.resolve()
        self.manifest: Manifest = read_bundle(path)
        self.session: SessionFile = read_session(path)
        self.requirements = ""
        """Of a bundle for browsers or Node empty: the manifest names its runtime."""
        if is_script(path):
            return
        try:
            self.requirements = read_plain_text(path / "requirements.txt")
        except (OSError, ValueError) as error:
            raise StageError(f"{path} is not a whole bundle: {error}", help="`ortc build` writes it again") from error

    def file(self, name: str) -> Path:
        """A file that the manifest names.

        Raises:
            StageError: it is not there, or leads out of the bundle.
        """
        found = self.path / name
        if not found.is_file() or not found.resolve().is_relative_to(self.path):
            raise StageError(f"{self.path} has no `{name}`, which its manifest.json names", help="get the bundle again")
        return found

    def info(self) -> BundleInfo:
        """Which bundle it is."""
        manifest = self.manifest
        return BundleInfo(
            name=manifest.name,
            version=manifest.version,
            target=manifest.target,
            variant=manifest.variant.name,
            graph_level=manifest.variant.graph_level,
            precision=manifest.variant.precision,
            manifest_sha256=sha256_file(self.path / "manifest.json"),
        )


def _json(value: Any) -> Any:
    return value.model_dump(mode="json")


def _identity(bundle: Bundle) -> Any:
    fields = ("name", "version", "target", "platforms", "fit_to_serve", "unfit_reason", "provisional")
    document = _json(bundle.manifest)
    return {name: document[name] for name in fields}


def _source(bundle: Bundle) -> Any:
    document = _json(bundle.manifest.provenance)
    document["files"] = {file["name"]: file["sha256"] for file in document["files"]}
    return document


def _interface(bundle: Bundle) -> Any:
    document = _json(bundle.manifest)
    return {name: document[name] for name in ("inputs", "outputs", "axes")}


def _promises(bundle: Bundle) -> Any:
    document = _json(bundle.manifest)
    golden = {case["name"]: case["tolerance"] for case in document["golden"]}
    # Which nodes compute shapes belongs to the graph, whose operators are told apart elsewhere.
    placement = {key: value for key, value in document["placement"].items() if key != "shape_nodes"}
    return {**document["promises"], "placement": placement, "golden": golden}


def _files(bundle: Bundle) -> Any:
    def told(file: FileInfo) -> bool:
        return file.path in _TOLD or file.path.startswith(_DECIDED)

    return {file.path: file.sha256 for file in bundle.manifest.files if not told(file)}


_SECTIONS: tuple[tuple[str, Callable[[Bundle], Any]], ...] = (
    ("identity", _identity),
    ("source", _source),
    ("model", lambda bundle: bundle.manifest.model.model_dump(mode="json", exclude={"bytes", "operators"})),
    ("variant", lambda bundle: _json(bundle.manifest.variant)),
    ("decisions", lambda bundle: [_json(decision) for decision in bundle.manifest.decisions]),
    ("interface", _interface),
    ("promises", _promises),
    ("runtime", lambda bundle: _json(bundle.manifest.runtime)),
    ("requirements", lambda bundle: versions(bundle.requirements)),
    ("session", lambda bundle: _json(bundle.session)),
    ("files", _files),
)


def sections(before: Bundle, after: Bundle) -> tuple[Section, ...]:
    """What differs, part by part; sizes, graphs and measurements are told elsewhere."""
    found = ((name, tuple(changes(part(before), part(after)))) for name, part in _SECTIONS)
    return tuple(Section(name=name, changes=differences) for name, differences in found if differences)


def sizes(before: Bundle, after: Bundle) -> Sizes:
    """Bytes of the models and of all files."""
    total = [sum(file.bytes for file in bundle.manifest.files) for bundle in (before, after)]
    return Sizes(
        model_before=before.manifest.model.bytes,
        model_after=after.manifest.model.bytes,
        total_before=total[0],
        total_after=total[1],
    )


def operators(before: Bundle, after: Bundle) -> tuple[OperatorChange, ...]:
    """Operators of which the graphs hold different numbers, subgraphs and functions included.

    Raises:
        StageError: a graph cannot be read.
    """
    old, new = _operators(before), _operators(after)
    return tuple(
        OperatorChange(operator=name, before=old.get(name, 0), after=new.get(name, 0))
        for name in sorted(old.keys() | new.keys())
        if old.get(name, 0) != new.get(name, 0)
    )


def _operators(bundle: Bundle) -> dict[str, int]:
    import onnx_ir as ir
    from google.protobuf.message import DecodeError

    from ortc.passes.canonical import count_operators

    path = bundle.file(bundle.manifest.model.file)
    try:
        # Weights that lie beside the graph are not read.
        return count_operators(ir.load(path))
    except (OSError, DecodeError) as error:
        raise StageError(f"{path} is no ONNX graph that can be read: {error}") from error
