"""String inputs of a spec: which sources have them, and what synthetic samples of them are made of."""

from collections.abc import Iterator

from ortc.spec.deployment import InputSpec
from ortc.spec.diagnostics.diagnostic import Diagnostic
from ortc.spec.diagnostics.rules import checks as rules
from ortc.spec.load import LoadedSpec
from ortc.spec.vocabulary import STRING

_EXAMPLES = "give a few strings that mean something to the model: `examples: [red, green]`"


def check(loaded: LoadedSpec) -> Iterator[Diagnostic]:
    """Every declared input, with strings and without."""
    for name, tensor in (loaded.spec.export.inputs or {}).items():
        if tensor.dtype == STRING:
            yield from _string(loaded, name, tensor)
        elif tensor.examples is not None:
            yield Diagnostic(
                rules.STRING_INPUT,
                f"`{name}` has `examples`, and its dtype is {tensor.dtype}",
                loaded.document.locate(("export", "inputs", name, "examples")),
                help="remove them: numbers are drawn from `range`",
            )


def _string(loaded: LoadedSpec, name: str, tensor: InputSpec) -> Iterator[Diagnostic]:
    document, path = loaded.document, ("export", "inputs", name)
    if loaded.spec.model.source != "onnx":
        yield Diagnostic(
            rules.STRING_INPUT,
            f"`{name}` is a string input, and the source is `{loaded.spec.model.source}`",
            document.locate((*path, "dtype")),
            help="only a `source: onnx` takes strings: PyTorch has no tensors of them",
        )
        return
    for key in ("range", "fill"):
        if getattr(tensor, key) is not None:
            yield Diagnostic(
                rules.STRING_INPUT,
                f"the string input `{name}` has a `{key}`",
                document.locate((*path, key)),
                help=f"remove it; {_EXAMPLES}",
            )
    if tensor.examples is None:
        if loaded.spec.accuracy.samples is None:
            yield missing(name, loaded, path)
        return
    last = tensor.shape[-1] if len(tensor.shape) > 1 else 1
    columns = last if isinstance(last, int) else 1
    for index, example in enumerate(tensor.examples):
        found = len(example) if isinstance(example, tuple) else 1
        if (isinstance(example, tuple) or columns > 1) and found != columns:
            yield Diagnostic(
                rules.STRING_INPUT,
                f"an example of `{name}` has {_counted(found)}, and a row of the input has {_counted(columns)}",
                document.locate((*path, "examples", index)),
                help="write each example as a list with one string per column"
                if columns > 1
                else "write plain strings",
            )
            return


def _counted(strings: int) -> str:
    return f"{strings} string{'' if strings == 1 else 's'}"


def missing(name: str, loaded: LoadedSpec, path: tuple[str, ...]) -> Diagnostic:
    """What is wrong with a string input that no sample can be made of."""
    return Diagnostic(
        rules.STRING_INPUT,
        f"the string input `{name}` has neither `examples` nor `accuracy.samples`",
        loaded.document.locate(path, key=True),
        help=_EXAMPLES,
    )
