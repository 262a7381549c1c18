"""Bare `InferenceSession.run` from several threads, with the bundle's own session settings: requests per second."""

import json
import sys
import threading
import time
from pathlib import Path

import numpy as np

BUNDLE, INPUTS, RUNS, THREADS = Path(sys.argv[1]), sys.argv[2], int(sys.argv[3]), int(sys.argv[4])
sys.path.insert(0, str(BUNDLE / "runtime"))
from loader import Model  # noqa: E402

model = Model.load(BUNDLE)
session, names, inputs = model._session, model.output_names(), dict(np.load(INPUTS))
for _ in range(10):
    session.run(names, inputs)


def client() -> None:
    """One thread's share."""
    for _ in range(RUNS // THREADS):
        session.run(names, inputs)


threads = [threading.Thread(target=client) for _ in range(THREADS)]
began = time.perf_counter()
for thread in threads:
    thread.start()
for thread in threads:
    thread.join()
sys.stdout.write(json.dumps((RUNS // THREADS) * THREADS / (time.perf_counter() - began)))
