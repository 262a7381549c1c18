"""Specs and profiles from files, overrides, and what relative paths start from."""

from pathlib import Path

import pytest

from ortc.common.suggest import closest, joined, listed
from ortc.plan.checks import check_spec
from ortc.spec.boundary import project_root
from ortc.spec.diagnostics.errors import SpecError
from ortc.spec.load import LoadedSpec, load_profile, load_spec, profile_files
from ortc.spec.model_sources import HuggingFaceSource

ROOT = Path(__file__).parents[3]
SPECS = sorted((ROOT / "specs").glob("*.yaml"))
TEXT = """\
apiVersion: ortc/v1alpha1
kind: ModelDeployment
name: example
version: 1.0.0
model: {source: huggingface, path: model, files: {config.json: "%s"}}
targets:
  cpu: {latency_budget: {p99: 10ms}}
""" % ("0" * 64)


@pytest.fixture
def spec(tmp_path: Path) -> Path:
    path = tmp_path / "spec.yaml"
    path.write_text(TEXT, "utf-8")
    (tmp_path / "model").mkdir()
    return path


def load(path: Path, *overrides: str) -> LoadedSpec:
    return load_spec(path, overrides)


@pytest.mark.parametrize("path", SPECS, ids=lambda path: path.stem)
def test_own_specs_pass_every_check(path: Path) -> None:
    checked = check_spec(path)
    assert checked.warnings == ()
    assert set(checked.profiles) == set(checked.loaded.spec.targets)
    assert checked.loaded.root == ROOT


@pytest.mark.parametrize("name", sorted(profile_files()))
def test_own_profiles_are_valid(name: str) -> None:
    assert load_profile(name).name == name


def test_overrides_are_typed_like_the_spec(spec: Path) -> None:
    loaded = load(
        spec,
        "accuracy.max_abs=1e-12",
        "targets.cpu.latency_budget.p99=1us",
        "model.weights=random",
        "targets.edge={precision: int8, size_budget: 50MB}",
        "export.dynamic_axes.batch.max=4",
        "export.outputs=[a, b]",
        "export.outputs.1=c",
        "version='2.10'",
        'model.files."config.json"=' + "a" * 64,
        "export.opset=18",
        "export.opset=19",
        "accuracy.samples=",
    ).spec
    assert loaded.accuracy.max_abs == 1e-12
    assert loaded.accuracy.samples is None
    assert loaded.targets["cpu"].latency_budget is not None
    assert loaded.targets["cpu"].latency_budget.p99 == pytest.approx(1e-6)
    assert loaded.targets["edge"].size_budget == 50_000_000
    assert isinstance(loaded.model, HuggingFaceSource)
    assert loaded.model.weights == "random"
    assert loaded.model.files == {"config.json": "a" * 64}
    assert loaded.export.dynamic_axes["batch"].max == 4
    assert loaded.export.outputs == ("a", "c")
    assert (loaded.version, loaded.export.opset) == ("2.10", 19)


def test_overrides_leave_the_places_of_the_rest(spec: Path) -> None:
    document = load(spec, "targets.cpu.precision=int8").document
    assert str(document.locate(["targets", "cpu", "precision"])) == "--set:23"
    assert str(document.locate(["targets", "cpu", "latency_budget", "p99"])) == f"{spec}:7:31"


def test_a_bad_file_and_a_bad_override_are_both_reported(spec: Path) -> None:
    spec.write_text(TEXT.replace("name: example", "name: Bad Name"), "utf-8")
    with pytest.raises(SpecError) as caught:
        load(spec, "export.opset=seventeen")
    assert [str(item.span) for item in caught.value.diagnostics] == [f"{spec}:3:7", "--set:14"]


@pytest.mark.parametrize("mark", [".git", "pyproject.toml"])
def test_root_is_the_nearest_project(tmp_path: Path, mark: str) -> None:
    (tmp_path / ".git").mkdir()
    inner = tmp_path / "a" / "b"
    (inner / "specs").mkdir(parents=True)
    assert project_root(inner / "specs" / "x.yaml") == tmp_path.resolve()
    (inner / mark).touch()
    assert project_root(inner / "specs" / "x.yaml") == inner.resolve()


def test_profiles_of_a_project_go_first(tmp_path: Path) -> None:
    (tmp_path / "targets").mkdir()
    text = (ROOT / "targets" / "cpu.yaml").read_text("utf-8")
    (tmp_path / "targets" / "cpu.yaml").write_text(text.replace("precision: fp32\n", "precision: auto\n", 1), "utf-8")
    (tmp_path / "targets" / "board.yaml").write_text(text.replace("name: cpu", "name: board"), "utf-8")
    assert load_profile("cpu", root=tmp_path).precision == "auto"
    assert load_profile("cpu").precision == "fp32"
    assert load_profile("board", root=tmp_path).name == "board"
    assert load_profile(str(tmp_path / "targets" / "board.yaml")).name == "board"
    with pytest.raises(SpecError, match="no target profile `board`"):
        load_profile("board")


def test_errors_say_how_many_there_are(spec: Path) -> None:
    with pytest.raises(SpecError, match=r"unknown key `a` at the top level \(and 1 more\)"):
        load(spec, "a=1", "b=2")


@pytest.mark.parametrize(
    ("word", "known", "meant"),
    [
        ("opsett", ["opset", "outputs"], "opset"),
        ("dynamicAxes", ["dynamic_axes"], "dynamic_axes"),
        ("CudaExecutionProvider", ["CPUExecutionProvider", "CUDAExecutionProvider"], "CUDAExecutionProvider"),
        ("gpu", ["cpu", "server-gpu"], "server-gpu"),
        ("seq", ["batch", "sequence"], "sequence"),
        ("tpu", ["cpu", "gpu"], None),
        ("", ["a"], None),
        ("x" * 1000, ["x" * 1001], None),
    ],
)
def test_closest(word: str, known: list[str], meant: str | None) -> None:
    assert closest(word, known) == meant


def test_lists_of_words() -> None:
    assert (listed([]), listed(["a"]), listed(["a", "b"]), joined(["a", "b", "c"], "and")) == (
        "",
        "`a`",
        "`a` or `b`",
        "a, b and c",
    )
