"""A model that was trained again is another model, wherever its entry point gets the weights from."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from tests.integration.conftest import MakeCache
from tests.support.builds import PLAIN, Build, Compiler
from tests.support.plans import plan

from ortc.build.context import Context, opened
from ortc.build.executor import Executor
from ortc.build.observation import built, samples_key_of
from ortc.build.progress import Progress
from ortc.build.workspace import Workspace
from ortc.common.arrays import read_arrays
from ortc.common.digests import sha256_file
from ortc.common.errors import StageError
from ortc.execution.action_cache import Store
from ortc.frontend.fetch import Fetched
from ortc.plan.plan import Plan
from ortc.spec.model_sources import PyTorchSource

pytestmark = pytest.mark.usefixtures("as_builds")

ENTRY = """\
import json, os
from pathlib import Path
import numpy, torch
HERE = Path(__file__).parent
class Net(torch.nn.Module):
    def __init__(self, scale=1.0):
        super().__init__()
        self.layer, self.scale = torch.nn.Linear(4, 3), scale
    def forward(self, x):
        return self.layer(x) * self.scale
def load(path):
    net = Net()
    net.load_state_dict(torch.load(path))
    return net
"""
WAYS = {
    "beside": "return load(HERE / 'w.pt')",
    "in_a_subdirectory": "return load(HERE / 'runs' / 'last' / 'w.pt')",
    "at_an_absolute_path": "return load('{elsewhere}/w.pt')",
    "through_a_variable": "return load(os.environ['KEYS_TEST_WEIGHTS'])",
    "in_another_package": "import weights_of_another\n    return load(weights_of_another.PLACE)",
    "the_newest": "return load(sorted(HERE.glob('epoch-*.pt'))[-1])",
    "settings": "net = load(HERE / 'runs' / 'fixed.pt')\n"
    "    net.scale = json.loads((HERE / 'runs' / 'net.json').read_text())['scale']\n    return net",
    "safetensors": "from safetensors.torch import load_file\n    net = Net()\n"
    "    net.load_state_dict(load_file(HERE / 'runs' / 'w.safetensors'))\n    return net",
}
"""The body of a function that loads a module, by where it reads what was trained."""
ALL = """\
class All(torch.nn.Module):
    def __init__(self):
        super().__init__()
        for load_one in {functions}:
            self.add_module(load_one.__name__, load_one())
    def forward(self, x):
        return sum(module(x) for module in self.children())
def build(): return All()
"""


def train(project: Path, elsewhere: Path, way: str, seed: int) -> None:
    """Write weights in the place that an entry point reads."""
    import safetensors.torch
    import torch

    torch.manual_seed(seed)
    state = {f"layer.{name}": value for name, value in torch.nn.Linear(4, 3).state_dict().items()}
    (project / "runs" / "last").mkdir(parents=True, exist_ok=True)
    (elsewhere / "weights_of_another").mkdir(parents=True, exist_ok=True)
    package = elsewhere / "weights_of_another" / "__init__.py"
    package.write_text("from pathlib import Path\nPLACE = Path(__file__).parent / 'w.pt'\n")
    places = {
        "beside": project / "w.pt",
        "in_a_subdirectory": project / "runs" / "last" / "w.pt",
        "at_an_absolute_path": elsewhere / "w.pt",
        "through_a_variable": elsewhere / f"w-{seed}.pt",
        "in_another_package": package.parent / "w.pt",
        "the_newest": project / f"epoch-{seed}.pt",
        "settings": project / "runs" / "net.json",
        "safetensors": project / "runs" / "w.safetensors",
    }
    if way == "settings":
        fixed = project / "runs" / "fixed.pt"
        torch.save(state, fixed) if not fixed.exists() else None
        places[way].write_text(json.dumps({"scale": float(seed)}))
    elif way == "safetensors":
        safetensors.torch.save_file(state, places[way])
    else:
        torch.save(state, places[way])


def function(name: str, way: str, elsewhere: Path) -> str:
    """The source of a function that loads a module in a way."""
    return f"def {name}():\n    {WAYS[way].format(elsewhere=elsewhere)}\n"


def write_project(
    project: Path, elsewhere: Path, way: str, more: dict[str, Any] | None = None, weights: str = "entrypoint"
) -> Path:
    project.mkdir()
    (project / "pyproject.toml").touch()
    (project / "net.py").write_text(ENTRY + function("build", way, elsewhere))
    document = {
        "apiVersion": "ortc/v1alpha1",
        "kind": "ModelDeployment",
        "name": "small",
        "version": "1.0.0",
        "model": {"source": "pytorch", "entrypoint": "net:build", "weights": weights},
        "export": {
            "inputs": {"x": {"dtype": "float32", "shape": ["batch", 4]}},
            "dynamic_axes": {"batch": {"min": 1, "max": 2}},
            "exporter": "torchscript",
        },
        "targets": {"cpu": {"latency_budget": {"p99": "60s"}}},
        **(more or {}),
    }
    (project / "spec.yaml").write_text(json.dumps(document))
    return project / "spec.yaml"


def context_of(planned: Plan, root: Path, store: Store, work: Path, stack: ExitStack, fetched: Fetched) -> Context:
    """A build that executes its actions."""
    workspace = Workspace(root, store, work, fetched)
    return stack.enter_context(opened(planned, workspace, Executor(planned.name, store, Progress())))


def parts_of(spec: Path, cache: Path, work: Path) -> tuple[str, dict[str, str]]:
    """The digest of the model in the keys of a build, and those of its parts."""
    with ExitStack() as stack:
        planned = plan(spec)
        fetched = Fetched(directory=work, files=())
        context = context_of(planned, spec.parent, Store(cache), work, stack, fetched)
        assert isinstance(planned.model, PyTorchSource)
        key = built(context, planned.model, fetched).key
        assert context.modules.expected is not None
        return key, context.modules.expected


def test_a_model_that_was_trained_again_has_another_key(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Whichever way the weights come: one module for each, in one model."""
    project, elsewhere, cache, work = (tmp_path / name for name in ("project", "elsewhere", "cache", "work"))
    work.mkdir()
    spec = write_project(project, elsewhere, "beside")
    functions = "".join(function(way, way, elsewhere) for way in WAYS)
    (project / "net.py").write_text(ENTRY + functions + ALL.format(functions=f"({', '.join(WAYS)})"))
    monkeypatch.setenv("PYTHONPATH", f"{elsewhere}{os.pathsep}{os.environ.get('PYTHONPATH', '')}")

    def trained(seed: int) -> tuple[str, dict[str, str]]:
        for way in WAYS:
            train(project, elsewhere, way, seed)
        monkeypatch.setenv("KEYS_TEST_WEIGHTS", str(elsewhere / f"w-{seed}.pt"))
        return parts_of(spec, cache, work)

    before = trained(1)
    assert parts_of(spec, cache, work) == before
    after = trained(2)
    assert before[0] != after[0]
    assert before[1].keys() == after[1].keys()
    # Of the module whose settings changed its description, and of the others their weights.
    changed = {name for name in before[1] if before[1][name] != after[1][name]}
    weights = {f"{way}.layer.{tensor}" for way in WAYS for tensor in ("weight", "bias") if way != "settings"}
    assert changed == weights | {"settings()"}


UNSEEN = """\
import os, pathlib, subprocess
import numpy, torch
HERE = pathlib.Path(__file__).parent
W = torch.from_numpy(numpy.fromfile(HERE / "w.bin", "f4"))
def through_a_program(): return numpy.frombuffer(subprocess.check_output(["cat", HERE / "w.bin"]), "f4").copy()
def mapped(): return torch.from_file(str(HERE / "w.bin"), size=4).clone().numpy()
def the_last(): return sum(1.0 for number in range(9) if os.path.exists(HERE / f"epoch-{number}")) * numpy.ones(4, "f4")
def the_newest(): return numpy.full(4, max(os.path.getmtime(HERE / name) for name in ("w.bin", "net.py")), "f4")
def through_a_variable(): return numpy.full(4, float(os.environ["ORTC_OF_THE_USER"]), "f4")
def through_a_link(): return numpy.full(4, float(os.readlink(HERE / "last")), "f4")
WAYS = (through_a_program, mapped, the_last, the_newest, through_a_variable, through_a_link)
class Table:
    def __init__(self): self.w = torch.from_numpy(numpy.fromfile(HERE / "w.bin", "f4"))
    def __call__(self, x): return x * self.w
class Net(torch.nn.Module):
    def __init__(self):
        super().__init__()
        for way in WAYS:
            self.register_buffer(way.__name__, torch.as_tensor(way()))
        self.table, closure = Table(), torch.from_numpy(numpy.fromfile(HERE / "w.bin", "f4"))
        self.scaled = lambda x: x * closure
    def forward(self, x):
        return self.scaled(self.table(x)) * W + sum(self.buffers())
def build(): return Net()
"""
NUMBERS = (
    *("through_a_program", "mapped", "the_last", "the_newest", "through_a_variable", "through_a_link"),
    *("table.w", "scaled.closure", "net.W"),
)


def test_numbers_that_come_in_ways_which_nobody_sees_are_another_model(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    project, work = tmp_path / "project", tmp_path / "work"
    work.mkdir()
    spec = write_project(project, tmp_path, "beside")
    (project / "net.py").write_text(UNSEEN)
    os.utime(project / "net.py", (1, 1))
    planned = plan(spec)
    parts: list[dict[str, str]] = []
    for number in (1, 2):
        np.full(4, number, np.float32).tofile(project / "w.bin")
        os.utime(project / "w.bin", (number * 1e6, number * 1e6))
        (project / f"epoch-{number}").touch()
        (project / "last").unlink(missing_ok=True)
        (project / "last").symlink_to(str(number))
        monkeypatch.setenv("ORTC_OF_THE_USER", str(number))
        with ExitStack() as stack:
            fetched = Fetched(directory=work, files=())
            context = context_of(planned, project, Store(tmp_path / "cache"), work, stack, fetched)
            assert isinstance(planned.model, PyTorchSource)
            built(context, planned.model, fetched)
            assert context.modules.expected is not None
            parts.append(context.modules.expected)
    assert {name for name in parts[0] if parts[0][name] != parts[1][name]} == set(NUMBERS)


def test_samples_that_come_in_ways_which_nobody_sees_have_another_key(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    project, work = tmp_path / "project", tmp_path / "work"
    work.mkdir()
    spec = write_project(project, tmp_path, "beside", {"accuracy": {"samples": {"entrypoint": "rows_of_mine:samples"}}})
    function = "import os, numpy\ndef samples():\n    return [{'x': numpy.full(4, os.path.getmtime({!r}), 'f4')}]\n"
    (project / "rows_of_mine.py").write_text(function.replace("{!r}", repr(str(project / "pyproject.toml"))))
    planned, keys = plan(spec), []
    for time in (1, 1, 2):
        os.utime(project / "pyproject.toml", (time, time))
        with ExitStack() as stack:
            fetched = Fetched(directory=work, files=())
            context = context_of(planned, project, Store(tmp_path / "cache"), work, stack, fetched)
            keys.append(samples_key_of(context))
    assert keys[0] == keys[1] != keys[2]


def test_a_model_that_differs_each_time_is_refused(tmp_path: Path) -> None:
    project, work = tmp_path / "project", tmp_path / "work"
    work.mkdir()
    spec = write_project(project, tmp_path, "beside", weights="random")
    drawn = "net = Net()\n    net.layer.bias.data.copy_(torch.from_numpy(numpy.random.rand(3)))\n    return net\n"
    (project / "net.py").write_text(f"{ENTRY}def build():\n    {drawn}")
    with ExitStack() as stack:
        planned, fetched = plan(spec), Fetched(directory=work, files=())
        context = context_of(planned, project, Store(tmp_path / "cache"), work, stack, fetched)
        assert isinstance(planned.model, PyTorchSource)
        built(context, planned.model, fetched)
        context.reference.end()
        with pytest.raises(StageError, match=r"builds another module each time that it is called: `layer\.bias`"):
            context.reference.worker()


DATA = """
def samples():
    for row in numpy.load(HERE / "data" / "rows.npy"):
        yield {"x": row}
def metric(predict):
    return float(numpy.loadtxt(HERE / "data" / "labels.txt").mean())
"""


def outputs(build: Build) -> np.ndarray:
    return next(iter(read_arrays(build.bundle("small", "cpu") / "golden" / "0.outputs.npz").values()))


def provenance(build: Build) -> dict[str, str]:
    """The files that the model was made of, by name."""
    manifest = json.loads((build.bundle("small", "cpu") / "manifest.json").read_bytes())
    return {file["name"]: file["sha256"] for file in manifest["provenance"]["files"]}


def test_what_was_trained_again_is_built_and_refused_by_the_lock(make_cache: MakeCache, tmp_path: Path) -> None:
    project, elsewhere = tmp_path / "project", tmp_path / "elsewhere"
    samples = {"samples": {"entrypoint": "net:samples"}, "metric": {"entrypoint": "net:metric", "max_drop": 0.1}}
    spec = write_project(project, elsewhere, "in_a_subdirectory", {"accuracy": samples})
    (project / "net.py").write_text((project / "net.py").read_text() + DATA)
    (project / "data").mkdir()
    np.save(project / "data" / "rows.npy", np.ones((4, 4), np.float32))
    (project / "data" / "labels.txt").write_text("0.5 0.5")
    train(project, elsewhere, "in_a_subdirectory", 1)
    compiler = Compiler(make_cache(tmp_path / "cache"))

    def ortc(*arguments: str) -> subprocess.CompletedProcess[str]:
        command = [sys.executable, "-m", "ortc", *arguments]
        environment = compiler.environment()
        return subprocess.run(command, cwd=project, env=environment, capture_output=True, text=True, check=False)

    done = ortc("lock", str(spec), *PLAIN, "-o", str(tmp_path / "first"))
    assert done.returncode == 0, done.stderr
    planned = json.loads(ortc("plan", str(spec), *PLAIN, "--json", "-o", str(tmp_path / "first")).stdout)
    assert {entry["stage"]: entry["state"] for entry in planned["stages"] if entry["state"] != "cached"} == {}
    built_first = Build(0, "", "", tmp_path / "first", 0.0)
    first = outputs(built_first)
    assert provenance(built_first) == {"runs/last/w.pt": sha256_file(project / "runs" / "last" / "w.pt")}

    (project / "data" / "labels.txt").write_text("0.75 0.5")
    told = compiler.build(spec, *PLAIN, "--locked", output=tmp_path / "first", cwd=project).failed(4)
    assert "file data/labels.txt, which a function of the spec reads" in told
    planned = json.loads(ortc("plan", str(spec), *PLAIN, "--json", "-o", str(tmp_path / "first")).stdout)
    assert {entry["stage"] for entry in planned["stages"] if entry["state"] == "will run"} >= {"metric", "verify"}
    (project / "data" / "labels.txt").write_text("0.5 0.5")

    train(project, elsewhere, "in_a_subdirectory", 2)
    told = compiler.build(spec, *PLAIN, "--locked", output=tmp_path / "first", cwd=project).failed(4)
    assert "the model that its entry point builds" in told
    build = compiler.build(spec, *PLAIN, output=tmp_path / "second", cwd=project).succeeded()
    assert not np.allclose(outputs(build), first)
    assert provenance(build) == {"runs/last/w.pt": sha256_file(project / "runs" / "last" / "w.pt")}
