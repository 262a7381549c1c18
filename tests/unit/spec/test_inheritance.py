"""`base:` and `${env:NAME}`: what a spec takes from elsewhere."""

import copy
from pathlib import Path
from typing import Any

import pytest
import yaml
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from tests.support.examples import examples

from ortc.common.permissions import grant
from ortc.spec.diagnostics.errors import SpecError
from ortc.spec.inheritance import inherited
from ortc.spec.load import load_spec
from ortc.spec.model_sources import HuggingFaceSource

BASE = """\
apiVersion: ortc/v1alpha1
kind: ModelDeployment
name: common
version: 1.0.0
model: {source: huggingface, path: model, weights: random}
export:
  dynamic_axes:
    batch: {min: 1, typical: 2, max: 16}
    sequence: {max: 128}
  outputs: [a, b]
accuracy: {cosine: 0.99}
targets:
  cpu: {latency_budget: {p50: 5ms, p99: 10ms}}
  edge: {}
"""


@pytest.fixture
def write(tmp_path: Path) -> Any:
    """Writes specs into a directory of their own."""

    def write(text: str, name: str = "spec.yaml") -> Path:
        path = tmp_path / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text, "utf-8")
        return path

    write(BASE, "parts/common.yaml")
    return write


def test_merges_by_key(write: Any) -> None:
    loaded = load_spec(
        write(
            "base: parts/common.yaml\nname: mine\nexport:\n  dynamic_axes: {batch: {max: 32}}\n  outputs: [c]\n"
            "accuracy: null\ntargets:\n  cpu: {latency_budget: {p50: null}}\n  edge: null\n  server-gpu: {}\n"
        )
    )
    spec = loaded.spec
    assert (spec.name, spec.version, spec.base) == ("mine", "1.0.0", "parts/common.yaml")
    batch = spec.export.dynamic_axes["batch"]
    assert (batch.typical, batch.max) == (2, 32)
    assert set(spec.export.dynamic_axes) == {"batch", "sequence"}
    assert spec.export.outputs == ("c",)
    assert spec.accuracy.cosine == 0.98
    assert list(spec.targets) == ["cpu", "server-gpu"]
    budget = spec.targets["cpu"].latency_budget
    assert budget is not None
    assert (budget.p50, budget.p99) == (None, 0.01)


def test_places_are_those_where_the_values_were_written(write: Any) -> None:
    document = load_spec(write("base: parts/common.yaml\nexport: {dynamic_axes: {batch: {max: 32}}}\n")).document
    axis = ("export", "dynamic_axes", "batch")
    assert document.locate((*axis, "max")).source.name.endswith("spec.yaml")
    assert document.locate((*axis, "typical")).source.name.endswith("common.yaml")
    assert document.locate(("name",)).source.name.endswith("common.yaml")


def test_a_chain_starts_from_each_file_in_turn(write: Any) -> None:
    write("base: ../parts/common.yaml\nname: second\nversion: 2.0.0\n", "more/second.yaml")
    spec = load_spec(write("base: more/second.yaml\nversion: 3.0.0\n")).spec
    assert (spec.name, spec.version) == ("second", "3.0.0")


def test_overrides_come_last(write: Any) -> None:
    path = write("base: parts/common.yaml\nversion: 2.0.0\n")
    assert load_spec(path, ("version=3.0.0", "export.dynamic_axes.batch.max=8")).spec.version == "3.0.0"


def test_a_null_that_removes_nothing_is_a_value(write: Any) -> None:
    with pytest.raises(SpecError, match="must be a mapping, not null"):
        load_spec(write("base: parts/common.yaml\ntargets: {server-gpu: null}\n"))


def test_a_link_back_is_a_circle(write: Any, tmp_path: Path) -> None:
    path = write("base: link.yaml\n")
    (tmp_path / "link.yaml").symlink_to(path)
    with pytest.raises(SpecError, match="inherits from itself"):
        load_spec(path)


@pytest.mark.parametrize("base", ["''", "null", "[a]", "{a: b}", "true", "nothing.yaml", "parts", "x" * 5000, '"a\tb"'])
def test_what_is_no_base(base: str, write: Any) -> None:
    with pytest.raises(SpecError) as caught:
        load_spec(write(f"base: {base}\n"))
    assert [diagnostic.code for diagnostic in caught.value.diagnostics] in (["ORTC123"], ["ORTC150"])


keys = st.sampled_from("abcd")
trees = st.recursive(
    st.integers(0, 3) | st.none() | st.lists(st.integers(0, 3), max_size=2),
    lambda inner: st.dictionaries(keys, inner, max_size=3),
    max_leaves=10,
)
mappings = st.dictionaries(keys, trees, max_size=4)


def merged(below: dict[str, Any], above: dict[str, Any]) -> dict[str, Any]:
    result = copy.deepcopy(below)
    for key, value in above.items():
        if value is None and key in below:
            del result[key]
        elif isinstance(value, dict) and isinstance(below.get(key), dict):
            result[key] = merged(below[key], value)
        else:
            result[key] = value
    return result


@settings(max_examples=examples(100), deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(below=mappings, middle=mappings, above=mappings)
def test_documents_are_merged_from_the_bottom(
    below: dict[str, Any], middle: dict[str, Any], above: dict[str, Any], tmp_path: Path
) -> None:
    for name, base, tree in (("below", None, below), ("middle", "below", middle), ("above", "middle", above)):
        text = yaml.safe_dump(({"base": f"{base}.yaml"} if base else {}) | tree)
        (tmp_path / f"{name}.yaml").write_text(text, "utf-8")
    found = inherited(tmp_path / "above.yaml").data
    assert found.pop("base") == "middle.yaml"
    assert yaml.safe_load(yaml.safe_dump(lists(found))) == merged(merged(below, middle), above)


def lists(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: lists(item) for key, item in value.items()}
    return list(value) if isinstance(value, tuple) else value


def test_environment(write: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    grant(variables=("VERSION", "MODELS"))
    monkeypatch.setenv("VERSION", "1.10")
    monkeypatch.setenv("MODELS", "some/models")
    path = write(
        "base: parts/common.yaml\nversion: ${env:VERSION}\nmodel:\n  path: ${env:MODELS}/bert-${env:VERSION}\n"
        "  files: {config.json: '" + "0" * 64 + "'}\n  mirrors: ['path:${env:MODELS}', 's3://a$b/${env:VERSION}']\n"
    )
    spec = load_spec(path).spec
    assert spec.version == "1.10"
    assert isinstance(spec.model, HuggingFaceSource)
    assert spec.model.path == "some/models/bert-1.10"
    assert spec.model.mirrors == ("path:some/models", "s3://a$b/1.10")
    assert load_spec(path, ("version=x${env:VERSION}",)).spec.version == "x1.10"


def test_values_are_not_expanded_again(write: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    grant(variables=("MODELS",))
    monkeypatch.setenv("MODELS", "${env:HOME}")
    spec = load_spec(write("base: parts/common.yaml\nmodel: {path: '${env:MODELS}'}\n")).spec
    assert isinstance(spec.model, HuggingFaceSource)
    assert spec.model.path == "${env:HOME}"


def test_a_reference_elsewhere_names_its_place(write: Any) -> None:
    with pytest.raises(SpecError) as caught:
        load_spec(write("base: parts/common.yaml\ntargets: {cpu: {size_budget: '${env:SIZE}'}}\n"))
    assert [diagnostic.code for diagnostic in caught.value.diagnostics] == ["ORTC155"]
