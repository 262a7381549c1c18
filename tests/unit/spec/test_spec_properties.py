"""Whatever is in a file or an argument, the answer is a spec or diagnostics, and the diagnostics can be shown."""

from pathlib import Path
from typing import Any

import pytest
import yaml
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from tests.support.examples import examples

from ortc.plan.checks import load_profiles, run_checks
from ortc.spec.deployment import Export, Spec, Target
from ortc.spec.diagnostics.diagnostic import Diagnostic, render_text, to_github, to_json
from ortc.spec.diagnostics.errors import SpecError
from ortc.spec.diagnostics.sarif import to_sarif
from ortc.spec.load import from_document
from ortc.spec.model_sources import HuggingFaceSource, Teacher
from ortc.spec.profile import TargetProfile
from ortc.spec.syntax.schema_walk import fields
from ortc.spec.syntax.text import decode
from ortc.spec.syntax.validation import validate
from ortc.spec.syntax.yaml_parser import parse

ROOT = Path(__file__).parents[3]
SPECS = [path.read_text("utf-8") for path in sorted((ROOT / "specs").glob("*.yaml"))]
MODELS = (Spec, Export, HuggingFaceSource, Teacher, Target, TargetProfile)
WORDS = [
    *sorted({name for model in MODELS for name in fields(model)}),
    *("ortc/v1alpha1", "ModelDeployment", "TargetProfile", "huggingface", "pytorch", "onnx", "exported_program"),
    *("batch", "min", "max", "typical", "dtype", "shape", "float32", "p99", "at", "8ms", "50MB", "cpu", "edge", "int8"),
    *("[key]", "<<", "..", "a:b", "${env:HOME}", "${env:NOT_SET}", "x${", "${env:}"),
]

words = st.sampled_from(WORDS) | st.text(max_size=8)
scalars = words | st.integers() | st.floats() | st.booleans() | st.none()
values = st.recursive(
    scalars, lambda inner: st.lists(inner, max_size=4) | st.dictionaries(words, inner, max_size=5), max_leaves=25
)
relaxed = settings(max_examples=examples(200), deadline=None, suppress_health_check=[HealthCheck.too_slow])


def diagnose(content: bytes, *overrides: str, model: Any = Spec) -> Any:
    """The typed value, or the diagnostics; any other exception is a failure of the test."""
    try:
        document = parse(decode(content, "spec.yaml"))
        if model is not Spec:
            return validate(model, document)
        loaded = from_document(document, overrides, ROOT)
        profiles, unknown = load_profiles(loaded)
        show((*unknown, *run_checks(loaded, profiles)))
    except SpecError as error:
        show(error.diagnostics)
        return error.diagnostics
    return loaded.spec


def show(diagnostics: tuple[Diagnostic, ...]) -> None:
    for output in (render_text(diagnostics), to_json(diagnostics), to_github(diagnostics), to_sarif(diagnostics)):
        assert "\x1b" not in output
        output.encode("utf-8")


@relaxed
@given(st.binary(max_size=400))
def test_bytes(content: bytes) -> None:
    diagnose(content)


@relaxed
@given(
    st.text(alphabet=st.sampled_from("abk: -[]{},#&*!|>'\"%@`?~\\\n\t0.e\x85\u2028é"), max_size=120)
    | st.text(max_size=120)
)
def test_text(text: str) -> None:
    diagnose(text.encode("utf-8", errors="surrogatepass"))


@relaxed
@given(values, st.sampled_from([Spec, TargetProfile]))
def test_structures(value: object, model: Any) -> None:
    diagnose(yaml.safe_dump(value, allow_unicode=True).encode("utf-8", errors="replace"), model=model)


@relaxed
@given(st.data())
def test_specs_with_one_value_replaced(data: st.DataObject) -> None:
    document = yaml.safe_load(data.draw(st.sampled_from(SPECS)))
    node = document
    while True:
        key = data.draw(
            st.sampled_from(sorted(node, key=str)) if isinstance(node, dict) else st.sampled_from(range(len(node)))
        )
        if not isinstance(node[key], (dict, list)) or not node[key] or data.draw(st.booleans()):
            break
        node = node[key]
    node[key] = data.draw(values)
    if isinstance(node, dict) and data.draw(st.booleans()):
        node[data.draw(words)] = data.draw(values)
    diagnose(yaml.safe_dump(document, allow_unicode=True).encode("utf-8", errors="replace"))


@relaxed
@given(st.sampled_from(SPECS), st.data())
def test_specs_with_text_spliced_in(text: str, data: st.DataObject) -> None:
    start = data.draw(st.integers(0, len(text)))
    end = min(len(text), start + data.draw(st.integers(0, 40)))
    diagnose((text[:start] + data.draw(st.text(max_size=12)) + text[end:]).encode("utf-8", errors="replace"))


@relaxed
@given(
    st.sampled_from(SPECS),
    st.lists(st.text(max_size=30) | st.builds("{}.{}={}".format, words, words, words), max_size=3),
)
def test_overrides(text: str, overrides: list[str]) -> None:
    diagnose(text.encode("utf-8"), *overrides)


@pytest.mark.parametrize("text", [text for text in SPECS if "\nbase:" not in text])
def test_own_specs_are_specs(text: str) -> None:
    assert isinstance(diagnose(text.encode("utf-8")), Spec)
