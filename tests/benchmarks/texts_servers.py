"""The servers of the race of embeddings as processes: what is made for them, how they start, stop and are asked."""

from __future__ import annotations

import contextlib
import json
import os
import shutil
import signal
import subprocess
import sys
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from catalogue import model as model_of
from counting import QUIET, run_counted
from loadgen import http_request
from numpy.typing import NDArray
from serving_setup import free_port, serving
from texts_catalogue import TextServer
from texts_set import halves
from workshop import CONTENDERS, HERE, Bundle, home, model_directory, python_of

from ortc.common.digests import sha256_file
from ortc.execution.runtime_environment import environment

MODEL = "minilm"
SPEC = HERE / "specs" / "minilm-texts.yaml"
PATH = "/v1/embeddings"
PACKAGES = {
    "litserve": ("sentence-transformers", "litserve", "transformers", "torch"),
    "bentoml": ("bentoml", "sentence-transformers", "transformers", "torch"),
    "infinity-torch": ("infinity-emb", "transformers", "torch"),
    "infinity-optimum": ("infinity-emb", "optimum", "onnxruntime"),
}
"""Versions that are recorded of a peer's environment; `BACKENDS` adds to them."""
OWN = {"PYTHONNOUSERSITE": "1"}
"""An environment of its own has no packages of the user's."""
BACKENDS = {"onnx": ("optimum-onnx", "onnxruntime"), "openvino": ("optimum-intel", "openvino", "nncf")}


def home_of_texts() -> Path:
    """Where what is made for this race is kept."""
    place = home() / "texts"
    place.mkdir(parents=True, exist_ok=True)
    return place


def bundles(targets: Sequence[str]) -> dict[str, Bundle]:
    """Our bundles by target, built where they are not.

    Raises:
        RuntimeError: the build fails.
    """
    output, cache = home_of_texts() / "bundles", home() / "ortc-cache"
    command = [sys.executable, "-m", "ortc", "build", str(SPEC), "-o", str(output), "--search", "quick"]
    command += [part for target in targets for part in ("-t", target)]
    cost = run_counted(
        command, directory=HERE.parents[1], variables={"ORTC_CACHE_DIR": str(cache)}, log=output.with_suffix(".log.txt")
    )
    if cost.exit_code:
        raise RuntimeError(f"ortc build {SPEC.name} fails:\n{cost.tail()}")
    found = {}
    for target in targets:
        (directory,) = output.glob(f"*/*/{target}")
        manifest = json.loads((directory / "manifest.json").read_text("utf-8"))
        requirements = (directory / "requirements.txt").read_text("utf-8")
        found[target] = Bundle(
            directory=directory,
            interpreter=environment(requirements, cache / "environments"),
            identity=sha256_file(directory / "SHA256SUMS")[:16],
            variant=manifest["variant"]["name"],
            bytes=manifest["model"]["bytes"],
        )
    return found


def artifact(entry: TextServer) -> Path:
    """The directory that a peer's server loads, made where it is not.

    Raises:
        RuntimeError: it cannot be made.
    """
    own = model_directory(model_of(MODEL))
    if not entry.artifact:
        return own
    backend = entry.artifact.removesuffix("-int8")
    place = home_of_texts() / "artifacts" / entry.artifact
    if not place.is_dir():
        fresh = place.with_name(f"{place.name}.new")
        shutil.rmtree(fresh, ignore_errors=True)
        fresh.parent.mkdir(parents=True, exist_ok=True)
        texts = fresh.with_suffix(".json")
        texts.write_text(json.dumps(halves()[1]), "utf-8")
        python = str(python_of(f"st-{backend}"))
        command = [python, str(CONTENDERS / "make_texts.py"), str(own), str(fresh), entry.artifact, str(texts)]
        cost = run_counted(command, directory=fresh.parent, variables=OWN, log=fresh.with_suffix(".log.txt"))
        if cost.exit_code:
            raise RuntimeError(f"cannot make {entry.artifact}: {_last(cost.tail())}")
        fresh.rename(place)
    return place


def _last(said: str) -> str:
    return next((line for line in reversed(said.splitlines()) if line.strip()), "no output")


def reference(texts: Sequence[str]) -> NDArray[np.float32]:
    """The vectors of sentence-transformers on torch, of one text at a time: float32 [texts, size].

    Raises:
        RuntimeError: it fails.
    """
    content = json.dumps(list(texts))
    place = home_of_texts() / "reference"
    given, made = place.with_suffix(".json"), place.with_suffix(".npy")
    if not made.is_file() or given.read_text("utf-8") != content:
        made.unlink(missing_ok=True)
        given.write_text(content, "utf-8")
        command = [str(python_of("st-torch")), str(CONTENDERS / "make_texts.py")]
        command += [str(model_directory(model_of(MODEL))), str(made), "reference", str(given)]
        cost = run_counted(command, directory=place.parent, variables=OWN, log=place.with_suffix(".log.txt"))
        if cost.exit_code:
            raise RuntimeError(f"no reference: {cost.tail()}")
    found: NDArray[np.float32] = np.load(made)
    return found


@dataclass(frozen=True)
class Running:
    """A server that listens, stopped while it is not its turn so that nothing of it runs beside another."""

    entry: TextServer
    setting: str
    port: int
    process: int
    model: str

    def request(self, text: str) -> bytes:
        """The bytes of a request for the vector of one text."""
        document: dict[str, Any] = {"model": self.model, "input": text}
        if self.entry.server == "bentoml":
            document = {"texts": [text]}
        return http_request(PATH, json.dumps(document).encode(), {"Content-Type": "application/json"})

    def vector(self, body: bytes) -> NDArray[np.float64]:
        """The vector of an answer."""
        document = json.loads(body)
        return np.array(document[0] if self.entry.server == "bentoml" else document["data"][0]["embedding"])

    @contextlib.contextmanager
    def turn(self) -> Iterator[None]:
        """It runs inside of the block."""
        _signal(self.process, signal.SIGCONT)
        try:
            yield
        finally:
            _signal(self.process, signal.SIGSTOP)

    def cpu_seconds(self) -> float:
        """Processor time of all its processes."""
        ticks = sum(int(fields[11]) + int(fields[12]) for fields in _processes(self.process).values())
        return ticks / os.sysconf("SC_CLK_TCK")


def _processes(first: int) -> dict[int, list[str]]:
    """What /proc/PID/stat says after the name, of a process and all that it started, in other sessions as well."""
    every: dict[int, list[str]] = {}
    for stat in Path("/proc").glob("[0-9]*/stat"):
        with contextlib.suppress(OSError):  # it ended between the listing and the reading
            every[int(stat.parent.name)] = stat.read_text("utf-8").rpartition(")")[2].split()
    found, pending = {}, [first]
    while pending:
        parent = pending.pop()
        if parent in every:
            found[parent] = every[parent]
            pending += [process for process, fields in every.items() if int(fields[1]) == parent]
    return found


def _signal(first: int, number: signal.Signals) -> None:
    for process in _processes(first):
        with contextlib.suppress(ProcessLookupError):
            os.kill(process, number)


@contextlib.contextmanager
def running(entry: TextServer, setting: str, threads: int, bundle: Bundle | None) -> Iterator[Running]:
    """A server with one of its settings, from its start until the block ends; it is stopped outside of its turns.

    Raises:
        RuntimeError: it does not serve.
    """
    port = free_port()
    command, more, health, name = _command(entry, setting, threads, port, bundle)
    environ = {**QUIET, **OWN, **_threads(threads), **more}
    with serving(command, port, health=health, environ=environ) as server:
        found = Running(entry, setting, port, server.process.pid, name)
        _signal(found.process, signal.SIGSTOP)
        try:
            yield found
        finally:
            _signal(found.process, signal.SIGCONT)


def _threads(threads: int) -> dict[str, str]:
    names = ("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS")
    return {
        **dict.fromkeys(names, str(threads)),
        "BENTOML_DO_NOT_TRACK": "True",
        "DO_NOT_TRACK": "1",
        "INFINITY_ANONYMOUS_USAGE_STATS": "0",
        "TOKENIZERS_PARALLELISM": "false",
    }


def _command(
    entry: TextServer, setting: str, threads: int, port: int, bundle: Bundle | None
) -> tuple[list[str], dict[str, str], str, str]:
    """A command, variables of its environment, its path of health, and what it calls the model."""
    if bundle is not None:
        at_once, tokens, each = setting.split("/")
        command = [str(bundle.interpreter), str(bundle.directory / "runtime/server.py"), "--port", str(port)]
        command += ["--concurrency", at_once, "--max-batch-tokens", tokens, "--threads", each]
        manifest = json.loads((bundle.directory / "manifest.json").read_text("utf-8"))
        return command, {}, "/v2/health/ready", manifest["name"]
    model, python = artifact(entry), python_of(entry.environment)
    file = entry.file.format(onnx="avx512_vnni" if _has_vnni() else "avx2")
    if entry.server == "litserve":
        backend = entry.artifact.removesuffix("-int8") or "torch"
        command = [str(python), "-s", str(CONTENDERS / "serve_texts_litserve.py"), str(model), backend, file]
        return [*command, str(port), str(threads), *setting.split("/")], {}, "/health", MODEL
    if entry.server == "bentoml":
        command = [str(python), "-m", "bentoml", "serve", "serve_texts_bentoml:Embeddings"]
        command += ["--working-dir", str(CONTENDERS), "--host", "127.0.0.1", "--port", str(port)]
        settings = {"MODEL": str(model), "THREADS": str(threads), "SETTING": setting}
        return command, {f"ORTC_BENCH_{key}": value for key, value in settings.items()}, "/readyz", MODEL
    engine = entry.server.removeprefix("infinity-")
    command = [str(python.parent / "infinity_emb"), "v2", "--model-id", str(model), "--engine", engine]
    command += ["--device", "cpu", "--port", str(port), "--host", "127.0.0.1", "--url-prefix", "/v1"]
    command += ["--batch-size", setting, "--served-model-name", MODEL, "--no-bettertransformer"]
    if engine == "torch":
        command += ["--dtype", "int8" if entry.precision == "int8" else "float32"]
    variables = {"INFINITY_ONNX_DO_NOT_PREFER_QUANTIZED": "0" if entry.precision == "int8" else "1"}
    return command, variables, "/health", MODEL


def _has_vnni() -> bool:
    return "avx512_vnni" in Path("/proc/cpuinfo").read_text("utf-8")


def facts_of(entry: TextServer, bundle: Bundle | None) -> dict[str, Any]:
    """What is worth recording of a contender.

    Raises:
        RuntimeError: its environment or its artifact cannot be made.
    """
    if bundle is not None:
        manifest = json.loads((bundle.directory / "manifest.json").read_text("utf-8"))
        versions = {manifest["runtime"]["package"]: manifest["runtime"]["version"]}
        return {"identity": bundle.identity, "versions": versions, "variant": bundle.variant}
    wanted = (*PACKAGES[entry.server], *BACKENDS.get(entry.artifact.removesuffix("-int8"), ()))
    python = python_of(entry.environment)
    listed = subprocess.run(
        [sys.executable, "-m", "pip", "--python", str(python), "list", "--format", "json"],
        capture_output=True, text=True, check=True,
    )  # fmt: skip
    known = {row["name"].lower().replace("_", "-"): row["version"] for row in json.loads(listed.stdout)}
    artifact(entry)
    versions = {name: known[name] for name in wanted if name in known}
    return {"identity": python.parents[1].name, "versions": versions}
