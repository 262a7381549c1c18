"""What the text of a module says about a function that builds a PyTorch module: nothing is imported or run."""

from __future__ import annotations

import ast
from pathlib import Path

from ortc.common.digests import sha256_file
from ortc.common.plain_files import read_plain
from ortc.common.project import find_module
from ortc.inspection.draft_spec import Draft, Value, spec_name
from ortc.inspection.entrypoint import installed
from ortc.inspection.findings import BATCH, InspectionError

_PLACEHOLDERS: dict[str, Value] = {"int": 1, "float": 1.0, "str": "", "bool": False}
_INPUTS = (
    "To fill in: a function does not say what tensors its module takes. One entry for each argument of forward(), in "
    "its order:\ndtype, shape with axes by name and fixed sizes, and where it matters `range: [0, 1]` or `fill: 1`."
)
_GENERIC = ("model", "models", "module", "modules", "network")
"""Modules that are called after what they are; their package has the better name."""
_LOADS = (
    "`entrypoint`: the function loads its weights itself, as far as the module's text tells. The build refuses it\n"
    "where numbers depend on a seed. A state dict of its own is `weights: path/model.safetensors` and its `sha256`."
)
_WEIGHTS = (
    "To fill in: the trained state dict, `weights: path/model.safetensors` and its `sha256`. `entrypoint` is for a\n"
    "function that loads its weights itself, `none` for a module without any, `random` for measuring alone."
)
_LOADERS = frozenset(
    {"load_state_dict", "from_pretrained", "load_file", "load_model", "safe_open", "from_numpy", "load_from_checkpoint"}
)
"""Functions and methods that give a module trained numbers."""
_LIBRARIES = frozenset({"torch", "jit", "np", "numpy", "safetensors", "joblib"})
"""What `load` is a function of, where it reads numbers."""
_AXES = "To fill in: the axes whose size varies, with the bounds that you promise."


def inspect_entrypoint(entrypoint: str, root: Path, opset: int) -> Draft:
    """A draft for `module:function`, with what is to be filled in.

    Args:
        entrypoint: What builds the module.
        root: The project that it is imported from.
        opset: What to ship.

    Raises:
        InspectionError: there is no such module, or it does not define the function.
    """
    name, _, function = entrypoint.partition(":")
    parts = name.split(".")
    file = find_module(root.joinpath(*parts))
    if file is None and not (all(parts) and installed(parts[0])):
        raise InspectionError(f"there is no module `{name}` under {root}, and no installed package `{parts[0]}`")
    tree = None if file is None else _parse(file)
    builder = None if tree is None else _definition(tree, function)
    if tree is not None and builder is None and not _may_define(tree, function):
        raise InspectionError(f"the module `{name}` does not define `{function}`")
    model: dict[str, Value] = {"source": "pytorch", "entrypoint": entrypoint}
    notes = {"inputs": _INPUTS, "dynamic_axes": _AXES, "entrypoint": "Called with `args`; returns the torch.nn.Module."}
    if builder is not None and (arguments := _arguments(builder)):
        model["args"] = dict(arguments)
        notes["args"] = "To fill in: the arguments that have no default."
    weights = sorted(file.parent.glob("*.safetensors")) if file is not None else []
    if len(weights) == 1:
        model |= {"weights": weights[0].relative_to(root).as_posix(), "sha256": sha256_file(weights[0])}
        notes["weights"] = "The one .safetensors file beside the module."
    else:
        model["weights"] = "entrypoint"
        notes["weights"] = _LOADS if tree is not None and _loads(tree) else _WEIGHTS
    taken = _forward(tree, builder) if tree is not None and builder is not None else ()
    return Draft(
        about=f"Written by `ortc init` for {entrypoint}. It builds when the parts marked `To fill in` are right.",
        name=spec_name(parts[-2] if parts[-1] in _GENERIC and len(parts) > 1 else parts[-1]),
        model=model,
        opset=opset,
        axes={"batch": BATCH},
        inputs={name: {"dtype": "float32", "shape": ["batch", 8]} for name in taken or ("input",)},
        notes=notes,
    )


def _parse(file: Path) -> ast.Module:
    try:
        return ast.parse(read_plain(file))
    except (SyntaxError, ValueError, OSError, RecursionError, MemoryError) as error:
        raise InspectionError(f"`{file}` cannot be read as Python: {error}") from error


def _loads(tree: ast.Module) -> bool:
    """Whether the text of a module calls what loads weights."""
    calls = [node.func for node in ast.walk(tree) if isinstance(node, ast.Call)]
    named = {called.id for called in calls if isinstance(called, ast.Name)}
    methods = [called for called in calls if isinstance(called, ast.Attribute)]
    owners = {
        getattr(called.value, "id", getattr(called.value, "attr", "")) for called in methods if called.attr == "load"
    }
    return bool((named | {called.attr for called in methods}) & _LOADERS or owners & _LIBRARIES)


def _definition(tree: ast.Module, name: str) -> ast.FunctionDef | ast.ClassDef | None:
    found = [node for node in tree.body if isinstance(node, (ast.FunctionDef, ast.ClassDef)) and node.name == name]
    return found[-1] if found else None


def _may_define(tree: ast.Module, name: str) -> bool:
    """Whether a name may come from an assignment or an import."""
    texts = {
        alias.asname or alias.name
        for node in ast.walk(tree)
        for alias in getattr(node, "names", ())
        if isinstance(alias, ast.alias)
    }
    stored = {node.id for node in ast.walk(tree) if isinstance(node, ast.Name) and isinstance(node.ctx, ast.Store)}
    return bool({name, "*"} & (texts | stored))


def _method(kind: ast.ClassDef, name: str) -> ast.FunctionDef | None:
    return next((node for node in kind.body if isinstance(node, ast.FunctionDef) and node.name == name), None)


def _arguments(builder: ast.FunctionDef | ast.ClassDef) -> dict[str, Value]:
    """Arguments that must be given, each with a value of its annotation's type."""
    called = builder if isinstance(builder, ast.FunctionDef) else _method(builder, "__init__")
    if called is None:
        return {}
    given = called.args
    places = [*given.posonlyargs, *given.args][isinstance(builder, ast.ClassDef) :]
    required = places[: len(places) - len(given.defaults)]
    required += [entry for entry, default in zip(given.kwonlyargs, given.kw_defaults, strict=True) if default is None]
    return {
        entry.arg: _PLACEHOLDERS.get(entry.annotation.id if isinstance(entry.annotation, ast.Name) else "", 1)
        for entry in required
    }


def _forward(tree: ast.Module, builder: ast.FunctionDef | ast.ClassDef) -> tuple[str, ...]:
    """Names of the tensors that the built module takes; none where the text does not say what is built."""
    kinds = {node.name: node for node in tree.body if isinstance(node, ast.ClassDef)}
    built = [builder] if isinstance(builder, ast.ClassDef) else []
    calls = (node.func for node in ast.walk(builder) if isinstance(node, ast.Call))
    if isinstance(builder, ast.FunctionDef):
        built += [kinds[called.id] for called in calls if isinstance(called, ast.Name) and called.id in kinds]
    methods = [method for kind in dict.fromkeys(built) if (method := _method(kind, "forward")) is not None]
    if len(methods) != 1:
        return ()
    return tuple(entry.arg for entry in methods[0].args.args[1:])
