"""The languages of specs and of target profiles as JSON Schema draft-07, for editors and for other tools.

Pydantic writes draft 2020-12; editors and `check-jsonschema` know draft-07 best. A schema is never stricter than ortc,
which says more: places, misspellings, and everything that depends on a profile or a file.
"""

import json
from typing import Any

from pydantic import BaseModel
from pydantic.json_schema import GenerateJsonSchema
from pydantic_core.core_schema import WithDefaultSchema

from ortc.spec.deployment import Spec
from ortc.spec.inheritance import KEY as INHERIT
from ortc.spec.profile import TargetProfile
from ortc.spec.vocabulary import ENVIRONMENT

DRAFT = "http://json-schema.org/draft-07/schema#"
LANGUAGES: dict[str, type[BaseModel]] = {"spec": Spec, "target": TargetProfile}
"""The models by the name that `ortc schema` and the files docs/NAME.schema.json give them."""
_PART = "Inheriting"
_REFERENCE = r"\$\{env:[A-Za-z_][A-Za-z0-9_]*\}"


def schema_text(language: str) -> str:
    """The schema of a language, as its file under docs/ holds it."""
    return json.dumps(json_schema(LANGUAGES[language]), indent=2, ensure_ascii=False) + "\n"


def json_schema(model: type[BaseModel]) -> dict[str, Any]:
    """The JSON Schema (draft-07) of what a user may write for a model."""
    written = model.model_json_schema(by_alias=True, schema_generator=_Generator)
    schema: dict[str, Any] = _draft07(written)
    if INHERIT not in model.model_fields:
        return {"$schema": DRAFT, "title": model.__name__, **schema}
    # With a base, what is required may come from there, and `null` removes what comes from there.
    definitions = schema.pop("definitions")
    whole, part = model.__name__, f"{_PART}{model.__name__}"
    parts = {f"{_PART}{name}": _part(value) for name, value in (definitions | {whole: schema}).items()}
    return {
        "$schema": DRAFT,
        "title": whole,
        "if": {"required": [INHERIT]},
        "then": {"$ref": f"#/definitions/{part}"},
        "else": {"$ref": f"#/definitions/{whole}"},
        "definitions": definitions | {whole: schema} | parts,
    }


class _Generator(GenerateJsonSchema):
    """Pydantic's generator, which leaves out the defaults that a factory makes."""

    def get_default_value(self, schema: WithDefaultSchema) -> Any:
        """The default as a user would write it: a mapping with every key left out for a model."""
        if "default_factory" not in schema:
            return super().get_default_value(schema)
        value = schema["default_factory"]()  # type: ignore[call-arg]
        return {} if isinstance(value, BaseModel) else value


def _part(node: Any, *, names: bool = False, value: bool = False) -> Any:
    """A schema for what a spec with a base may say where the schema `node` holds for the result.

    Args:
        node: The schema, or a part of it.
        names: Whether the keys of this mapping are names, not keywords.
        value: Whether it is for the value of a key, which may be removed.
    """
    if isinstance(node, list):
        return [_part(item) for item in node]
    if not isinstance(node, dict):
        return node
    if names:
        return {key: _part(item, value=True) for key, item in node.items()}
    out: dict[str, Any] = {}
    for key, item in node.items():
        match key:
            case "required" | "minProperties":
                pass
            case "anyOf" | "oneOf" if any("required" in member for member in item):
                pass
            case "oneOf":
                # Without the key that tells them apart, several members may fit.
                out["anyOf"] = _part(item)
            case "properties" | "patternProperties":
                out[key] = _part(item, names=True)
            case "additionalProperties" if isinstance(item, dict):
                out[key] = _part(item, value=True)
            case "$ref":
                out[key] = item.replace("#/definitions/", f"#/definitions/{_PART}")
            case "default" | "examples" | "const" | "enum":
                out[key] = item
            case _:
                out[key] = _part(item)
    if not value or {"type": "null"} in out.get("anyOf", ()):
        return out
    about = {key: out.pop(key) for key in ("description", "default", "examples") if key in out}
    return {**about, "anyOf": [*(out.pop("anyOf") if set(out) == {"anyOf"} else [out]), {"type": "null"}]}


def _draft07(node: Any, *, names: bool = False) -> Any:
    """A schema of draft 2020-12 in the words of draft-07.

    Args:
        node: The schema, or a part of it.
        names: Whether the keys of this mapping are names of the user's or the language's, not keywords.
    """
    if isinstance(node, list):
        return [_draft07(item) for item in node]
    if not isinstance(node, dict):
        return node
    if names:
        return {key: _draft07(value) for key, value in node.items()}
    out: dict[str, Any] = {}
    for key, value in node.items():
        match key:
            case _ if key == ENVIRONMENT:
                pass
            case "title" | "discriminator":
                pass  # titles repeat the names; a discriminator is OpenAPI's, and `const` says the same
            case "$defs":
                out["definitions"] = _draft07(value, names=True)
            case "properties" | "patternProperties":
                out[key] = _draft07(value, names=True)
            case "prefixItems":
                out |= {"items": _draft07(value), "additionalItems": False}
            case "$ref":
                out[key] = value.replace("#/$defs/", "#/definitions/")
            case "default" | "examples" | "const" | "enum":
                out[key] = value
            case _:
                out[key] = _draft07(value)
    if ENVIRONMENT in node and "pattern" in out:
        out["pattern"] = f"{out['pattern']}|{_REFERENCE}"
    if "patternProperties" in out:
        out.setdefault("additionalProperties", False)
        out.pop("propertyNames", None)  # only repeats what the pattern's annotation says
    if "$ref" in out and len(out) > 1:
        # Draft-07 ignores every keyword beside `$ref`.
        out["allOf"] = [{"$ref": out.pop("$ref")}]
    types = [item for item in out.get("anyOf", ()) if item != {"type": "integer"}]
    if {"type": "number"} in types:
        out["anyOf"] = types
    if len(out.get("anyOf", ())) == 1:
        out |= out.pop("anyOf")[0]
    return out
