"""From a document to a model, or to every reason why not."""

import re
from collections.abc import Iterator
from typing import Any, TypeVar, get_args, get_origin

from pydantic import BaseModel, ValidationError
from pydantic_core import ErrorDetails

from ortc.common.suggest import closest, joined, listed
from ortc.common.units import QuantityError
from ortc.spec.diagnostics.diagnostic import Diagnostic, Related, in_order, quoted
from ortc.spec.diagnostics.errors import SpecError
from ortc.spec.diagnostics.rules import schema as rules
from ortc.spec.diagnostics.rules.model import Rule
from ortc.spec.diagnostics.source import Document, Mapping, Node, Path, Scalar
from ortc.spec.syntax import schema_walk
from ortc.spec.syntax.scalars import is_number
from ortc.spec.syntax.schema_walk import Place
from ortc.spec.syntax.yaml_parser import describe
from ortc.spec.vocabulary import FORMS

T = TypeVar("T", bound=BaseModel)

_MAX_ERRORS = 100
_HEADER = ("apiVersion", "kind")
_EXPECTED = {
    "string_type": "a string",
    "int_type": "an integer",
    "float_type": "a number",
    "bool_type": "`true` or `false`",
    "dict_type": "a mapping",
    "model_type": "a mapping",
    "model_attributes_type": "a mapping",
    "tuple_type": "a list",
}
_BOUNDS = {
    "greater_than": ("gt", "greater than"),
    "greater_than_equal": ("ge", "at least"),
    "less_than": ("lt", "less than"),
    "less_than_equal": ("le", "at most"),
}
_BOOLEANS = {"yes": "true", "on": "true", "y": "true", "no": "false", "off": "false", "n": "false"}


def validate(model: type[T], document: Document) -> T:
    """The typed value of a document.

    Raises:
        SpecError: with a diagnostic for each mistake (the first hundred), sorted by place.
    """
    try:
        return model.model_validate(document.data, strict=True, by_alias=True, by_name=False)
    except ValidationError as error:
        found = error.errors(include_url=False)[:_MAX_ERRORS]
    diagnostics: dict[object, Diagnostic] = {}
    for diagnostic in _Explainer(model, document).explain(found):
        # A value that several aliases repeat is wrong once.
        diagnostics.setdefault((diagnostic.rule, diagnostic.span, diagnostic.label, diagnostic.help), diagnostic)
    raise SpecError(in_order(diagnostics.values()))


def dotted(path: Path) -> str:
    """`export.inputs.ids.shape[0]`."""
    text = ""
    for step in path:
        text += f"[{step}]" if isinstance(step, int) else f".{step}" if text else step
    return text


class _Explainer:
    """Turns the errors of pydantic into diagnostics."""

    def __init__(self, model: type[BaseModel], document: Document) -> None:
        self._model = model
        self._document = document

    def explain(self, errors: list[ErrorDetails]) -> Iterator[Diagnostic]:
        known = {(key,) for key in _HEADER if key in schema_walk.fields(self._model)}
        header = [error for error in errors if error["loc"][:1] in known]
        wrong = [error for error in header if error["type"] != "missing"]
        if wrong:
            yield from (self._wrong_kind(error) for error in wrong)
            return
        groups: dict[tuple[Path, bool], list[tuple[Place, ErrorDetails]]] = {}
        missing: dict[Path, list[str]] = {}
        taken: set[tuple[Path, str]] = set()
        for error in errors:
            place = schema_walk.walk(self._model, error["loc"])
            if error["type"] == "missing" and isinstance(place.path[-1], str):
                missing.setdefault(place.path[:-1], []).append(place.path[-1])
            elif error["type"] == "union_tag_not_found":
                missing.setdefault(place.path, []).append(str(error["ctx"]["discriminator"]).strip("'"))
            else:
                groups.setdefault((place.path, place.key), []).append((place, error))
        for (path, _), members in groups.items():
            if members[0][1]["type"] == "too_short" and any(other[: len(path)] == path != other for other, _ in groups):
                continue  # pydantic counts only the valid items
            if all(error["type"] in {*_EXPECTED, "literal_error"} for _, error in members) and (
                path in missing or any(len(other) > len(path) and other[: len(path)] == path for other, _ in groups)
            ):
                continue  # what is wrong inside is of another member of a union, the one that was meant
            if members[0][1]["type"] == "extra_forbidden":
                diagnostic, meant = self._unknown_key(path, missing.get(path[:-1], []))
                taken.add((path[:-1], meant or ""))
                yield diagnostic
            else:
                yield self._wrong_value(members)
        for path, keys in missing.items():
            if left := [key for key in keys if (path, key) not in taken]:
                yield self._missing(path, left)

    def _wrong_kind(self, error: ErrorDetails) -> Diagnostic:
        key = str(error["loc"][0])
        expected = listed(schema_walk.literals(schema_walk.fields(self._model)[key].annotation))
        node = self._document.find([key])
        found = quoted(node.text) if isinstance(node, Scalar) else describe(node) if node else "nothing"
        return Diagnostic(
            rules.WRONG_KIND,
            f"{key} is {found}, not {expected}",
            self._document.locate([key]),
            f"expected {expected}",
            help="this is a target profile; give the spec of a model" if found == "`TargetProfile`" else None,
        )

    def _unknown_key(self, path: Path, missing: list[str]) -> tuple[Diagnostic, str | None]:
        key = str(path[-1])
        parent = self._document.find(path[:-1])
        known = schema_walk.keys_of(self._type(path[:-1]), parent)
        written = parent.entries if isinstance(parent, Mapping) else {}
        meant = (
            closest(key, missing)
            or closest(key, [name for name in known if name not in written])
            or closest(key, known)
        )
        where = f" in `{dotted(path[:-1])}`" if len(path) > 1 else " at the top level"
        advice = None
        if key == "<<":
            advice = "merge keys are not part of YAML 1.2; repeat the values, or alias the whole mapping"
        elif not meant and (owners := schema_walk.members_with(self._type(path[:-1]), key)):
            advice = f"{quoted(key)} is a key of {listed(owners)}"
        elif not meant and (homes := list(dict.fromkeys(schema_walk.homes(self._model, key)))):
            advice = f"{quoted(key)} belongs under {listed(homes[:3])}"
        elif not meant and known:
            advice = f"the keys are {listed(known, 'and')}"
        diagnostic = Diagnostic(
            rules.UNKNOWN_KEY,
            f"unknown key {quoted(key)}{where}",
            self._document.locate(path, key=True),
            f"did you mean `{meant}`?" if meant else "",
            help=advice,
        )
        return diagnostic, meant

    def _missing(self, path: Path, keys: list[str]) -> Diagnostic:
        names = listed(keys, "and")
        where = f"in `{dotted(path)}`" if path else "at the top level"
        annotation, tag = schema_walk.unwrap(self._type(path))
        values = schema_walk.literals(self._type((*path, keys[0])))
        if tag == keys[0]:
            values = [value for member in get_args(annotation) for value in schema_walk.tag_values(member, tag)]
            node = self._document.find(path)
            written = node.entries if isinstance(node, Mapping) else {}
            if near := closest(tag, written):
                span = self._document.locate((*path, near), key=True)
                return Diagnostic(
                    rules.UNKNOWN_KEY, f"unknown key {quoted(near)} {where}", span, f"did you mean `{tag}`?"
                )
        return Diagnostic(
            rules.MISSING_KEY,
            f"{names} {'are' if len(keys) > 1 else 'is'} missing {where}",
            self._document.locate(path),
            help=f"`{keys[0]}` takes {listed(values)}" if values else None,
        )

    def _wrong_value(self, members: list[tuple[Place, ErrorDetails]]) -> Diagnostic:
        """One diagnostic for the errors at one place: a union gives one for each of its members."""
        telling = [item for item in members if item[1]["type"] not in _EXPECTED]
        place, error = (telling or members)[0]
        node = self._document.find(place.path)
        name = "the file" if not place.path else f"`{dotted(place.path)}`"
        if not telling:
            expected = list(dict.fromkeys(_EXPECTED[error["type"]] for _, error in members))
            if "a number" in expected and "an integer" in expected:
                expected.remove("an integer")
            return self._wrong_type(place, node, name, expected)
        kind, context = error["type"], error.get("ctx", {})
        if kind == "literal_error" or kind == "union_tag_invalid":
            return self._unknown_value(place, error)
        if kind in _BOUNDS:
            key, words = _BOUNDS[kind]
            return self._at(place, rules.OUT_OF_RANGE, f"{name} must be {words} {context[key]:g}", "")
        if kind == "finite_number":
            return self._at(place, rules.OUT_OF_RANGE, f"{name} must be a finite number", "")
        if kind in {"too_short", "too_long", "missing"}:
            return self._wrong_length(place, error)
        if kind == "string_too_short":
            return self._at(place, rules.INVALID_VALUE, f"{name} is empty", "")
        if kind == "string_pattern_mismatch":
            form = FORMS.get(str(context["pattern"]), f"text that matches `{context['pattern']}`")
            what = f"the key {quoted(place.path[-1])} of `{dotted(place.path[:-1])}`" if place.key else name
            return self._at(place, rules.INVALID_VALUE, f"{what} is not {form}", "")
        reason = str(context["error"]) if "error" in context else error["msg"]
        if isinstance(context.get("error"), QuantityError):
            return self._at(place, rules.BAD_QUANTITY, f"{name}: {reason}", "")
        if isinstance(node, Mapping) and not place.key:
            return self._inconsistent(place.path, node, f"{name}: {reason}")
        return self._at(place, rules.INVALID_VALUE, f"{name}: {reason}", "")

    def _inconsistent(self, path: Path, node: Mapping, message: str) -> Diagnostic:
        """Points at the keys that the message names, as far as they are written."""
        named = [key for key in re.findall(r"`(\w+)`", message) if key in node.entries]
        if not named:
            return Diagnostic(rules.INCONSISTENT_KEYS, message, self._document.locate(path))
        first, *others = dict.fromkeys(named)
        related = tuple(Related(node.entries[key].key, "and here") for key in others)
        return Diagnostic(rules.INCONSISTENT_KEYS, message, node.entries[first].key, related=related)

    def _wrong_type(self, place: Place, node: Node | None, name: str, expected: list[str]) -> Diagnostic:
        wanted = joined(expected)
        found = describe(node) if node is not None else "nothing"
        if isinstance(node, Scalar) and node.plain and node.value is not None and expected == ["a string"]:
            advice = f'write `"{node.text}"`'
            return self._at(
                place, rules.UNQUOTED_STRING, f"{name} must be a string, and YAML reads {found} here", advice
            )
        advice = ""
        if isinstance(node, Scalar):
            advice = _type_advice(node, expected)
        return self._at(place, rules.WRONG_TYPE, f"{name} must be {wanted}, not {found}", advice)

    def _unknown_value(self, place: Place, error: ErrorDetails) -> Diagnostic:
        path = place.path
        if error["type"] == "union_tag_invalid":
            path = (*path, str(error["ctx"]["discriminator"]).strip("'"))
            values = [value.strip(" '") for value in str(error["ctx"]["expected_tags"]).split(",")]
        else:
            values = schema_walk.literals(place.annotation)
        node = self._document.find(path)
        text = node.text if isinstance(node, Scalar) else describe(node) if node else ""
        found = quoted(text) if isinstance(node, Scalar) else text
        meant = closest(text, values)
        return Diagnostic(
            rules.UNKNOWN_VALUE,
            f"`{dotted(path)}` is {found}, not {listed(values)}"
            if len(values) < 6
            else f"{found} is not a `{path[-1]}`",
            self._document.locate(path),
            f"did you mean `{meant}`?" if meant else "",
            help=f"the values are {listed(values, 'and')}" if len(values) >= 6 else None,
        )

    def _wrong_length(self, place: Place, error: ErrorDetails) -> Diagnostic:
        path = place.path[:-1] if error["type"] == "missing" else place.path
        arguments = get_args(schema_walk.unwrap(self._type(path))[0])
        if get_origin(schema_walk.unwrap(self._type(path))[0]) is tuple and Ellipsis not in arguments:
            message = f"`{dotted(path)}` must have exactly {len(arguments)} values"
        elif error["type"] == "too_short":
            message = f"`{dotted(path)}` is empty; it needs at least {error['ctx']['min_length']}"
        else:
            message = f"`{dotted(path)}` must have at most {error['ctx']['max_length']} values"
        return self._at(Place(path, None), rules.OUT_OF_RANGE, message, "")

    def _at(self, place: Place, rule: Rule, message: str, advice: str) -> Diagnostic:
        return Diagnostic(rule, message, self._document.locate(place.path, key=place.key), help=advice or None)

    def _type(self, path: Path) -> Any:
        return schema_walk.type_at(self._model, self._document.root, path)


def _type_advice(node: Scalar, expected: list[str]) -> str:
    """How to write what was probably meant."""
    if node.value is None:
        return "write `{}` to take every default" if expected == ["a mapping"] else "give a value, or remove the key"
    if expected == ["`true` or `false`"]:
        return f"write `{_BOOLEANS[node.text.lower()]}`" if node.text.lower() in _BOOLEANS else ""
    if expected == ["a list"]:
        return f"write `[{node.text}]`"
    if not node.plain and is_number(node.text):
        return f"remove the quotes: `{node.text}`"
    return ""
