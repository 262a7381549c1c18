"""The shape of a pydantic model, seen from the place of an error in a document."""

from collections.abc import Iterator
from dataclasses import dataclass
from types import NoneType, UnionType
from typing import Annotated, Any, Literal, Union, get_args, get_origin

from pydantic import BaseModel
from pydantic.fields import FieldInfo

from ortc.spec.diagnostics.source import Mapping, Node, Path, Scalar, child


@dataclass(frozen=True, slots=True)
class Place:
    """Where an error of pydantic stands: the path in the document, and the type expected there."""

    path: Path
    annotation: Any
    key: bool = False
    """Whether the error is about the key itself."""


def walk(model: type[BaseModel], loc: tuple[str | int, ...]) -> Place:
    """The place of a pydantic `loc`, without the tags and labels of union members that pydantic puts into it."""
    path: list[str | int] = []
    annotation: Any = model
    for index, step in enumerate(loc):
        inner, tag = unwrap(annotation)
        if is_union(inner):
            if tag:
                annotation = _tagged(inner, tag, step)
            elif (member := _model_called(inner, step)) is not None:
                annotation = member
            continue
        if inner is None or not (is_model(inner) or get_origin(inner) in (dict, tuple)):
            continue
        path.append(step)
        if get_origin(inner) is dict and loc[index + 1 :] == ("[key]",):
            return Place(tuple(path), get_args(inner)[0], key=True)
        annotation = _child_type(inner, step)
    return Place(tuple(path), annotation)


def type_at(model: type[BaseModel], root: Mapping, path: Path) -> Any:
    """The type expected at a path of a document; None where the language has nothing."""
    annotation: Any = model
    node: Node | None = root
    for step in path:
        annotation = _child_type(_resolved(annotation, node), step)
        node = child(node, step)
    return annotation


def marked(model: type[BaseModel], root: Mapping, path: Path, mark: str) -> bool:
    """Whether the field that a path of a document leads to, or into a list of, carries a mark in its extra schema.

    True where the language has nothing: what is wrong there is not the value.
    """
    names = path[: next((index for index, step in enumerate(path) if isinstance(step, int)), len(path))]
    annotation = type_at(model, root, names)
    if annotation is None:
        return True
    metadata = get_args(annotation)[1:] if get_origin(annotation) is Annotated else ()
    extras = (item.json_schema_extra for item in metadata if isinstance(item, FieldInfo))
    return any(isinstance(extra, dict) and mark in extra for extra in extras)


def _resolved(annotation: Any, node: Node | None) -> Any:
    """A type without its wrappers; of a union, the member that the document chose."""
    inner, tag = unwrap(annotation)
    if not isinstance(node, Mapping):
        return inner
    if tag is None:
        models = [member for member in get_args(inner) if is_model(member)] if is_union(inner) else []
        return models[0] if len(models) == 1 else inner
    entry = node.entries.get(tag)
    return _tagged(inner, tag, entry.value.value if entry and isinstance(entry.value, Scalar) else None)


def _tagged(union: Any, tag: str, value: object) -> Any:
    return next((member for member in get_args(union) if value in tag_values(member, tag)), None)


def _model_called(union: Any, name: str | int) -> Any:
    """The model of a union by the label that pydantic gives it."""
    return next((member for member in get_args(union) if is_model(member) and member.__name__ == name), None)


def _child_type(annotation: Any, step: str | int) -> Any:
    arguments = get_args(annotation)
    if is_model(annotation):
        field = fields(annotation).get(str(step))
        return Annotated[field.annotation, field] if field else None
    if get_origin(annotation) is dict:
        return arguments[1]
    if get_origin(annotation) is tuple and isinstance(step, int):
        return arguments[0] if arguments[-1] is Ellipsis else arguments[step] if step < len(arguments) else None
    return None


def unwrap(annotation: Any) -> tuple[Any, str | None]:
    """A type without `Annotated` and `| None`, and the discriminator that they carried."""
    tag: str | None = None
    while True:
        if get_origin(annotation) is Annotated:
            annotation, *metadata = get_args(annotation)
            tags = (item.discriminator for item in metadata if isinstance(item, FieldInfo))
            tag = next((found for found in tags if isinstance(found, str)), tag)
        elif is_union(annotation) and NoneType in get_args(annotation):
            members = tuple(member for member in get_args(annotation) if member is not NoneType)
            annotation = members[0] if len(members) == 1 else Union[members]  # noqa: UP007
        else:
            return annotation, tag


def fields(model: type[BaseModel]) -> dict[str, FieldInfo]:
    """The fields of a model by the name that a document gives them."""
    return {field.alias or name: field for name, field in model.model_fields.items()}


def keys_of(annotation: Any, node: Node | None) -> list[str]:
    """The keys that a mapping may have at a place; none when they are the user's to choose."""
    inner = _resolved(annotation, node)
    return list(fields(inner)) if is_model(inner) else []


def homes(model: type[BaseModel], key: str, prefix: tuple[str, ...] = ()) -> Iterator[str]:
    """The mappings of a language that have a key, as dotted paths; `NAME` stands for a key of the user's choice."""
    for name, field in fields(model).items():
        if name == key and prefix:
            yield ".".join(prefix)
        for inner, steps in _models_in(field.annotation):
            yield from homes(inner, key, (*prefix, name, *steps))


def members_with(annotation: Any, key: str) -> list[str]:
    """The members of a tagged union that have a key, as `tag: value`."""
    inner, tag = unwrap(annotation)
    if tag is None:
        return []
    return [
        f"{tag}: {value}" for member in get_args(inner) if key in fields(member) for value in tag_values(member, tag)
    ]


def literals(annotation: Any) -> list[str]:
    """The strings that a place takes when it takes only some."""
    annotation, _ = unwrap(annotation)
    if get_origin(annotation) is Literal:
        return [value for value in get_args(annotation) if isinstance(value, str)]
    if is_union(annotation):
        return [value for member in get_args(annotation) for value in literals(member)]
    return []


def tag_values(model: type[BaseModel], tag: str) -> list[str]:
    """The values of the discriminator that choose a member of a union."""
    return literals(model.model_fields[tag].annotation)


def is_model(annotation: Any) -> bool:
    """Whether a type is a pydantic model."""
    return isinstance(annotation, type) and issubclass(annotation, BaseModel)


def is_union(annotation: Any) -> bool:
    """Whether a type is a union."""
    return get_origin(annotation) in (Union, UnionType)


def _models_in(annotation: Any) -> Iterator[tuple[type[BaseModel], tuple[str, ...]]]:
    annotation, _ = unwrap(annotation)
    if is_model(annotation):
        yield annotation, ()
    elif is_union(annotation):
        for member in get_args(annotation):
            yield from _models_in(member)
    elif get_origin(annotation) is dict:
        for inner, steps in _models_in(get_args(annotation)[1]):
            yield inner, ("NAME", *steps)
