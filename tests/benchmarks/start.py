"""Start to first answer, interpreter included, and peak memory: fresh processes, files in the page cache, in turn."""

from __future__ import annotations

import tempfile
import time
from pathlib import Path

import records
from catalogue import Model
from race import REST_SECONDS, scheduling
from runners import Absent, entrants, first_answer, inputs_of, say

from ortc.common.arrays import write_arrays
from ortc.execution.host import Host


def start(model: Model, names: tuple[str, ...], *, host: Host, threads: int, rounds: int, seconds: float) -> None:
    """Add starts to a model's record, until each contender has as many as wanted or the time is over.

    Each start is one process that answers one request of batch 1 (and sequence 128). The first of a contender in a run
    does not count: it brings the files into the page cache.
    """
    shape = model.main_shape
    path = records.place(host.fingerprint(), "start", model.name)
    document = records.read(path) or {}
    if document.get("threads", threads) != threads:
        document = {}
    known = document.get("starts", {})
    with tempfile.TemporaryDirectory() as scratch:
        inputs = Path(scratch) / "inputs.npz"
        write_arrays(inputs, inputs_of(model, shape, padded=False))
        pending = []
        for entry in entrants(model, shape, names, threads):
            if isinstance(entry, Absent):
                say(f"  {entry.name}: {entry.reason}")
                continue
            for how, command in entry.first.items():
                key = f"{entry.name}, {how}" if how else entry.name
                if key not in known or known[key]["identity"] != entry.facts["identity"]:
                    known[key] = {
                        "contender": entry.name,
                        "how": how,
                        **entry.facts,
                        "seconds": [],
                        "peak_rss_bytes": [],
                    }
                if len(known[key]["seconds"]) < rounds:
                    pending.append((key, command))
        deadline = time.monotonic() + seconds
        for _, command in pending:
            if time.monotonic() < deadline:
                first_answer(command, inputs)
        while pending and time.monotonic() < deadline:
            for key, command in pending:
                time.sleep(REST_SECONDS)
                took, peak = first_answer(command, inputs)
                known[key]["seconds"].append(round(took, 4))
                known[key]["peak_rss_bytes"].append(peak)
            pending = [(key, command) for key, command in pending if len(known[key]["seconds"]) < rounds]
    document |= {
        "kind": "start",
        "model": model.name,
        "shape": dict(zip(model.axes, shape, strict=True)),
        "host": host.model_dump(mode="json"),
        "threads": threads,
        "scheduling": sorted({scheduling(), *document.get("scheduling", [])}),
        "starts": known,
    }
    records.write(path, document)
    for key, entry in known.items():
        say(f"  {key}: {sorted(entry['seconds'])} s, {max(entry['peak_rss_bytes'], default=0) / 1e6:.0f} MB")
