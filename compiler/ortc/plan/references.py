"""Plans as others may see them: references to the environment in the place of what they stand for."""

from __future__ import annotations

from typing import Any

from pydantic import BaseModel

from ortc.common.permissions import masked
from ortc.plan.plan import Plan
from ortc.spec.vocabulary import ENVIRONMENT

Json = dict[str, Any]


def with_references(plan: Plan) -> Json:
    """The plan as JSON; fields that may come from the environment show `${env:NAME}`, which `build --plan` reads."""
    document = plan.model_dump(mode="json")
    _hide(plan, document)
    return document


def _hide(model: BaseModel, document: Json) -> None:
    for name, field in type(model).model_fields.items():
        value, extra = getattr(model, name), field.json_schema_extra
        if isinstance(extra, dict) and ENVIRONMENT in extra:
            document[name] = _masked(document[name])
        elif isinstance(value, BaseModel):
            _hide(value, document[name])


def _masked(value: Any) -> Any:
    if isinstance(value, list):
        return [_masked(item) for item in value]
    return masked(value) if isinstance(value, str) else value
