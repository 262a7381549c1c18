"""Models that are not from transformers: a function that builds a module, or a saved exported program."""

from __future__ import annotations

import os
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ortc.common.errors import StageError
from ortc.common.project import ending_is_an_error, resolve_entrypoint
from ortc.frontend.reference.binding import Binding
from ortc.frontend.reference.model import Reference, finish
from ortc.frontend.reference.state import numbers
from ortc.frontend.reference.state_dicts import reason, state_dict
from ortc.frontend.reference.trained import give_weights, weights_of
from ortc.inspection.pt2_safety import checked_copy
from ortc.plan.plan import ExportPlan, InputPlan
from ortc.spec.model_sources import ExportedProgramSource, PyTorchSource

if TYPE_CHECKING:
    import torch

NOTHING_TO_LOAD = "the module has no parameters and no buffers, which `weights: none` would say"


def load_module(source: PyTorchSource, directory: Path, root: Path, export: ExportPlan) -> Reference:
    """Build the module of an entry point and load its weights.

    Raises:
        StageError: the entry point fails, does not give a module, or the module is not what `weights` says.
    """
    if export.inputs is None:
        raise StageError("a pytorch source needs `export.inputs`", help="declare name, dtype and shape of each input")
    module, notes = build_module(source, directory, root)
    if source.weights == "entrypoint" and not any(numbers(module)):
        notes = (NOTHING_TO_LOAD, *notes)
    return finish(module, export.inputs, export, notes)


def build_module(source: PyTorchSource, directory: Path, root: Path) -> tuple[torch.nn.Module, tuple[str, ...]]:
    """The module of an entry point with its weights, and what somebody should know of their file.

    Raises:
        StageError: the entry point fails, does not give a module, or the module is not what `weights` says.
    """
    import torch

    with ending_is_an_error(source.entrypoint):
        module = resolve_entrypoint(source.entrypoint, root)(**source.args)
    if not isinstance(module, torch.nn.Module):
        raise StageError(f"`{source.entrypoint}` gives {type(module).__name__}, not a torch.nn.Module")
    path = weights_of(source, directory)
    state, notes = (None, ()) if path is None else state_dict(source, path)
    give_weights(source, module, state)
    return module, notes


def load_program(source: ExportedProgramSource, directory: Path, export: ExportPlan) -> Reference:
    """A program that torch.export saved, as a module.

    Raises:
        StageError: unreadable, pickled code inside, or more than flat tensor inputs.
    """
    import torch

    path = directory / Path(source.path).name
    # torch.export.load falls back to a full unpickle for some members; this makes every torch.load safe.
    os.environ["TORCH_FORCE_WEIGHTS_ONLY_LOAD"] = "1"
    with tempfile.TemporaryDirectory(prefix="ortc-program-") as scratch:
        copy = Path(scratch) / "program.pt2"
        checked_copy(path, copy)
        try:
            program = torch.export.load(copy)
        except Exception as error:
            raise StageError(f"cannot read the exported program `{path.name}`: {reason(error)}") from error
    # Guards are Python text in the file, and would be compiled; the plan's axes say which sizes are allowed.
    module = program.module(check_guards=False)
    # torch replaces train() and eval() of such a module by functions that raise: its mode was fixed when it was
    # exported. Without them the module's own do, and change nothing of what the graph computes.
    for name in ("train", "eval"):
        vars(module).pop(name, None)
    inputs = export.inputs or program_inputs(program, export)
    binding = program_binding(program, tuple(tensor.name for tensor in inputs))
    return finish(module, inputs, export, binding=binding)


def program_binding(program: Any, names: tuple[str, ...]) -> Binding:
    """Bind declared inputs to the tensors of a program; everything else has the value that it was exported with.

    Raises:
        StageError: the names or their number are not those of the program's tensors, or the program takes a number.
    """
    from torch.utils import _pytree as pytree

    arguments = _arguments(program)
    tensors = tuple(argument.name for argument in arguments if not hasattr(argument, "value"))
    notes: tuple[str, ...] = ()
    order = {name: names.index(name) for name in tensors if name in names}
    if not order and len(names) == len(tensors):
        order = dict(zip(tensors, range(len(names)), strict=True))
        told = f"{', '.join(names)} to {', '.join(tensors)}"
        notes = (f"the program has no inputs of these names, so that they are passed in order: {told}",)
    if len(order) != len(tensors) or len(names) != len(tensors):
        raise StageError(
            f"the program takes the tensors {', '.join(tensors)}; `export.inputs` declares {', '.join(names)}",
            help="leave out `export.inputs`, or name the inputs as the program does",
        )
    layout = program.call_spec.in_spec

    def call(module: Any, inputs: Sequence[Any]) -> Any:
        flat = [
            argument.value if hasattr(argument, "value") else inputs[order[argument.name]] for argument in arguments
        ]
        positional, keywords = pytree.tree_unflatten(flat, layout)
        return module(*positional, **keywords)

    return Binding(call, notes)


def _arguments(program: Any) -> list[Any]:
    """What a program takes, flattened: tensors with a name, constants with a value.

    Raises:
        StageError: the program takes a number that may vary, or an object.
    """
    from torch.export.graph_signature import ConstantArgument, InputKind, TensorArgument

    specs = program.graph_signature.input_specs
    arguments = [entry.arg for entry in specs if entry.kind is InputKind.USER_INPUT]
    for argument in arguments:
        if not isinstance(argument, TensorArgument | ConstantArgument):
            raise StageError(
                f"the program's input `{argument.name}` is no tensor ({type(argument).__name__})",
                help="export the program again with a tensor in its place, or with a constant",
            )
    return arguments


def program_inputs(program: Any, export: ExportPlan) -> tuple[InputPlan, ...]:
    """Inputs of an exported program: names and dtypes from its signature, dynamic dimensions matched to declared axes.

    Raises:
        StageError: a dynamic dimension cannot be matched to a declared axis.
    """
    declared = {axis.name: axis for axis in export.axes}
    values = {node.name: node.meta["val"] for node in program.graph.nodes if node.op == "placeholder"}
    symbols: dict[str, str] = {}
    inputs = []
    for name in (argument.name for argument in _arguments(program) if not hasattr(argument, "value")):
        value = values[name]
        shape: list[str | int] = []
        for size in value.shape:
            if isinstance(size, int):
                shape.append(size)
                continue
            symbol = str(size)
            if symbol not in symbols:
                free = [axis for axis in declared if axis not in symbols.values()]
                if not free:
                    raise StageError(
                        f"the program's input `{name}` has a dynamic dimension `{symbol}` without a declared axis",
                        help="declare one axis for each dynamic dimension, in order of appearance, or `export.inputs`",
                    )
                symbols[symbol] = free[0]
            shape.append(symbols[symbol])
        dtype = str(value.dtype).removeprefix("torch.")
        inputs.append(InputPlan.model_validate({"name": name, "dtype": dtype, "shape": tuple(shape)}))
    return tuple(inputs)
