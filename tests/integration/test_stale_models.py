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

from ortc.build.context import Context
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
    "beside": "def build(): return load(HERE / 'w.pt')",
    "in a subdirectory": "def build(): return load(HERE / 'runs' / 'last' / 'w.pt')",
    "at an absolute path": "def build(): return load('{elsewhere}/w.pt')",
    "through a variable": "def build(): return load(os.environ['KEYS_TEST_WEIGHTS'])",
    "in another package": "def build():\n    import weights_of_another\n    return load(weights_of_another.PLACE)",
    "the newest": "def build(): return load(sorted(HERE.glob('epoch-*.pt'))[-1])",
    "settings": "def build():\n    net = load(HERE / 'w.pt')\n"
    "    net.scale = json.loads((HERE / 'runs' / 'net.json').read_text())['scale']\n    return net",
    "safetensors": "def build():\n    from safetensors.torch import load_file\n    net = Net()\n"
    "    net.load_state_dict(load_file(HERE / 'runs' / 'w.safetensors'))\n    return net",
}


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
        "in a subdirectory": project / "runs" / "last" / "w.pt",
        "at an absolute path": elsewhere / "w.pt",
        "through a variable": elsewhere / f"w-{seed}.pt",
        "in another package": package.parent / "w.pt",
        "the newest": project / f"epoch-{seed}.pt",
        "settings": project / "runs" / "net.json",
        "safetensors": project / "runs" / "w.safetensors",
    }
    if way == "settings":
        torch.save(state, project / "w.pt") if not (project / "w.pt").exists() else None
        places[way].write_text(json.dumps({"scale": float(seed)}))
    elif way == "safetensors":
        safetensors.torch.save_file(state, places[way])
    else:
        torch.save(state, places[way])


def write_project(
    project: Path, elsewhere: Path, way: str, more: dict[str, Any] | None = None, weights: str = "entrypoint"
) -> Path:
    project.mkdir()
    (project / "pyproject.toml").touch()
    (project / "net.py").write_text(ENTRY + WAYS[way].format(elsewhere=elsewhere) + "\n")
    document = {
        "apiVersion": "ortc/v1alpha1",
        "kind": "ModelDeployment",
        "name": "small",
        "version": "1.0.0",
        "model": {"source": "pytorch", "entrypoint": "net:build", "weights": weights},
        "export": {
            "inputs": {"x": {"dtype": "float32", "shape": ["batch", 4]}},
            "dynamic_axes": {"batch": {"min": 1, "max": 2}},
        },
        "targets": {"cpu": {"latency_budget": {"p99": "60s"}}},
        **(more or {}),
    }
    (project / "spec.yaml").write_text(json.dumps(document))
    return project / "spec.yaml"


def context_of(planned: Plan, root: Path, store: Store, work: Path, stack: ExitStack, fetched: Fetched) -> Context:
    """A build that executes its actions."""
    workspace = Workspace(root, store, work, fetched)
    return Context.of(planned, workspace, Executor(planned.name, store, Progress()), Progress(), stack)


def state(spec: Path, cache: Path, work: Path) -> str:
    """The digest of the model in the keys of a build."""
    with ExitStack() as stack:
        planned = plan(spec)
        fetched = Fetched(directory=work, files=())
        context = context_of(planned, spec.parent, Store(cache), work, stack, fetched)
        assert isinstance(planned.model, PyTorchSource)
        return built(context, planned.model, fetched).key


REST = pytest.mark.proof("test_a_model_that_was_trained_again_has_another_key in four other ways")
FEW = ("through a variable", "in another package", "the newest", "safetensors")


@pytest.mark.parametrize("way", [way if way in FEW else pytest.param(way, marks=REST) for way in WAYS])
def test_a_model_that_was_trained_again_has_another_key(
    way: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    project, elsewhere, cache, work = (tmp_path / name for name in ("project", "elsewhere", "cache", "work"))
    work.mkdir()
    spec = write_project(project, elsewhere, way)
    monkeypatch.setenv("PYTHONPATH", f"{elsewhere}{os.pathsep}{os.environ.get('PYTHONPATH', '')}")
    train(project, elsewhere, way, 1)
    monkeypatch.setenv("KEYS_TEST_WEIGHTS", str(elsewhere / "w-1.pt"))
    before = state(spec, cache, work)
    assert state(spec, cache, work) == before
    train(project, elsewhere, way, 2)
    monkeypatch.setenv("KEYS_TEST_WEIGHTS", str(elsewhere / "w-2.pt"))
    assert state(spec, cache, work) != before


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
    spec = write_project(project, elsewhere, "in a subdirectory", {"accuracy": samples})
    (project / "net.py").write_text((project / "net.py").read_text() + DATA)
    (project / "data").mkdir()
    np.save(project / "data" / "rows.npy", np.ones((4, 4), np.float32))
    (project / "data" / "labels.txt").write_text("0.5 0.5")
    train(project, elsewhere, "in a subdirectory", 1)
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

    train(project, elsewhere, "in a subdirectory", 2)
    told = compiler.build(spec, *PLAIN, "--locked", output=tmp_path / "first", cwd=project).failed(4)
    assert "the model that its entry point builds" in told
    build = compiler.build(spec, *PLAIN, output=tmp_path / "second", cwd=project).succeeded()
    assert not np.allclose(outputs(build), first)
    assert provenance(build) == {"runs/last/w.pt": sha256_file(project / "runs" / "last" / "w.pt")}
