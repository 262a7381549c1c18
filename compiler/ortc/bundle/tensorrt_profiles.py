"""TensorRT's optimization profiles: the sizes that an engine is built for, from the axes of the spec."""

from __future__ import annotations

from ortc.common.errors import StageError
from ortc.plan.plan import AxisPlan, InputPlan, SessionPlan

TENSORRT = "TensorrtExecutionProvider"
OPTIONS = {"min": "trt_profile_min_shapes", "typical": "trt_profile_opt_shapes", "max": "trt_profile_max_shapes"}
"""Bound of an axis to the option of the provider that takes it, as `name:1x128,other:1x128`."""


def with_profiles(session: SessionPlan, inputs: tuple[InputPlan, ...], axes: tuple[AxisPlan, ...]) -> SessionPlan:
    """A session whose TensorRT provider builds one engine for all that the axes promise; others as they are.

    Without it an engine covers the shapes seen so far, and each request beyond them waits while another is built. What
    a target profile says itself is left.

    Args:
        session: of a variant.
        inputs: of the graph.
        axes: with bounds, all included.

    Raises:
        StageError: an input has a name that the option cannot hold.
    """
    first, *others = session.providers
    dynamic = {axis.name: axis for axis in axes if axis.min < axis.max}
    tensors = [tensor for tensor in inputs if any(entry in dynamic for entry in tensor.shape)]
    if first.name != TENSORRT or not tensors:
        return session
    for tensor in tensors:
        if ":" in tensor.name or "," in tensor.name:
            raise StageError(
                f"the input `{tensor.name}` cannot be named in TensorRT's profiles, which split at `:` and `,`",
                help="rename it in the model",
            )
    bounds = {axis.name: axis for axis in axes}
    profiles = {
        option: ",".join(_sizes(tensor, bounds, bound) for tensor in tensors) for bound, option in OPTIONS.items()
    }
    provider = first.model_copy(update={"options": {**profiles, **first.options}})
    return session.model_copy(update={"providers": (provider, *others)})


def _sizes(tensor: InputPlan, axes: dict[str, AxisPlan], bound: str) -> str:
    sizes = (str(getattr(axes[entry], bound)) if isinstance(entry, str) else str(entry) for entry in tensor.shape)
    return f"{tensor.name}:{'x'.join(sizes)}"
