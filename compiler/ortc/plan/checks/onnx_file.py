"""The interface of an ONNX file: what a bundle can take and give of it, told without parsing the graph."""

from collections.abc import Iterator

from ortc.common.errors import StageError
from ortc.common.texts import shown
from ortc.inspection.external_data import refuse_pointer
from ortc.inspection.onnx_interface import problems
from ortc.inspection.onnx_wire import read_interface
from ortc.plan.checks import strings
from ortc.spec.diagnostics.diagnostic import Diagnostic, quoted
from ortc.spec.diagnostics.rules import sources as rules
from ortc.spec.load import LoadedSpec
from ortc.spec.model_sources import OnnxSource

_RULES = {"name": rules.TENSOR_NAME, "type": rules.TENSOR_TYPE, "missing": rules.TENSOR_MISSING}


def check(loaded: LoadedSpec, model: OnnxSource, at: tuple[str, ...]) -> Iterator[Diagnostic]:
    """Check the file of a source whose `path` is a file with the right suffix.

    Args:
        loaded: the spec.
        model: the source.
        at: path of the source in the document; `export` is about `model` alone, not about a teacher.
    """
    span = loaded.document.locate((*at, "path"))
    path = loaded.root / model.path
    try:
        refuse_pointer(path, model.path)
        interface = read_interface(path)
    except StageError as error:
        yield Diagnostic(rules.FORMAT, error.message, span, help=error.help)
        return
    except (OSError, ValueError) as error:
        reason = shown(str(error), 200)
        yield Diagnostic(rules.FORMAT, f"{quoted(model.path)} cannot be read as ONNX: {reason}", span)
        return
    export = loaded.spec.export
    own = at == ("model",)
    outputs, declared = (export.outputs, export.inputs) if own else (None, None)
    for problem in problems(interface, outputs, None if declared is None else tuple(declared)):
        yield Diagnostic(_RULES[problem.about], problem.message, span, help=problem.help)
    if own and declared is None and loaded.spec.accuracy.samples is None:
        for value in interface.taken(None):
            if value.is_text:
                yield strings.missing(shown(value.name), loaded, ("export",))
