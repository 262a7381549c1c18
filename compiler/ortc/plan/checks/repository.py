"""What a model's repository holds beside the model, as far as this machine has it and the spec lists it."""

from collections.abc import Iterator

from ortc.common.texts import shown
from ortc.inspection.model_files import CODE_HELP, parts_help, unwanted, visible
from ortc.inspection.positions import position_limit
from ortc.inspection.quantized_checkpoint import HELP, quantization_of
from ortc.inspection.repository import Repository, code
from ortc.spec.diagnostics.diagnostic import Diagnostic, quoted
from ortc.spec.diagnostics.rules import sources as rules
from ortc.spec.load import LoadedSpec
from ortc.spec.model_sources import HuggingFaceSource


def check(loaded: LoadedSpec, model: HuggingFaceSource, at: tuple[str, ...]) -> Iterator[Diagnostic]:
    """Report code of a repository, and parts of it that a bundle would be without.

    Args:
        loaded: the spec.
        model: a source of it.
        at: where the source stands in the document.
    """
    place = (*at, "id" if model.id is not None else "path")
    name = quoted(str(model.id or model.path))
    repository = visible(model, loaded.root)
    for found in code(repository, tuple(model.files or repository.names)):
        yield Diagnostic(
            rules.REPOSITORY_CODE,
            f"{name} brings code of its own: {found}",
            loaded.document.locate(place),
            help=CODE_HELP,
        )
    if model.weights == "pretrained" and (method := quantization_of(repository)) is not None:
        yield Diagnostic(
            rules.CHECKPOINT_QUANTIZED,
            f"the weights of {name} are quantized already, with {shown(method)}",
            loaded.document.locate(place),
            help=HELP,
        )
    if at == ("model",):
        yield from _positions(loaded, repository)
    left = unwanted(model, repository)
    if left and model.answers:
        listed = next((part.file for part in left if part.file in model.files), None)
        span = loaded.document.locate(place)
        if listed is not None:
            span = loaded.document.locate((*at, "files", listed), key=True)
        yield Diagnostic(
            rules.REPOSITORY_PARTS,
            f"{name} has parts that the exported model would be without",
            span,
            "; ".join(map(str, left)),
            help=parts_help(left),
        )


def _positions(loaded: LoadedSpec, repository: Repository) -> Iterator[Diagnostic]:
    """Report a bound of derived inputs that is above the model's positions."""
    export = loaded.spec.export
    axis, limit = export.dynamic_axes.get("sequence"), position_limit(repository.mapping("config.json"))
    if export.inputs is None and axis is not None and limit is not None and axis.max > limit:
        yield Diagnostic(
            rules.POSITIONS,
            f"`sequence` goes to {axis.max}, and the model has {limit} positions",
            loaded.document.locate(("export", "dynamic_axes", "sequence", "max")),
            help=f"write `max: {limit}` or less",
        )
