"""The samples that a spec names: whether ortc can read them, told by names alone."""

from collections.abc import Iterator

from ortc.common.errors import StageError
from ortc.common.plain_files import is_directory, is_plain
from ortc.inspection.image_files import IMAGES, image_files
from ortc.plan.checks.paths import missing
from ortc.spec.diagnostics.diagnostic import Diagnostic, quoted
from ortc.spec.diagnostics.rules import sources as rules
from ortc.spec.diagnostics.source import Span
from ortc.spec.load import LoadedSpec
from ortc.spec.model_sources import HuggingFaceSource

TEXT = ("", ".txt", ".text")
"""Suffixes of files with one text a line."""
_IMAGE = "name the directory that the images are in"
_FORMS = (
    "samples are an .npz file with an array an input, a .txt file with one a line, a directory of images, or "
    "`{entrypoint: module:function}`"
)


def check(loaded: LoadedSpec, name: str) -> Iterator[Diagnostic]:
    """A file of text or arrays, or a directory of images."""
    span = loaded.document.locate(["accuracy", "samples"])
    path = loaded.root / name
    suffix = path.suffix.lower()
    if is_directory(path):
        try:
            image_files(path)
        except StageError as error:
            message = f"{quoted(name)} is a directory without images"
            yield Diagnostic(rules.SAMPLES_FORMAT, message, span, help=error.help)
    elif not is_plain(path):
        yield missing(loaded, span, name, "file", rules.SAMPLES_MISSING)
    elif path.suffix == ".npz":
        return
    elif suffix not in TEXT:
        advice = _IMAGE if suffix in IMAGES else _FORMS
        yield Diagnostic(rules.SAMPLES_FORMAT, f"{quoted(name)} is neither .npz nor .txt", span, help=advice)
    else:
        yield from _text(loaded, span)


def _text(loaded: LoadedSpec, span: Span) -> Iterator[Diagnostic]:
    if not isinstance(loaded.spec.model, HuggingFaceSource):
        yield Diagnostic(
            rules.SAMPLES_FORMAT,
            f"text samples need a tokenizer, which a source `{loaded.spec.model.source}` does not have",
            span,
            help="give an .npz file with an array an input",
        )
    elif loaded.spec.model.files and "tokenizer.json" not in loaded.spec.model.files:
        yield Diagnostic(
            rules.SAMPLES_FORMAT,
            "text samples need a tokenizer, and `model.files` has no tokenizer.json",
            span,
            help="list tokenizer.json with its sha256 in `model.files`, or give an .npz file with an array an input",
        )
