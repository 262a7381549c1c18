"""External data of ONNX files: which files hold weights, and copies of them beside a copy of the graph.

A file says where its weights are, and nobody has checked that file. Weights come from below the graph's own directory,
or, where caches keep every file as a link into one directory, from the directory that the graph's own link leads to.
"""

from __future__ import annotations

import hashlib
import math
import stat
from collections.abc import Iterable, Iterator
from pathlib import Path, PurePosixPath
from typing import TYPE_CHECKING, Any

from ortc.common.errors import StageError
from ortc.common.plain_files import open_plain
from ortc.common.texts import shown

if TYPE_CHECKING:
    import onnx

POINTER = b"version https://git-lfs.github.com/spec/"
"""How a file begins that Git LFS left in place of the real one."""
_CHUNK = 1 << 20
_MOST_DIGITS = 19
"""Of a number of bytes."""


def refuse_pointer(path: Path, name: str) -> None:
    """Check that a file is not what Git LFS leaves where it has not fetched the file.

    Raises:
        StageError: the file is such a pointer.
    """
    with open_plain(path) as file:
        if file.read(len(POINTER)) == POINTER:
            raise StageError(f"`{name}` is a Git LFS pointer, not the file itself", help="fetch it with `git lfs pull`")


def load_graph(path: Path) -> onnx.ModelProto:
    """An ONNX file without the weights that are kept in other files.

    Raises:
        StageError: not an ONNX file, or one with names that are not UTF-8.
    """
    import onnx
    from google.protobuf.message import DecodeError

    try:
        model = onnx.load(str(path), load_external_data=False)
    except DecodeError as error:
        raise StageError(f"`{path.name}` is no ONNX file: {error}") from error
    if (text := _undecoded(model)) is not None:
        raise StageError(
            f"`{path.name}` holds a name that is not UTF-8: `{shown(text.decode('utf-8', 'surrogateescape'))}`",
            help="export the model again, or rename what is called so",
        )
    return model


def _undecoded(model: onnx.ModelProto) -> bytes | None:
    """A text of a model that is not UTF-8, for which protobuf gives bytes; weights are passed over."""
    pending: list[Any] = [model]
    while pending:
        message = pending.pop()
        if message.DESCRIPTOR.name == "TensorProto":
            # Its content may be gigabytes, which ListFields would copy.
            found = [message.name, message.doc_string]
            pending += message.external_data
        else:
            found = []
            for field, value in message.ListFields():
                values = value if field.is_repeated else [value]
                if field.message_type is not None:
                    pending += values
                elif field.type == field.TYPE_STRING:
                    found += values
        if (wrong := next((text for text in found if isinstance(text, bytes)), None)) is not None:
            return wrong
    return None


def locations(model: onnx.ModelProto) -> list[str]:
    """The files that hold tensors of a model, of branches, bodies and functions as well: sorted, as it names them."""
    every = (*initializers(model), *_attributes(model))
    return sorted({_location(tensor) for tensor in every if _is_external(tensor)})


def load_attributes(model: onnx.ModelProto, directory: Path) -> None:
    """Read the tensors of attributes that are kept in other files; initializers stay there.

    Args:
        model: changed in place.
        directory: that locations are relative to.
    """
    import onnx

    for tensor in _attributes(model):
        if _is_external(tensor):
            onnx.external_data_helper.load_external_data_for_tensor(tensor, str(directory))
            del tensor.external_data[:]
            tensor.data_location = onnx.TensorProto.DEFAULT


def expect_places(model: onnx.ModelProto, directory: Path) -> None:
    """Check that tensors in other files lie within them, and have as many bytes as their sizes say.

    Args:
        model: as it was read.
        directory: that locations are relative to.

    Raises:
        StageError: naming a tensor that does not.
    """
    for tensor in (*initializers(model), *_attributes(model)):
        if not _is_external(tensor):
            continue
        entries = {entry.key: entry.value for entry in tensor.external_data}
        location = entries.get("location", "")
        try:
            found = (directory / location).stat()
            held = found.st_size if stat.S_ISREG(found.st_mode) else 0
        except (OSError, ValueError):
            held = 0
        needed = _bytes_of(tensor)
        offset, length = (_number(entries.get(key, default)) for key, default in (("offset", "0"), ("length", "")))
        if entries.get("length", "0") == "0":
            length = needed  # to the end of the tensor
        if needed is None or offset is None or length != needed or offset + needed > held:
            stated = ", ".join(f"{key} {entries[key]}" for key in ("offset", "length") if key in entries) or "no offset"
            raise StageError(
                f"the tensor `{shown(tensor.name)}` lies at {shown(stated)} of `{shown(location)}`, which has {held} "
                f"bytes; its sizes {shown(str(list(tensor.dims)))} need {'a known type' if needed is None else needed}",
                help="export the model again, or get its file of weights again",
            )


def _number(text: str) -> int | None:
    """A number of bytes as a file states it, None where it is none."""
    return int(text) if text.isascii() and text.isdigit() and len(text) < _MOST_DIGITS else None


def _bytes_of(tensor: onnx.TensorProto) -> int | None:
    """How many bytes a tensor takes in a file; None where its type has no size."""
    import onnx_ir as ir

    try:
        bits = ir.DataType(tensor.data_type).bitwidth
    except (ValueError, TypeError):
        return None
    return -(-int(math.prod(tensor.dims)) * int(bits) // 8)


def _is_external(tensor: onnx.TensorProto) -> bool:
    return bool(tensor.data_location == tensor.EXTERNAL)


def _location(tensor: onnx.TensorProto) -> str:
    return next((entry.value for entry in tensor.external_data if entry.key == "location"), "")


def initializers(model: onnx.ModelProto) -> Iterator[onnx.TensorProto]:
    inner = (graph for node in graph_nodes(model) for graph in _graphs(node))
    for graph in (model.graph, *inner):
        yield from graph.initializer
        for sparse in graph.sparse_initializer:
            yield from (sparse.values, sparse.indices)


def _attributes(model: onnx.ModelProto) -> Iterator[onnx.TensorProto]:
    for node in graph_nodes(model):
        for attribute in node.attribute:
            yield from (attribute.t, *attribute.tensors)
            for sparse in (attribute.sparse_tensor, *attribute.sparse_tensors):
                yield from (sparse.values, sparse.indices)


def graph_nodes(model: onnx.ModelProto) -> Iterator[onnx.NodeProto]:
    yield from _nodes(model.graph.node)
    for function in model.functions:
        yield from function_nodes(function)


def has_default_domain(model: onnx.ModelProto) -> bool:
    """Whether a model says the opset of ONNX's own operators, or has any of them: classifiers alone need none."""
    own = ("", "ai.onnx")
    return any(entry.domain in own for entry in (*model.opset_import, *graph_nodes(model)))


def function_nodes(function: onnx.FunctionProto) -> Iterator[onnx.NodeProto]:
    """The nodes of a function, with those of branches and bodies."""
    yield from _nodes(function.node)


def _nodes(first: Iterable[onnx.NodeProto]) -> Iterator[onnx.NodeProto]:
    pending = [first]
    while pending:
        for node in pending.pop():
            yield node
            pending.extend(graph.node for graph in _graphs(node))


def _graphs(node: onnx.NodeProto) -> Iterator[onnx.GraphProto]:
    for attribute in node.attribute:
        yield from (attribute.g, *attribute.graphs)


def data_file(graph: Path, location: str) -> Path:
    """The file of a location, links followed.

    Args:
        graph: the ONNX file, which may be a link.
        location: as the graph has it.

    Raises:
        StageError: the location or a link leads elsewhere, or there is no such file.
    """
    parts = PurePosixPath(location).parts
    leads_out = (
        not parts or PurePosixPath(location).is_absolute() or ".." in parts or "\\" in location or "\0" in location
    )
    if leads_out:
        raise StageError(
            f"`{graph.name}` keeps weights in {location!r}, which is not below the directory of the graph",
            help="keep the weights beside the graph, or below it",
        )
    place = graph.parent / location
    try:
        found = place.resolve(strict=True)
    except (OSError, RuntimeError):
        found = place
    if not found.is_file():
        raise StageError(
            f"`{graph.name}` keeps weights in `{location}`, which is not there",
            help="copy the file beside the graph, where the export wrote it",
        )
    own, linked = graph.parent.resolve(), graph.resolve().parent
    if not (found.is_relative_to(own) or (found.parent == linked)):
        raise StageError(
            f"`{graph.name}` keeps weights in `{location}`, a link that leads out of the directory of the graph",
            help="put the file itself there",
        )
    return found


def copy(source: Path, target: Path) -> str:
    """Copy a file; the sha256, in hex, of the bytes that were copied."""
    target.parent.mkdir(parents=True, exist_ok=True)
    digest = hashlib.sha256()
    with open_plain(source) as read, target.open("xb") as written:
        while chunk := read.read(_CHUNK):
            digest.update(chunk)
            written.write(chunk)
    return digest.hexdigest()
