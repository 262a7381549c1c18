"""Bring the graph of an ONNX file into the form that everything after it reads.

Files may hold sparse initializers, functions of another opset than the graph's, and sizes of 0 or -1 for open ones.
"""

from __future__ import annotations

from collections import Counter
from typing import TYPE_CHECKING

from ortc.common.errors import StageError
from ortc.common.texts import shown
from ortc.inspection.external_data import function_nodes, graph_nodes
from ortc.passes.canonical import defined

if TYPE_CHECKING:
    import onnx
    import onnx_ir as ir

MOST_DENSE = 2**30
"""Most numbers of a sparse initializer, once its zeros are written out."""
MOST_NODES = 1_000_000
"""Most nodes of a graph whose functions are written out."""
_LOCALE = b"C.UTF-8"
_TURKIC = (b"tr", b"az", b"cr", b"ku", b"tt")
"""How names of locales begin in which `I` is not the capital of `i`: Turkish, Azerbaijani, Crimean, Kurdish, Tatar."""
MOST_CAUSE = 400
"""Most characters of another program's message, which repeats names of any length."""


def open_dimensions(model: onnx.ModelProto) -> bool:
    """Forget the sizes of inputs that are 0 or less, by which some writers mean an open one; whether there were any."""
    found = False
    for value in model.graph.input:
        for dim in value.type.tensor_type.shape.dim:
            if dim.HasField("dim_value") and dim.dim_value <= 0:
                dim.ClearField("dim_value")
                found = True
    return found


def name_portable_locales(model: onnx.ModelProto) -> bool:
    """Make StringNormalizer change case by the locale that every Linux has; whether it named another one.

    Its default is `en_US.UTF-8`, which slim images and most servers lack, and without which no session opens. The C
    library lowers and raises letters of all its locales alike, but for the dotless i of Turkic languages.
    """
    found = False
    for node in graph_nodes(model):
        if node.op_type != "StringNormalizer" or node.domain not in ("", "ai.onnx"):
            continue
        named = next((attribute for attribute in node.attribute if attribute.name == "locale"), None)
        if named is not None and (named.s == _LOCALE or named.s[:2].lower() in _TURKIC):
            continue
        if named is None:
            named = node.attribute.add()
            named.name, named.type = "locale", named.STRING
        named.s = _LOCALE
        found = True
    return found


def write_out_sparse(model: onnx.ModelProto) -> None:
    """Replace the sparse initializers of the main graph by initializers with their zeros.

    Raises:
        StageError: one is too large, or is not well-formed.
    """
    import numpy as np
    from onnx import numpy_helper

    for sparse in model.graph.sparse_initializer:
        name, shape = sparse.values.name, tuple(sparse.dims)
        if min(shape, default=1) < 0 or (size := int(np.prod(shape, dtype=object))) > MOST_DENSE:
            raise StageError(
                f"the sparse initializer `{shown(name)}` has the sizes {list(shape)}, which ortc does not write out",
                help="export the model again with dense weights",
            )
        try:
            values, indices = numpy_helper.to_array(sparse.values), numpy_helper.to_array(sparse.indices)
            places = indices if indices.ndim == 1 else np.ravel_multi_index(tuple(indices.T), shape)
            dense = np.zeros(size, values.dtype)
            dense[places] = values
        except (ValueError, IndexError, TypeError) as error:
            raise StageError(
                f"the sparse initializer `{shown(name)}` cannot be read: {error}", help="export the model again"
            ) from error
        model.graph.initializer.append(numpy_helper.from_array(dense.reshape(shape), name))
    del model.graph.sparse_initializer[:]


def expect_few_nodes(model: onnx.ModelProto) -> None:
    """Check what the functions of a file come to when they are written out: each may call another many times.

    Raises:
        StageError: a function calls itself, or there are more than MOST_NODES nodes.
    """
    functions = {(function.domain, function.name, function.overload): function for function in model.functions}
    sizes: dict[tuple[str, str, str], int] = {}
    calls = {
        key: Counter((node.domain, node.op_type, node.overload) for node in function_nodes(function))
        for key, function in functions.items()
    }
    waiting = list(functions)
    entered: set[tuple[str, str, str]] = set()
    while waiting:
        key = waiting[-1]
        unknown = [called for called in calls[key] if called in functions and called not in sizes]
        if key in sizes or not unknown:
            waiting.pop()
            sizes[key] = sum(sizes.get(called, 1) * count for called, count in calls[key].items())
            continue
        if key in entered:
            raise StageError(f"the function `{shown(key[1])}` of the file calls itself", help="export the model again")
        entered.add(key)
        waiting += unknown
    total = sum(sizes.get((node.domain, node.op_type, node.overload), 1) for node in graph_nodes(model))
    if total > MOST_NODES:
        raise StageError(
            f"the functions of the file come to more than {MOST_NODES} nodes when they are written out",
            help="export the model again without functions",
        )


def inline_functions(model: onnx.ModelProto) -> onnx.ModelProto:
    """Bring functions that were written for another opset than the graph's to that one.

    Functions whose operators are the same in both stay functions; all are written out where one has to be converted.

    Returns:
        The model, changed in place, or a new one.

    Raises:
        StageError: ONNX cannot convert the operators of a function.
    """
    own = {entry.domain: entry.version for entry in model.opset_import}
    differs = False
    for function in model.functions:
        for entry in function.opset_import:
            target = own.setdefault(entry.domain, entry.version)
            if target != entry.version and not _differently_defined(function, entry.domain, entry.version, target):
                entry.version = target
            differs |= target != entry.version
    if not differs:
        return model
    import onnx.inliner

    # ONNX's converter knows the types of inputs alone.
    listed = {value.name for value in model.graph.input}
    added = [tensor for tensor in model.graph.initializer if tensor.name not in listed]
    model.graph.input.extend(onnx.helper.make_tensor_value_info(t.name, t.data_type, t.dims) for t in added)
    try:
        inlined = onnx.inliner.inline_local_functions(model, convert_version=True)
    except (RuntimeError, ValueError) as error:
        raise StageError(
            f"the file has functions of another opset, which cannot be converted: {_first(error)}",
            help="export the model again with one opset for the graph and its functions",
        ) from error
    del inlined.graph.input[len(listed) :]
    return inlined


def _differently_defined(function: onnx.FunctionProto, domain: str, source: int, target: int) -> bool:
    """Whether two versions of a domain differ in an operator of a function."""
    nodes = (node for node in function_nodes(function) if node.domain == domain)
    return any(defined(node.op_type, source, domain) != defined(node.op_type, target, domain) for node in nodes)


def inline(model: ir.Model) -> None:
    """Replace the calls of functions by their nodes, in place.

    Raises:
        StageError: a function calls itself, or is called with what it does not take.
    """
    from onnx_ir.passes import InvariantError, PassError
    from onnx_ir.passes.common import InlinePass

    try:
        InlinePass()(model)
    except (InvariantError, PassError, ValueError, KeyError, TypeError) as error:
        raise StageError(
            f"the functions of the file cannot be written out: {_first(error)}",
            help="export the model again without functions",
        ) from error


def _first(error: Exception) -> str:
    lines = str(error.__cause__ or error).strip().splitlines()
    return shown(lines[0] if lines else type(error).__name__, MOST_CAUSE)
