"""What the server costs: against the bare session, against bare HTTP, and beside LitServe and MLServer."""

from __future__ import annotations

import contextlib
import json
import subprocess
import tempfile
from collections.abc import Callable
from itertools import repeat
from pathlib import Path
from typing import Any

import numpy as np
import records
from loadgen import Result, load
from runners import say
from serving_setup import Arrays, Bundle, bundle, free_port, ours, serving
from workshop import CONTENDERS, home, python_of

from ortc.common.arrays import write_arrays
from ortc.execution.host import Host

CONNECTIONS = 16
PEERS = ("litserve", "mlserver")


def digits() -> Bundle:
    """The CNN for handwritten digits: a run takes microseconds, so that the server is what is measured."""
    return bundle("digits", {"batch": 1})


def minilm() -> Bundle:
    """all-MiniLM-L6-v2 in fp32, at 1 x 64."""
    return bundle("bert", {"batch": 1, "sequence": 64}, "--set", "targets.cpu.latency_budget.p99=60s")


def main(host: Host, threads: int, rounds: int) -> None:
    """All four, each into a file of its own."""
    facts = {"cpu": host.cpu, "cores": host.cores, "threads": threads}
    kinds: dict[str, Callable[[], dict[str, Any]]] = {
        "peers": lambda: peers(digits(), "digits 1", threads, rounds, 2000),
        "peers-minilm": lambda: peers(minilm(), "bert 1x64, fp32", threads, rounds, 400),
        "overhead": lambda: overhead(digits(), rounds),
        "throughput": lambda: throughput(minilm(), rounds),
    }
    for kind, measure in kinds.items():
        measured = measure()
        records.write(records.place(host.fingerprint(), "serving", kind), {"host": facts, **measured})
        say(f"serving {kind}: {json.dumps(measured['summary'])}")


def throughput(made: Bundle, rounds: int, requests: int = 160) -> dict[str, Any]:
    """Requests per second of MiniLM over 16 connections in binary, against as many threads on the bare session.

    The server also runs as its bundle says (one run at once), against one thread.
    """
    found: list[dict[str, float]] = []
    with tempfile.TemporaryDirectory() as scratch:
        inputs = Path(scratch) / "inputs.npz"
        write_arrays(inputs, made.inputs)
        for _ in range(rounds):
            turn = {}
            for clients in (CONNECTIONS, 1):
                command = [str(made.interpreter), "-B", str(CONTENDERS / "run_session.py"), str(made.directory)]
                done = subprocess.run(
                    [*command, str(inputs), str(requests), str(clients)], capture_output=True, text=True, check=True
                )
                turn[f"session, {clients} threads"] = float(done.stdout)
                with ours(made, free_port(), "--concurrency", str(clients)) as server:
                    _load(server.port, made, CONNECTIONS, CONNECTIONS * 2, binary=True)
                    result = _load(server.port, made, CONNECTIONS, requests, binary=True)
                turn[f"server, {clients} runs at once"] = result.per_second
            found.append(turn)
    summary = {
        f"{clients} at once": _ratio(found, f"server, {clients} runs at once", f"session, {clients} threads")
        for clients in (CONNECTIONS, 1)
    }
    return {"model": "bert 1x64, fp32", "requests": requests, "rounds": found, "summary": summary}


def overhead(made: Bundle, rounds: int, requests: int = 2000) -> dict[str, Any]:
    """Median latency on one connection, of the server and of an endpoint that answers as many bytes with no model."""
    found = []
    size = 0

    def look(_: int, answer: bytes) -> bool:
        nonlocal size
        size = len(answer)
        return True

    for _ in range(rounds):
        with ours(made, free_port()) as server:
            load(server.port, repeat((0, made.request(binary=True)), 50), 1, look)
            mine = _load(server.port, made, 1, requests, binary=True)
        port = free_port()
        command = [str(made.interpreter), "-B", str(CONTENDERS / "serve_echo.py"), str(port), str(size)]
        with serving(command, port, health="/health"):
            _load(port, made, 1, 50, binary=True)
            echo = _load(port, made, 1, requests, binary=True)
        found.append({"server_p50_ms": _at(mine, 50), "echo_p50_ms": _at(echo, 50)})
    adds = [turn["server_p50_ms"] - turn["echo_p50_ms"] for turn in found]
    summary = {"adds_p50_ms": float(np.median(adds)), "least": min(adds), "most": max(adds)}
    return {"model": "digits 1", "requests": requests, "answer_bytes": size, "rounds": found, "summary": summary}


def peers(made: Bundle, model: str, threads: int, rounds: int, requests: int) -> dict[str, Any]:
    """A model in JSON: ours, LitServe and MLServer in turn, on one connection and on 16."""
    found: list[dict[str, dict[str, float]]] = []
    with contextlib.ExitStack() as stack:
        ports = {"ortc": stack.enter_context(ours(made, free_port())).port}
        ports["litserve"] = free_port()
        script = [str(python_of("litserve")), "-s", str(CONTENDERS / "serve_litserve.py")]
        command = [*script, str(made.directory), str(ports["litserve"]), str(threads)]
        stack.enter_context(serving(command, ports["litserve"], health="/health"))
        ports["mlserver"] = free_port()
        folder = _mlserver(made, ports["mlserver"])
        command = [str(python_of("mlserver").parent / "mlserver"), "start", str(folder)]
        more = {
            "PYTHONPATH": str(CONTENDERS),
            "ORTC_BENCH_THREADS": str(threads),
            "ORTC_BENCH_MODEL": str(made.directory / made.manifest["model"]["file"]),
        }
        stack.enter_context(
            serving(command, ports["mlserver"], health=f"{made.path.removesuffix('/infer')}/ready", environ=more)
        )
        expected = _answer(ports["ortc"], made)
        for name, port in ports.items():
            if not np.allclose(_answer(port, made), expected, atol=1e-4):
                raise RuntimeError(f"{name} gives another answer")
            _load(port, made, CONNECTIONS, 50, binary=False)
        for _ in range(rounds):
            turn = {}
            for name, port in ports.items():
                alone, crowd = (_load(port, made, count, requests, binary=False) for count in (1, CONNECTIONS))
                turn[name] = {
                    "p50_ms": _at(alone, 50),
                    "p99_ms": _at(alone, 99),
                    "crowd_p50_ms": _at(crowd, 50),
                    "crowd_p99_ms": _at(crowd, 99),
                    "crowd_per_second": crowd.per_second,
                }
            found.append(turn)
    summary = {
        name: {key: float(np.median([turn[name][key] for turn in found])) for key in found[0][name]} for name in ports
    }
    versions = {name: _version(name) for name in PEERS}
    return {"model": f"{model}, JSON", "requests": requests, "versions": versions, "rounds": found, "summary": summary}


def _mlserver(made: Bundle, port: int) -> Path:
    folder = home() / "serving" / "mlserver"
    folder.mkdir(parents=True, exist_ok=True)
    # In the process itself: workers of their own cost it more than they give for a model this small.
    settings = {"http_port": port, "grpc_port": free_port(), "metrics_port": free_port(), "parallel_workers": 0}
    (folder / "settings.json").write_text(json.dumps({**settings, "host": "127.0.0.1", "debug": False}))
    model = {"name": made.manifest["name"], "implementation": "mlserver_runtime.Runtime"}
    (folder / "model-settings.json").write_text(json.dumps(model))
    return folder


def _load(port: int, made: Bundle, connections: int, requests: int, *, binary: bool) -> Result:
    result = load(port, repeat((0, made.request(binary=binary)), requests), connections, lambda *_: True)
    if set(result.statuses) != {200}:
        raise RuntimeError(f"not every request was answered: {result.statuses}")
    return result


def _answer(port: int, made: Bundle) -> Any:
    answers: list[Arrays] = []

    def keep(_: int, answer: bytes) -> bool:
        output = json.loads(answer)["outputs"][0]
        answers.append({"y": np.array(output["data"], np.float32).ravel()})
        return True

    load(port, iter([(0, made.request(binary=False))]), 1, keep)
    return answers[0]["y"]


def _at(result: Result, percentile: float) -> float:
    return float(np.percentile(result.latencies_ms, percentile))


def _ratio(found: list[dict[str, float]], one: str, other: str) -> dict[str, float]:
    ratios = [turn[one] / turn[other] for turn in found]
    return {"median": float(np.median(ratios)), "least": min(ratios), "most": max(ratios)}


def _version(name: str) -> str:
    import importlib.metadata

    places = [str(path) for path in (python_of(name).parents[1] / "lib").glob("*/site-packages")]
    return next(e.version for e in importlib.metadata.distributions(path=places) if e.metadata["Name"].lower() == name)
