"""Many runs of one `Model` from 16 threads at mixed shapes, each compared with what a single thread was told."""

import json
import sys
import threading
from pathlib import Path

import numpy as np

BUNDLE, RUNS, THREADS = Path(sys.argv[1]), int(sys.argv[2]), 16
sys.path.insert(0, str(BUNDLE / "runtime"))
from loader import Model  # noqa: E402

random = np.random.default_rng(0)
model = Model.load(BUNDLE)
(tensor,) = model.inputs
(batch,) = model.axes
cases = [{tensor.name: random.random([1 + n % batch.max, *tensor.shape[1:]]).astype(tensor.dtype)} for n in range(64)]
alone = [model.run(case) for case in cases]
wrong: list[int] = []


def client(seed: int) -> None:
    """One thread's share."""
    order = np.random.default_rng(seed).integers(0, len(cases), RUNS // THREADS)
    for index in order.tolist():
        answer = model.run(cases[index])
        if any(not np.array_equal(answer[name], expected) for name, expected in alone[index].items()):
            wrong.append(index)


threads = [threading.Thread(target=client, args=(seed,)) for seed in range(THREADS)]
for thread in threads:
    thread.start()
for thread in threads:
    thread.join()
runs = RUNS // THREADS * THREADS
sys.stdout.write(json.dumps({"runs": runs, "threads": THREADS, "shapes": batch.max, "different": len(wrong)}))
