"""Load any supported source as one module with ordered tensor inputs and outputs."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from ortc.common.errors import StageError
from ortc.common.texts import shown
from ortc.frontend.reference.binding import Binding, bind
from ortc.frontend.reference.outputs import Flattened, flatten
from ortc.inspection.tensor_names import check_names
from ortc.plan.plan import ExportPlan, InputPlan

if TYPE_CHECKING:
    import torch

    Tensors = tuple[torch.Tensor, ...]


class ForwardError(StageError):
    """The model's forward() fails on inputs of the declared names, dtypes and shapes."""


@dataclass(frozen=True)
class Reference:
    """A model in eval mode whose `module(*inputs)` gives a tuple of tensors in the order of `outputs`."""

    module: torch.nn.Module
    inputs: tuple[InputPlan, ...]
    outputs: tuple[str, ...]
    parameters: int
    weight_bytes: int
    notes: tuple[str, ...] = field(default=())
    parts_left_out: tuple[str, ...] = ()
    """Parts of a checkpoint that the model is without, such as a trained head."""
    inputs_left_out: tuple[str, ...] = ()
    """Optional tensors of forward() that are no inputs."""

    @property
    def original(self) -> torch.nn.Module:
        """The model as its source gave it, without what orders its outputs."""
        return self.module.get_submodule("model")


def finish(
    module: torch.nn.Module,
    inputs: tuple[InputPlan, ...],
    export: ExportPlan,
    notes: tuple[str, ...] = (),
    binding: Binding | None = None,
) -> Reference:
    """Run the module once on small inputs, name its outputs and keep those the spec asks for.

    Args:
        module: in any mode.
        inputs: in the order of the spec.
        export: declares axes and outputs.
        notes: what is known of the model already.
        binding: how the module takes the inputs; by the names of forward()'s parameters when None.

    Raises:
        StageError: the inputs do not fit forward(), the module fails on them, gives no tensors, or lacks an output
            asked for.
    """

    module.eval()
    bound = binding or bind(module, tuple(tensor.name for tensor in inputs))
    arguments = example_inputs(inputs, export)
    described = ", ".join(f"{tensor.name} {list(value.shape)}" for tensor, value in zip(inputs, arguments, strict=True))
    try:
        result = bound.call(module, arguments)
    except Exception as error:
        raise ForwardError(
            f"the model fails in PyTorch on the declared inputs ({described}): {type(error).__name__}: {error}",
            help=_advice(str(error)),
        ) from error
    flat = flatten(result, export.outputs)
    if not flat.tensors:
        raise StageError(f"the model's forward() gives no tensors but {type(result).__name__}")
    wanted = export.outputs or tuple(flat.tensors)
    if missing := [name for name in wanted if name not in flat.tensors]:
        raise StageError(
            f"the model has no output `{shown(missing[0])}`",
            help=f"`export.outputs` can be any of: {', '.join(map(shown, flat.tensors))}",
        )
    check_names("input", (tensor.name for tensor in inputs))
    check_names("output", wanted)
    parameters = list(module.parameters())
    return Reference(
        module=_keep(module, bound, wanted, export.outputs),
        inputs=inputs,
        outputs=wanted,
        parameters=sum(tensor.numel() for tensor in parameters),
        weight_bytes=sum(tensor.numel() * tensor.element_size() for tensor in [*parameters, *module.buffers()]),
        notes=(*notes, *bound.notes, *_dropped(flat, wanted)),
        inputs_left_out=bound.left_out,
    )


def _advice(message: str) -> str:
    if "no padding token" in message:
        return (
            "the model has no padding token: fix the axis `batch` to 1 (equal `min` and `max`), or write "
            "`pad_token_id` into its config.json"
        )
    return "check `export.inputs`: names, dtypes and shapes must be those of the model's forward()"


def _dropped(found: Flattened, wanted: Sequence[str]) -> Iterator[str]:
    if dropped := [name for name in found.tensors if name not in wanted]:
        yield f"outputs not exported: {', '.join(map(shown, dropped))}"
    if found.others:
        yield f"outputs that are no tensors, and not exported: {', '.join(map(shown, found.others))}"


def _keep(
    module: torch.nn.Module, binding: Binding, wanted: tuple[str, ...], names: tuple[str, ...] | None
) -> torch.nn.Module:
    import torch

    class Outputs(torch.nn.Module):
        """The model with its outputs as one ordered tuple."""

        def __init__(self) -> None:
            super().__init__()
            self.model = module

        def forward(self, *inputs: torch.Tensor) -> Tensors:
            found = flatten(binding.call(self.model, inputs), names).tensors
            if missing := [name for name in wanted if name not in found]:
                raise ValueError(f"the model gives no output `{missing[0]}` here, which it gives elsewhere")
            return tuple(found[name] for name in wanted)

    return Outputs().eval()


_EXAMPLE_SIZES = (3, 5, 7, 11, 13, 17, 19)


def example_sizes(export: ExportPlan) -> dict[str, int]:
    """A size for each axis to trace with: inside its bounds, and where they allow that 2 or more and unlike the others.

    torch.export treats sizes 0 and 1 as constants, and equal sizes of two axes could be taken for one.
    """
    sizes: dict[str, list[int]] = {}
    # Axes with the least room choose first.
    for axis in sorted(export.axes, key=lambda axis: (axis.max - axis.min) // axis.multiple_of):
        step, index = axis.multiple_of, export.axes.index(axis)
        least, most = -(-max(axis.min, 2) // step) * step, axis.max // step * step
        wanted = min(max(_EXAMPLE_SIZES[index % len(_EXAMPLE_SIZES)] * step, least), most)
        # As many as there are axes are enough to find one that is free.
        sizes[axis.name] = [wanted, *range(least, min(most, least + len(export.axes) * step) + 1, step)]
    chosen = _different(sizes)
    return {axis.name: chosen.get(axis.name, sizes[axis.name][0]) for axis in export.axes}


def _different(sizes: Mapping[str, Sequence[int]]) -> dict[str, int]:
    """One of its sizes for each name, no two the same: for as many names as that is possible for."""
    holders: dict[int, str] = {}

    def place(name: str, tried: set[int]) -> bool:
        """Take the first size that is free, or one whose holder can take another (Kuhn's algorithm)."""
        for size in sizes[name]:
            if size not in holders:
                holders[size] = name
                return True
        for size in sizes[name]:
            if size not in tried:
                tried.add(size)
                if place(holders[size], tried):
                    holders[size] = name
                    return True
        return False

    for name in sizes:
        place(name, set())
    return {name: size for size, name in holders.items()}


def example_inputs(inputs: tuple[InputPlan, ...], export: ExportPlan) -> Tensors:
    """Distinct seeded tensors to trace with; the same tensor given twice would be taken for one input."""
    return _inputs_of(inputs, example_sizes(export))


def other_inputs(inputs: tuple[InputPlan, ...], export: ExportPlan) -> tuple[Tensors, ...]:
    """The same at the least sizes of all axes, and at their typical ones."""
    least = {axis.name: -(-axis.min // axis.multiple_of) * axis.multiple_of for axis in export.axes}
    return _inputs_of(inputs, least), _inputs_of(inputs, {axis.name: axis.typical for axis in export.axes})


def _inputs_of(inputs: tuple[InputPlan, ...], sizes: dict[str, int]) -> Tensors:
    import torch

    from ortc.frontend.samples.inputs import synthetic

    return tuple(torch.from_numpy(synthetic(tensor, sizes, f"example/{tensor.name}")) for tensor in inputs)
