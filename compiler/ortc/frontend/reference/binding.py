"""Which parameter of forward() gets which declared input: by name wherever forward() has names."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from inspect import Parameter
from typing import TYPE_CHECKING, Any

from ortc.common.errors import StageError

if TYPE_CHECKING:
    import torch

_POSITIONAL = (Parameter.POSITIONAL_ONLY, Parameter.POSITIONAL_OR_KEYWORD)
_NAMED = (*_POSITIONAL, Parameter.KEYWORD_ONLY)
_HELP = "name the inputs in `export.inputs` as the parameters of forward() are named"


@dataclass(frozen=True)
class Binding:
    """How inputs in the order of the spec become the arguments of a call.

    `call` is called as `call(module, inputs)`; `notes` say what somebody should know of it; `left_out` are parameters
    that could take a tensor and keep their defaults.
    """

    call: Callable[[Any, Sequence[Any]], Any]
    notes: tuple[str, ...] = ()
    left_out: tuple[str, ...] = ()


IN_ORDER = Binding(lambda module, inputs: module(*inputs))
"""Of a module that was written to take its inputs in the order of the spec."""


def bind(module: torch.nn.Module, names: tuple[str, ...]) -> Binding:
    """Bind declared inputs to the parameters of a module's forward().

    Args:
        module: of any kind, TorchScript included.
        names: of the inputs, in the order of the spec.

    Raises:
        StageError: some names are parameters and others are not, or a parameter without a default gets nothing.
    """
    parameters = _parameters(module)
    named = {entry.name: entry for entry in parameters if entry.kind in _NAMED}
    takes_any = any(entry.kind is Parameter.VAR_KEYWORD for entry in parameters)
    unknown = [name for name in names if name not in named]
    if not unknown or takes_any:
        return _by_name(named, names)
    if len(unknown) < len(names):
        raise StageError(
            f"forward() has no parameter `{unknown[0]}`: it takes {_listed(named)}, and `export.inputs` declares "
            f"{', '.join(names)}",
            help=_HELP,
        )
    return _by_position(parameters, names)


def _parameters(module: Any) -> tuple[Parameter, ...]:
    """The parameters of forward(): of a wrapper that passes everything on, those of what it wraps."""
    import torch

    module = getattr(module, "_orig_mod", module)
    while isinstance(module, torch.nn.DataParallel):
        module = module.module
    if isinstance(module, torch.jit.ScriptModule):
        method: Any = module.forward
        _, *arguments = method.schema.arguments
        return tuple(
            Parameter(
                argument.name,
                Parameter.KEYWORD_ONLY if argument.kwarg_only else Parameter.POSITIONAL_OR_KEYWORD,
                default=argument.default_value if argument.has_default_value() else Parameter.empty,
            )
            for argument in arguments
        )
    own = tuple(inspect.signature(module.forward, follow_wrapped=False).parameters.values())
    if any(entry.kind in _NAMED for entry in own):
        return own
    return tuple(inspect.signature(module.forward).parameters.values())


def _by_name(named: Mapping[str, Parameter], names: tuple[str, ...]) -> Binding:
    """Parameters by their names: the first ones in their places, as wrappers may pass on no keywords."""
    if missing := [
        entry.name for entry in named.values() if entry.default is Parameter.empty and entry.name not in names
    ]:
        raise StageError(
            f"forward() needs `{missing[0]}`, which `export.inputs` does not declare: it declares {', '.join(names)}",
            help=f"declare every parameter that has no default; forward() takes {_listed(named)}",
        )
    places: list[str | None] = []
    constants: dict[int, Any] = {}
    for entry in named.values():
        if entry.kind not in _POSITIONAL:
            break
        if entry.name in names:
            places.append(entry.name)
        elif any(other.kind is Parameter.POSITIONAL_ONLY and other.name in names for other in _after(named, entry)):
            constants[len(places)] = entry.default
            places.append(None)
        else:
            break
    keywords = [name for name in names if name not in places]
    index = {name: position for position, name in enumerate(names)}

    def call(module: Any, inputs: Sequence[Any]) -> Any:
        positional = (constants[place] if name is None else inputs[index[name]] for place, name in enumerate(places))
        return module(*positional, **{name: inputs[index[name]] for name in keywords})

    return Binding(call, left_out=_optional(entry for entry in named.values() if entry.name not in names))


def _after(named: Mapping[str, Parameter], entry: Parameter) -> Iterable[Parameter]:
    every = list(named.values())
    return every[every.index(entry) + 1 :]


def _by_position(parameters: tuple[Parameter, ...], names: tuple[str, ...]) -> Binding:
    """Inputs in the order of the spec, where no name is a parameter's."""
    positional = [entry for entry in parameters if entry.kind in _POSITIONAL]
    needed = [entry for entry in positional if entry.default is Parameter.empty]
    keyword = next(
        (e.name for e in parameters if e.kind is Parameter.KEYWORD_ONLY and e.default is Parameter.empty), None
    )
    takes_any = any(entry.kind is Parameter.VAR_POSITIONAL for entry in parameters)
    fits = len(names) in (len(needed), len(positional)) or (takes_any and len(names) >= len(needed))
    if keyword is not None or not fits:
        raise StageError(
            f"`export.inputs` declares {', '.join(names)}, and none is a parameter of forward(), which takes "
            f"{', '.join(str(entry) for entry in parameters) or 'nothing'}",
            help=_HELP,
        )
    taken = ", ".join(entry.name for entry in positional[: len(names)]) or f"*{_starred(parameters)}"
    note = f"forward() has no parameters of the inputs' names, so that they are passed in order: {', '.join(names)} to "
    return Binding(IN_ORDER.call, notes=(note + taken,), left_out=_optional(positional[len(names) :]))


def _optional(parameters: Iterable[Parameter]) -> tuple[str, ...]:
    """Names of the parameters that may take a tensor: no number or text is their default."""
    return tuple(entry.name for entry in parameters if not isinstance(entry.default, str | int | float))


def _starred(parameters: tuple[Parameter, ...]) -> str:
    return next((entry.name for entry in parameters if entry.kind is Parameter.VAR_POSITIONAL), "args")


def _listed(named: Mapping[str, Parameter]) -> str:
    return ", ".join(named) or "no parameters by name"
