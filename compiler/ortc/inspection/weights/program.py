"""Weights of an exported program."""

from __future__ import annotations

from ortc.inspection.pt2_archive import Call, Program
from ortc.inspection.weights.model import Operation, Reader, Tensor, Weights, shipped

_PRODUCT: Reader = frozenset({"MatMul", "Gemm"})
"""What exporters make of a linear layer depends on the rank of what it is applied to."""
_CONVOLUTION: Reader = frozenset({"Conv", "ConvTranspose"})
_READERS: dict[str, dict[str, Reader]] = {
    "torch.ops.aten.linear.default": {"weight": _PRODUCT},
    "torch.ops.aten.matmul.default": {"self": _PRODUCT, "other": _PRODUCT},
    "torch.ops.aten.mm.default": {"self": _PRODUCT, "mat2": _PRODUCT},
    "torch.ops.aten.bmm.default": {"self": _PRODUCT, "mat2": _PRODUCT},
    "torch.ops.aten.addmm.default": {"mat1": _PRODUCT, "mat2": _PRODUCT},
    "torch.ops.aten.embedding.default": {"weight": frozenset({"Gather"})},
    "torch.ops.aten.convolution.default": {"weight": _CONVOLUTION},
    **{f"torch.ops.aten.conv{rank}d.default": {"weight": _CONVOLUTION} for rank in (1, 2, 3)},
}
"""Operators of PyTorch that apply weights, with the names of the arguments that those are."""
_BY_SHAPE = ("torch.ops.aten.sym_size.int", "torch.ops.aten.sym_numel.default")
_SAME_ELEMENTS = ("permute", "t", "transpose", "view", "reshape", "unsqueeze", "squeeze", "detach", "alias", "clone")


def program_weights(program: Program, outputs: tuple[str, ...] | None) -> tuple[Weights, ...]:
    """The weights that ship of an exported program.

    Args:
        program: The program.
        outputs: The outputs that are kept; all when None.
    """
    tensors = {
        weight.name: Tensor(weight.storage, weight.elements, weight.itemsize)
        for weight in program.weights
        if weight.itemsize
    }
    calls = (_operation(call) for call in program.calls)
    return shipped(tensors, calls, {entry.name for entry in program.inputs}, _kept(program, outputs))


def _kept(program: Program, outputs: tuple[str, ...] | None) -> tuple[str, ...]:
    """The values of the outputs that a spec names, as the reference names them; see `flatten` there."""
    names = program.output_names
    if outputs is None or (not names and len(outputs) == len(program.outputs)):
        return program.outputs
    if len(names) != len(program.outputs):
        names = tuple(f"output_{index}" for index in range(len(program.outputs)))
    return tuple(value for name, value in zip(names, program.outputs, strict=True) if name in outputs)


def _operation(call: Call) -> Operation:
    readers = _READERS.get(call.target, {})
    name = call.target.removeprefix("torch.ops.aten.").partition(".")[0]
    return Operation(
        inputs=tuple(name for names in call.inputs.values() for name in names),
        outputs=call.outputs,
        weights={
            name: readers[argument] for argument, names in call.inputs.items() if argument in readers for name in names
        },
        by_shape=call.target in _BY_SHAPE,
        same_elements=name in _SAME_ELEMENTS,
    )
