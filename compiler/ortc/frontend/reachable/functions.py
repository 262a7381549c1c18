"""Describe functions, classes and modules: their code, and the values that the code reaches."""

from __future__ import annotations

import sys
import types
from typing import TYPE_CHECKING, Any

from ortc.frontend.reachable.code import Uses, code_digest, uses
from ortc.frontend.reachable.origin import is_library, is_users_module, named

if TYPE_CHECKING:
    from ortc.frontend.reachable.walk import Walk

_UNREAD = frozenset(
    {"__module__", "__qualname__", "__doc__", "__dict__", "__weakref__", "__annotations__", "__abstractmethods__"}
    | {"__orig_bases__", "__parameters__", "__firstlineno__", "__static_attributes__", "__annotate_func__"}
    | {"__annotations_cache__", "__dataclass_fields__", "__dataclass_params__", "__match_args__", "_abc_impl"}
)
"""Entries of a class that nothing is computed with."""
_UNCALLED = frozenset(
    {"__init__", "__new__", "__init_subclass__", "__post_init__", "__del__", "__repr__", "__str__", "__reduce__"}
    | {"__reduce_ex__", "__getstate__", "__setstate__", "__copy__", "__deepcopy__", "__set_name__"}
)
"""Methods that have run when an object is there, or that no forward() calls."""
_NATIVE = (
    types.BuiltinFunctionType,
    types.MethodWrapperType,
    types.WrapperDescriptorType,
    types.MethodDescriptorType,
    types.ClassMethodDescriptorType,
    types.GetSetDescriptorType,
    types.MemberDescriptorType,
)


def describe(walk: Walk, value: Any, path: str) -> Any:
    """A function, method, class or module; None of anything else."""
    if isinstance(value, types.FunctionType):
        return _function(walk, value, path)
    if isinstance(value, types.MethodType):
        owner = walk.value(value.__self__, f"{path}.self")
        return ["method", walk.value(value.__func__, f"{path}.func"), owner]
    if isinstance(value, _NATIVE):
        owner = getattr(value, "__self__", None)
        bound = None if owner is None or isinstance(owner, types.ModuleType) else walk.value(owner, f"{path}.self")
        return ["native", *named(value), bound]
    if isinstance(value, type):
        return _class(walk, value, path)
    if isinstance(value, types.ModuleType):
        return _module(walk, value, path)
    if isinstance(value, staticmethod | classmethod):
        return [type(value).__name__, walk.value(value.__func__, path)]
    if isinstance(value, property):
        parts = (value.fget, value.fset)
        return ["property", *(None if part is None else walk.value(part, path) for part in parts)]
    if isinstance(value, types.GenericAlias | types.UnionType) or type(value).__module__ == "typing":
        return ["typing", walk.text(repr(value))]
    if isinstance(value, types.CodeType):
        return ["code", code_digest(value)]
    if isinstance(value, types.GeneratorType):
        frame = value.gi_frame
        local = {} if frame is None else {**frame.f_locals}
        return ["generator", code_digest(value.gi_code), frame and frame.f_lasti, walk.value(local, path)]
    if type(value).__name__ == "_lru_cache_wrapper":
        return ["cached", walk.value(value.__wrapped__, f"{path}.__wrapped__")]
    return None


def cell(walk: Walk, value: types.CellType, path: str) -> Any:
    """What a closure's variable holds."""
    try:
        return walk.value(value.cell_contents, path)
    except ValueError:
        return ["empty"]


def class_path(kind: type) -> str:
    """The name of a class as a part."""
    return f"{kind.__module__}.{kind.__qualname__}"


def _function(walk: Walk, function: types.FunctionType, path: str) -> Any:
    code = function.__code__
    names = zip(code.co_freevars, function.__closure__ or (), strict=False)
    closure = [[name, cell(walk, value, f"{path}.{name}".lstrip("."))] for name, value in names]
    if is_library(code.co_filename):
        # Its code is known by the version of its package; what it was given is not.
        return ["library", *named(function), closure]
    used = uses(code)
    walk.uses(used.attributes, dynamic=used.is_dynamic)
    return [
        "function",
        code_digest(code),
        closure,
        walk.value(function.__defaults__, f"{path}.defaults"),
        walk.value(function.__kwdefaults__, f"{path}.defaults"),
        walk.value({key: value for key, value in vars(function).items() if key != "__wrapped__"}, f"{path}.vars"),
        walk.value(getattr(function, "__wrapped__", None), f"{path}.__wrapped__"),
        _globals(walk, function, used),
        _imported(walk, function, used),
    ]


def _globals(walk: Walk, function: types.FunctionType, used: Uses) -> Any:
    module, known = function.__module__, function.__globals__
    if used.is_dynamic and {"globals", "eval", "exec"} & set(used.globals):
        for name, value in list(known.items()):
            if not name.startswith("__"):
                walk.when_used(name, value, f"{module}.{name}")
    return [[name, walk.value(known[name], f"{module}.{name}")] for name in used.globals if name in known]


def _imported(walk: Walk, function: types.FunctionType, used: Uses) -> Any:
    """Modules that code imports when it runs, where they are loaded by then."""
    package = str(function.__globals__.get("__package__") or "")
    full = [each for name in used.modules for each in (name, f"{package}.{name}".strip("."))]
    return [[name, walk.value(sys.modules[name], name)] for name in full if name in sys.modules]


def _class(walk: Walk, kind: type, path: str) -> Any:
    users = is_users_module(str(kind.__module__))
    for name, value in list(vars(kind).items()):
        if name in _UNREAD or isinstance(value, types.MemberDescriptorType | types.GetSetDescriptorType):
            continue
        is_code = isinstance(value, types.FunctionType | staticmethod | classmethod | property)
        if not users:
            # A library's class, but for what the user's code has put into it.
            if isinstance(value, types.FunctionType) and not is_library(value.__code__.co_filename):
                walk.when_used(name, value, f"{path}.{name}")
        elif is_code and not (name.startswith("__") and name.endswith("__")):
            walk.when_used(name, value, f"{path}.{name}")
        elif not is_code or name not in _UNCALLED:
            walk.needed(value, f"{path}.{name}")
    bases = [walk.value(base, class_path(base)) for base in kind.__bases__ if base is not object]
    return ["class", *named(kind), bases] if not users else ["class of the user", kind.__qualname__, bases]


def _module(walk: Walk, module: types.ModuleType, path: str) -> Any:
    users = is_users_module(module.__name__)
    for name, value in list(vars(module).items()):
        if name.startswith("__"):
            continue
        if users or (isinstance(value, types.FunctionType) and _is_planted(value)):
            walk.when_used(name, value, f"{module.__name__}.{name}")
    return ["module", *named(module)] if not users else ["module of the user", module.__name__]


def _is_planted(function: types.FunctionType) -> bool:
    """Whether a function of the user's code has been put into a library's module."""
    return not is_library(function.__code__.co_filename)
