"""What the server withstands: many requests with every answer checked, many threads, and requests that are wrong."""

from __future__ import annotations

import json
import subprocess
import sys
from collections import Counter
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np
import records
from loadgen import load
from runners import say
from serving_race import CONNECTIONS, digits
from serving_setup import Bundle, free_port, ours, random_inputs
from workshop import CONTENDERS

from ortc.execution.host import Host

sys.path.insert(0, str(Path(__file__).parents[2]))

REQUESTS, WARM, EVERY = 100_000, 10_000, 10_000
RUNS, MUTATED, GENERATED = 50_000, 20_000, 4_000


def main(host: Host) -> None:
    """All three, in one file."""
    made = digits()
    document: dict[str, Any] = {"host": {"cpu": host.cpu, "cores": host.cores}, "model": "digits"}
    place = records.place(host.fingerprint(), "serving", "soak")
    for name, measure in (("threads", threads), ("malformed", malformed), ("soak", soak)):
        document[name] = measure(made)
        records.write(place, document)
        say(f"serving {name}: {json.dumps(document[name])}")


def threads(made: Bundle) -> dict[str, Any]:
    """50,000 runs of the loader from 16 threads, at every batch size."""
    command = [str(made.interpreter), "-B", str(CONTENDERS / "run_threads.py"), str(made.directory), str(RUNS)]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    found: dict[str, Any] = json.loads(done.stdout)
    return found


def soak(made: Bundle) -> dict[str, Any]:
    """100,000 requests of 64 kinds over 16 connections: wrong answers, and resident memory every 10,000."""
    random = np.random.default_rng(0)
    kinds = [random_inputs(made.manifest, {"batch": 1 + n % 4}, random) for n in range(64)]
    requests = [made.request(kind, binary=True) for kind in kinds]
    expected: dict[int, bytes] = {}

    def learn(index: int, answer: bytes) -> bool:
        expected[index] = answer
        return True

    def check(index: int, answer: bytes) -> bool:
        return answer == expected[index]

    with ours(made, free_port()) as server:
        # One connection: what one client alone is told is what all are to be told.
        load(server.port, iter(list(enumerate(requests))), 1, learn)
        endless = ((n % 64, requests[n % 64]) for n in range(REQUESTS))
        memory, wrong, seconds = [], 0, 0.0
        statuses: Counter[int] = Counter()
        for _ in range(REQUESTS // EVERY):
            result = load(server.port, islice(endless, EVERY), CONNECTIONS, check)
            wrong, seconds = wrong + result.wrong, seconds + result.seconds
            statuses.update(result.statuses)
            memory.append(server.rss_bytes)
    growth = memory[-1] / memory[WARM // EVERY - 1] - 1
    return {
        "requests": REQUESTS,
        "wrong": wrong,
        "statuses": {str(status): count for status, count in statuses.items()},
        "per_second": REQUESTS / seconds,
        "rss_bytes_every_10000": memory,
        "growth_after_first_10000": growth,
    }


def malformed(made: Bundle) -> dict[str, Any]:
    """Mutated and generated requests by status, calls by code; 5xx but 503, INTERNAL or UNKNOWN would be a bug."""
    from tests.support import malformed as support
    from tests.support.bundles import runtime_module
    from tests.support.serving import serve

    head, tail = {"inputs": list[dict[str, Any]]()}, b""
    for name, array in made.inputs.items():
        size = {"binary_data_size": array.nbytes}
        head["inputs"].append({"name": name, "shape": list(array.shape), "datatype": "FP32", "parameters": size})
        tail += array.tobytes()
    messages = runtime_module("serving.messages")
    call = messages.make("inference", messages.INFERENCE)["ModelInferRequest"](model_name=made.manifest["name"], id="1")
    for name, array in made.inputs.items():
        call.inputs.add(name=name, datatype="FP32", shape=array.shape)
        call.raw_input_contents.append(array.tobytes())
    with serve(made.directory, "--grpc-port", "0") as running:
        calls = support.send_rpc_mutations(running.grpc, f"/{messages.SERVICE}/ModelInfer", call, MUTATED)
        mutated = support.send_mutations(running, made.path, head, tail, MUTATED)
        generated = support.send_generated(running, GENERATED)
        running.stop()
    return {
        "mutated": {str(status): count for status, count in sorted(mutated.items())},
        "generated": {str(status): count for status, count in sorted(generated.items())},
        "calls": dict(sorted(calls.items())),
        "requests": mutated.total() + generated.total() + calls.total(),
        "5xx_but_503": sum(n for status, n in (mutated + generated).items() if status >= 500 and status != 503),
        "internal_or_unknown": calls["INTERNAL"] + calls["UNKNOWN"],
    }
