"""Every variant and every form of PyTorch on one machine: right or not, how fast, how soon, in how much memory.

Needs Python >= 3.11, numpy, a pack, and what its contenders run on: onnxruntime-gpu and torch. What is not there, or
does not load, is in the result with its reason.
"""

from __future__ import annotations

import importlib
import json
import os
import platform
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import records
from seeding import Weights, restore

FORMAT_VERSION = 1
KIND = "ortc-gpu-measurement"
CPU = "CPUExecutionProvider"
MODES = ("host", "device")
REFERENCE = "torch-eager-fp32"
TURN_SECONDS, MOST_RUNS, LEAST_RUNS = 0.2, 20, 5
"""Of one turn of a contender: at most so many requests, for about so long."""
REST_SECONDS = {"cpu": 0.15, "cuda": 0.0}
"""Before a turn: threads on the host go on spinning for a while, kernels on the device do not."""
REQUEST_SECONDS = 3600.0
"""Of one request: building a TensorRT engine, or tuning a compiled model, takes minutes."""
Json = dict[str, Any]
Shape = tuple[int, int]


@dataclass(frozen=True)
class Form:
    """A form of PyTorch: attention, precision, and torch.compile's mode."""

    title: str
    attention: str
    precision: str
    compile: str | None = None
    tf32: bool = False


TORCH = {
    REFERENCE: Form("PyTorch eager, fp32", "eager", "fp32"),
    "torch-sdpa-fp32": Form("PyTorch sdpa, fp32", "sdpa", "fp32"),
    "torch-sdpa-tf32": Form("PyTorch sdpa, TF32", "sdpa", "fp32", tf32=True),
    "torch-eager-fp16": Form("PyTorch eager, fp16", "eager", "fp16"),
    "torch-sdpa-fp16": Form("PyTorch sdpa, fp16", "sdpa", "fp16"),
    "torch-sdpa-bf16": Form("PyTorch sdpa, bf16", "sdpa", "bf16"),
    "torch-compile-fp32": Form("torch.compile, fp32, reduce-overhead", "sdpa", "fp32", "reduce-overhead"),
    "torch-compile-fp16": Form("torch.compile, fp16, reduce-overhead", "sdpa", "fp16", "reduce-overhead"),
    "torch-autotune-fp16": Form("torch.compile, fp16, max-autotune", "sdpa", "fp16", "max-autotune"),
}


class AbsentError(Exception):
    """A contender does not run here; the message says why."""


@dataclass
class Running:
    """A contender's process."""

    name: str
    about: Json
    process: subprocess.Popen[str] | None = None
    facts: Json = field(default_factory=dict)

    def start(self) -> None:
        """Start it and wait until it is loaded.

        Raises:
            AbsentError: it does not load.
        """
        program = Path(__file__).with_name("contender.py")
        command = [sys.executable, "-s", str(program), json.dumps(self.about)]
        self.process = subprocess.Popen(
            command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, env={**os.environ, **QUIET}
        )
        self._reply()

    def call(self, op: str, **request: Any) -> Json:
        """The result of one operation; AbsentError when it fails."""
        assert self.process is not None
        assert self.process.stdin is not None
        try:
            self.process.stdin.write(json.dumps({"op": op, **request}) + "\n")
            self.process.stdin.flush()
        except OSError as error:
            raise AbsentError(f"its process ended with exit code {self.process.wait()}") from error
        return self._reply()

    def _reply(self) -> Json:
        import selectors

        assert self.process is not None
        assert self.process.stdout is not None
        with selectors.DefaultSelector() as selector:
            selector.register(self.process.stdout, selectors.EVENT_READ)
            if not selector.select(REQUEST_SECONDS):
                self.process.kill()
                raise AbsentError(f"it did not answer within {REQUEST_SECONDS:.0f} s")
        line = self.process.stdout.readline()
        if not line:
            raise AbsentError(f"its process ended with exit code {self.process.wait()}")
        document: Json = json.loads(line)
        if not document["ok"]:
            raise AbsentError(str(document["error"]))
        result: Json = document["result"]
        return result

    def stop(self) -> None:
        """End the process."""
        if self.process is not None:
            self.process.communicate()
            self.process = None


QUIET = {"ORT_DISABLE_TELEMETRY": "1", "OPENBLAS_NUM_THREADS": "1", "PYTHONDONTWRITEBYTECODE": "1"}


@dataclass(frozen=True)
class Job:
    """What to measure."""

    pack: Path
    output: Path
    device: str
    models: tuple[str, ...] | None
    only: tuple[str, ...]
    shapes: tuple[Shape, ...]
    rounds: int
    starts: int
    seconds: float


def compete(job: Job) -> Json:
    """Measure everything; the result is written anew after each step, so that what was measured is kept.

    Raises:
        ValueError: the pack is of another format, or comes out otherwise here than where it was made.
    """
    document = json.loads((job.pack / "pack.json").read_bytes())
    if document.get("kind") != "ortc-gpu-pack" or document.get("format_version") != FORMAT_VERSION:
        raise ValueError(f"{job.pack}/pack.json is no pack that this program reads")
    models = {name: entry for name, entry in document["models"].items() if job.models is None or name in job.models}
    if not models:
        raise ValueError(f"{job.pack} has the models {', '.join(document['models'])}, and none of those asked for")
    with tempfile.TemporaryDirectory(prefix="ortc-gpu-") as scratch:
        result: Json = {
            "format_version": FORMAT_VERSION,
            "kind": KIND,
            "measured": datetime.now(UTC).isoformat(timespec="seconds"),
            "device": job.device,
            "ortc": document["ortc"],
            "complete": False,
            "models": {},
        }
        for name, model in models.items():
            _model(job, name, model, Path(scratch) / name, result)
        result["complete"] = True
        records.write(job.output, result)
    return result


def _model(job: Job, name: str, model: Json, scratch: Path, result: Json) -> None:
    """One model: put its bundles together, start every contender, compare, and race."""
    began = time.monotonic()
    scratch.mkdir()
    found: Json = {"title": model["title"], "config": model["config"], "reference": None, "contenders": {}, "races": []}
    result["models"][name] = found
    absent, entries = contenders(job, model, scratch)
    for title, reason in absent.items():
        found["contenders"][title] = {"title": title, "absent": reason}
    programs = _programs(scratch, result)
    judged = _inputs(model, (4, job.shapes[0][1]), padded=True)
    np.savez(scratch / "judged.npz", **judged)
    ready: list[Running] = []
    try:
        for entry in entries:
            say(f"{name}: {entry.name}")
            about: Json = {"title": entry.about["title"], "kind": entry.about["kind"]}
            found["contenders"][entry.name] = about
            try:
                about |= _started(job, entry, scratch, programs)
                ready.append(entry)
            except AbsentError as error:
                about["absent"] = str(error)
                entry.stop()
                say(f"  absent: {error}")
            records.write(job.output, result)
        _judge(found, ready, scratch, judged, programs)
        for shape in job.shapes:
            for mode in MODES:
                if time.monotonic() - began < job.seconds and ready:
                    say(f"{name}: {shape[0]}x{shape[1]}, {mode}")
                    found["races"].append(_race(job, model, ready, shape, mode, scratch))
                    records.write(job.output, result)
    finally:
        for entry in ready:
            entry.stop()


def contenders(job: Job, model: Json, scratch: Path) -> tuple[dict[str, str], list[Running]]:
    """Why some are not there, and the others, ready to be started.

    Raises:
        ValueError: a bundle comes out otherwise than it was packed.
    """
    absent: dict[str, str] = {}
    entries: list[Running] = []
    asked = [name for name in TORCH if name.startswith(job.only)]
    for name in asked:
        form = TORCH[name]
        about = {"kind": "torch", "title": form.title, "device": job.device, "model": model, "threads": None}
        about |= {key: getattr(form, key) for key in ("attention", "precision", "compile", "tf32")}
        entries.append(Running(name, about))
    weights = Weights(model)
    for key, variant in model["variants"].items():
        name = f"ortc-{key}"
        if not name.startswith(job.only):
            continue
        if "absent" in variant:
            absent[name] = variant["absent"]
            continue
        place = scratch / key
        restore(job.pack, variant, weights, place)
        _verified(place)
        _adapt(place, job)
        entries.append(Running(name, {"kind": "onnxruntime", "title": f"ortc {key}", "bundle": str(place)}))
    return absent, entries


def _verified(bundle: Path) -> None:
    """Compare the bundle with its own digests, by its own loader."""
    done = subprocess.run(
        [
            sys.executable,
            "-s",
            "-c",
            "import pathlib; from loading.files import read_manifest; read_manifest(pathlib.Path('..'), 'full')",
        ],
        cwd=bundle / "runtime",
        env={**os.environ, **QUIET},
        capture_output=True,
        text=True,
        check=False,
    )
    if done.returncode != 0:
        raise ValueError(f"{bundle} is not whole: {done.stderr.strip().splitlines()[-1]}")


def _adapt(bundle: Path, job: Job) -> None:
    """What is changed for measuring: the CPU where there is no GPU, and every shape captured where graphs are."""
    session, manifest = (json.loads((bundle / name).read_bytes()) for name in ("session.json", "manifest.json"))
    if any(str(p["options"].get("enable_cuda_graph")) == "1" for p in session["providers"]):
        manifest["warmup"] = [{"batch": batch, "sequence": sequence} for batch, sequence in job.shapes]
    if job.device == "cpu":
        session["providers"] = [{"name": CPU, "options": {}}]
    (bundle / "session.json").write_text(json.dumps(session), "utf-8")
    (bundle / "manifest.json").write_text(json.dumps(manifest), "utf-8")


def _programs(scratch: Path, result: Json) -> ModuleType | None:
    """`measure.py` of a bundle, which knows the machine; also puts that into the result."""
    runtime = next(iter(sorted(scratch.glob("*/runtime"))), None)
    result["python"], result["platform"] = platform.python_version(), platform.platform()
    if runtime is None:
        return None
    sys.path.insert(0, str(runtime))
    try:
        measure = importlib.import_module("measure")
    finally:
        sys.path.remove(str(runtime))
    result["host"] = measure.describe()
    result["gpu"] = gpu()
    return measure


def gpu() -> Json | None:
    """Name, driver, memory and compute capability as the driver tells; None without one."""
    tool = shutil.which("nvidia-smi")
    fields = ("name", "driver_version", "memory.total", "compute_cap")
    if tool is None:
        return None
    done = subprocess.run(
        [tool, f"--query-gpu={','.join(fields)}", "--format=csv,noheader"], capture_output=True, text=True, check=False
    )
    lines = done.stdout.strip().splitlines()
    return dict(zip(fields, (part.strip() for part in lines[0].split(",")), strict=False)) if lines else None


def _started(job: Job, entry: Running, scratch: Path, measure: ModuleType | None) -> Json:
    """Start a contender several times, keep the last, and learn what there is to know: seconds, bytes, facts."""
    starts = []
    inputs = str(scratch / "judged.npz")
    peak = None if measure is None else measure.DevicePeak()
    for turn in range(job.starts):
        began = time.perf_counter()
        entry.start()
        entry.call("run", inputs=inputs, outputs=str(scratch / f"{entry.name}.npz"))
        starts.append(time.perf_counter() - began)
        if turn + 1 < job.starts:
            entry.stop()
    if peak is not None:
        peak.look()
    facts = entry.call("facts")
    with tempfile.TemporaryDirectory(dir=scratch) as place:
        copies = entry.call("copies", inputs=inputs, scratch=place)
    return {"start_seconds": starts, "device_bytes": None if peak is None else peak.bytes, "copies": copies, **facts}


def _judge(found: Json, ready: list[Running], scratch: Path, inputs: Json, measure: ModuleType | None) -> None:
    """How far every answer is from PyTorch's in fp32; from the first that is there, where PyTorch is not."""
    if not ready:
        return
    names = [entry.name for entry in ready]
    found["reference"] = reference = REFERENCE if REFERENCE in names else names[0]
    with np.load(scratch / f"{reference}.npz") as archive:
        wanted = archive["output"]
    allowed = {"max_abs": float("inf"), "cosine": None}
    for name in names:
        with np.load(scratch / f"{name}.npz") as archive:
            answer = archive["output"]
        if measure is None:
            difference = np.abs(answer - wanted)[inputs["attention_mask"] != 0]
            seen, problem = {"max_abs": float(difference.max())}, None
        else:
            # Imported with the program.
            golden = importlib.import_module("loading.golden")
            seen, problem = golden.compare(wanted, answer, allowed, inputs["attention_mask"])
        found["contenders"][name]["accuracy"] = {**seen, "problem": problem}


def _inputs(model: Json, shape: Shape, *, padded: bool = False) -> Json:
    """One request of that shape, the same on every machine; padded rows lose up to half."""
    batch, sequence = shape
    random = np.random.PCG64(sequence * 1000 + batch)
    ids = (random.random_raw(batch * sequence) % np.uint64(model["config"]["vocab_size"])).astype(np.int64)
    mask = np.ones((batch, sequence), np.int64)
    for row in range(batch if padded else 0):
        mask[row, sequence - row * sequence // (2 * batch) :] = 0
    return {
        "input_ids": ids.reshape(batch, sequence),
        "attention_mask": mask,
        "token_type_ids": np.zeros((batch, sequence), np.int64),
    }


def _race(job: Job, model: Json, ready: list[Running], shape: Shape, mode: str, scratch: Path) -> Json:
    """Rounds in turn at one shape; one that fails here is out of this race, with its reason."""
    file = scratch / f"{shape[0]}x{shape[1]}.npz"
    np.savez(file, **_inputs(model, shape))
    rounds: dict[str, list[list[float]]] = {}
    reasons: dict[str, str] = {}
    runs: dict[str, int] = {}
    for entry in ready:
        try:
            # Compiles, tunes or captures for this shape; the second is what it then takes.
            entry.call("bench", inputs=str(file), mode=mode, runs=1, warmup=1)
            (once,) = entry.call("bench", inputs=str(file), mode=mode, runs=1, warmup=1)["latencies_ms"]
        except AbsentError as error:
            reasons[entry.name] = str(error)
            continue
        runs[entry.name] = max(LEAST_RUNS, min(MOST_RUNS, int(TURN_SECONDS * 1000 / once)))
        rounds[entry.name] = []
    for turn in range(job.rounds):
        # Nobody is always the one after the same other.
        for entry in _turned([entry for entry in ready if entry.name in rounds], turn):
            time.sleep(REST_SECONDS[job.device])
            try:
                answer = entry.call("bench", inputs=str(file), mode=mode, runs=runs[entry.name], warmup=1)
            except AbsentError as error:
                reasons[entry.name] = str(error)
                del rounds[entry.name]
                continue
            rounds[entry.name].append([round(value, 4) for value in answer["latencies_ms"]])
    return {"batch": shape[0], "sequence": shape[1], "mode": mode, "rounds": rounds, "absent": reasons}


def _turned(entries: list[Running], turn: int) -> Iterator[Running]:
    yield from (entries[(index + turn) % len(entries)] for index in range(len(entries)))


def say(line: str) -> None:
    """Tell what is done."""
    sys.stderr.write(f"{line}\n")
    sys.stderr.flush()
