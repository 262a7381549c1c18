"""The JSON Schemas: up to date, complete, and never stricter than ortc."""

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from jsonschema import Draft7Validator
from tests.support.examples import examples

from ortc.spec.deployment import Spec
from ortc.spec.diagnostics.errors import SpecError
from ortc.spec.diagnostics.source import SourceFile
from ortc.spec.json_schema import DRAFT, LANGUAGES, json_schema, schema_text
from ortc.spec.syntax.validation import validate
from ortc.spec.syntax.yaml_parser import parse

ROOT = Path(__file__).parents[3]
FILES = [("spec", path) for path in sorted((ROOT / "specs").glob("*.yaml"))] + [
    ("target", path) for path in sorted((ROOT / "targets").glob("*.yaml"))
]
SPECS = [path.read_text("utf-8") for language, path in FILES if language == "spec"]
VALIDATORS = {language: Draft7Validator(json_schema(model)) for language, model in LANGUAGES.items()}


def plain(text: str) -> Any:
    """The values of a YAML text as JSON has them."""
    return json.loads(json.dumps(parse(SourceFile("spec.yaml", text)).data))


@pytest.mark.parametrize("language", LANGUAGES)
def test_up_to_date(language: str, update_golden: bool) -> None:
    path = ROOT / "docs" / f"{language}.schema.json"
    if update_golden:
        path.write_text(schema_text(language), "utf-8")
    assert path.read_text("utf-8") == schema_text(language), f"run `ortc schema {language} > docs/{path.name}`"


@pytest.mark.parametrize("language", LANGUAGES)
def test_is_a_schema(language: str) -> None:
    schema = json_schema(LANGUAGES[language])
    assert schema["$schema"] == DRAFT
    Draft7Validator.check_schema(schema)


@pytest.mark.parametrize("language", LANGUAGES)
def test_every_key_is_described_and_every_mapping_closed(language: str) -> None:
    schema = json_schema(LANGUAGES[language])
    models = schema["definitions"] if "if" in schema else {"": schema, **schema["definitions"]}
    for path, model in models.items():
        if path.endswith("JsonValue"):
            continue  # an argument of a user's function may be anything
        assert model["additionalProperties"] is False, path
        for key, value in model["properties"].items():
            if path.startswith("Inheriting"):
                continue  # described where it is whole
            target = value.get("allOf", [value])[0].get("$ref", "").rpartition("/")[2]
            assert "description" in value or "description" in schema["definitions"][target], f"{path}.{key}"


def keywords(node: Any) -> Iterator[str]:
    """Every keyword of a schema, names of properties left out."""
    if isinstance(node, list):
        for item in node:
            yield from keywords(item)
    elif isinstance(node, dict):
        for key, value in node.items():
            yield key
            if key in {"properties", "patternProperties", "definitions"}:
                yield from keywords(list(value.values()))
            elif key not in {"default", "examples"}:
                yield from keywords(value)


@pytest.mark.parametrize("language", LANGUAGES)
def test_no_keyword_of_a_newer_draft(language: str) -> None:
    known = set(Draft7Validator.META_SCHEMA["properties"])
    assert set(keywords(json_schema(LANGUAGES[language]))) <= known


@pytest.mark.parametrize(("language", "path"), FILES, ids=lambda value: getattr(value, "stem", value))
def test_accepts_what_this_repository_ships(language: str, path: Path) -> None:
    assert list(VALIDATORS[language].iter_errors(plain(path.read_text("utf-8")))) == []


@pytest.mark.parametrize(
    "part",
    [
        "base: bert.yaml\n",
        "base: bert.yaml\nversion: 1.0.1\nmodel: {revision: main, mirrors: null}\n",
        "base: bert.yaml\ntargets: {cpu: {latency_budget: null}, edge: null}\n",
        "base: bert.yaml\nexport: {dynamic_axes: {batch: {max: 32}}, inputs: {attention_mask: {fill: null}}}\n",
        "base: bert.yaml\nmodel: {files: {tokenizer.json: null}}\ntargets: {cpu: {latency_budget: {p99: 1s}}}\n",
        "base: bert.yaml\nversion: ${env:VERSION}\n",
    ],
)
def test_with_a_base_a_part_is_enough(part: str) -> None:
    document = plain(part)
    assert VALIDATORS["spec"].is_valid(document)
    del document["base"]
    assert not VALIDATORS["spec"].is_valid(document)


@pytest.mark.parametrize(
    "part",
    ["opset: 17", "targets: {cpu: {precision: fp33}}", "export: {opset: '17'}", "name: My Model", "model: {a: 1}"],
)
def test_with_a_base_mistakes_are_still_mistakes(part: str) -> None:
    assert not VALIDATORS["spec"].is_valid(plain(f"base: bert.yaml\n{part}\n"))


@pytest.mark.parametrize(
    ("found", "wrong"),
    [
        ("opset: 17", "opset: '17'"),
        ("opset: 17", "opsett: 17"),
        ("p99: 120ms", "p99: 120"),
        ("p99: 120ms", "p99: 120 parsecs"),
        ("size_budget: 50MB", "size_budget: 50"),
        ("name: bert", "name: My Model"),
        ("kind: ModelDeployment", "kind: Deployment"),
        ("apiVersion", "api_version"),
        ("source: huggingface", "source: hub"),
        ("dtype: int64", "dtype: int65"),
        ("range: [0, 30521]", "range: [0]"),
        ("batch: {min: 1, typical: 1, max: 16}", "batch: {min: 1, typical: 1}"),
        ("version: 1.0.0", "version: 1.0"),
        ("  id: sentence-transformers/all-MiniLM-L6-v2\n", ""),
        ("latency_budget: {p99: 8ms, at: {batch: 1, sequence: 128}}", "latency_budget: {at: {batch: 1}}"),
    ],
)
def test_refuses(found: str, wrong: str) -> None:
    text = (ROOT / "specs" / "bert.yaml").read_text("utf-8")
    assert found in text
    assert not VALIDATORS["spec"].is_valid(plain(text.replace(found, wrong, 1)))


values = st.recursive(
    st.sampled_from(["a", "1.0.0", " 8ms", "8 ms ", "50MB", "fp32", "int8", "batch", "0" * 64, "a:b", ""])
    | st.integers(-1, 20)
    | st.floats(0, 2)
    | st.booleans()
    | st.none(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.sampled_from(["batch", "max", "cpu"]), inner),
    max_leaves=6,
)


@settings(max_examples=examples(300), deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(st.data())
def test_never_stricter_than_ortc(data: st.DataObject) -> None:
    document = yaml.safe_load(data.draw(st.sampled_from(SPECS)))
    node = document
    while True:
        choices = sorted(node, key=str) if isinstance(node, dict) else list(range(len(node)))
        key = data.draw(st.sampled_from(choices))
        if not isinstance(node[key], (dict, list)) or not node[key] or data.draw(st.booleans()):
            break
        node = node[key]
    node[key] = data.draw(values)
    text = yaml.safe_dump(document)
    try:
        validate(Spec, parse(SourceFile("spec.yaml", text)))
    except SpecError:
        return
    assert list(VALIDATORS["spec"].iter_errors(plain(text))) == []
