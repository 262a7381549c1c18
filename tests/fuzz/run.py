"""Run the fuzzer for a number of inputs and keep what came out: `python tests/fuzz/run.py [INPUTS]`, or `make fuzz`.

The corpus lies in .fuzz/ and grows from run to run; record.json keeps the result of the last run that found nothing.
"""

import importlib.metadata
import json
import os
import platform
import re
import subprocess
import sys
import time
from pathlib import Path

HERE = Path(__file__).parent
ROOT = HERE.parents[1]
WORK = ROOT / ".fuzz"
INPUTS = 250_000
MOST_MB = 300


def main() -> int:
    """Fuzz, and write the record.

    Returns:
        0, or libFuzzer's exit code when an input broke a rule; that input is then in .fuzz/.
    """
    inputs = int(sys.argv[1]) if len(sys.argv) > 1 else INPUTS
    corpus, slowest = WORK / "corpus", WORK / "slowest.json"
    corpus.mkdir(parents=True, exist_ok=True)
    slowest.unlink(missing_ok=True)
    for path in (*(ROOT / "specs").glob("*.yaml"), *(ROOT / "tests" / "diagnostics").glob("*.yaml")):
        (corpus / f"seed-{path.stem}").write_bytes(b"\0" + path.read_bytes())
    arguments = [
        f"-runs={inputs}",
        f"-rss_limit_mb={MOST_MB}",
        # Wall time, which a busy machine stretches; what an input may cost is held to by fuzz_spec.py.
        "-timeout=900",
        "-max_len=1024",
        "-len_control=0",
        "-print_final_stats=1",
        f"-artifact_prefix={WORK}/",
        str(corpus),
    ]
    began = time.monotonic()
    done = subprocess.run(
        [sys.executable, str(HERE / "fuzz_spec.py"), *arguments],
        env={**os.environ, "ORTC_FUZZ_SLOWEST": str(slowest), "PYTHONHASHSEED": "0"},
        stderr=subprocess.PIPE,
        text=True,
        errors="replace",
        check=False,
    )
    seconds = time.monotonic() - began
    (WORK / "log.txt").write_text(done.stderr, "utf-8")
    if done.returncode:
        sys.stderr.write(f"{done.stderr[-8000:]}\nan input broke a rule; see {WORK}\n")
        return done.returncode
    record = result(done.stderr, seconds, json.loads(slowest.read_text("utf-8")))
    (HERE / "record.json").write_text(json.dumps(record, indent=2) + "\n", "utf-8")
    sys.stdout.write(json.dumps(record, indent=2) + "\n")
    return 0


def result(log: str, seconds: float, slowest: dict[str, float]) -> dict[str, object]:
    """The record of a run, from libFuzzer's log.

    The limit is on processor time: wall time is recorded beside it, and holds every pause of the machine, too.
    """
    stats = {name: int(value) for name, value in re.findall(r"(?m)^stat::(\w+):\s+(\d+)$", log)}
    coverage, features = re.findall(r"cov: (\d+) ft: (\d+)", log)[-1]
    start = re.search(r"INITED cov: (\d+)", log)
    versions = {name: importlib.metadata.version(name) for name in ("atheris", "ortc", "pydantic", "pyyaml")}
    return {
        "format_version": 1,
        "inputs": stats["number_of_executed_units"],
        "seconds": round(seconds),
        "slowest_input_seconds": {name: round(value, 3) for name, value in slowest.items()},
        "peak_memory_mb": stats["peak_rss_mb"],
        "coverage": {
            "edges_at_start": int(start[1]) if start else None,
            "edges": int(coverage),
            "features": int(features),
        },
        "limits": {"processor_seconds": 1.0, "memory_mb": MOST_MB},
        "versions": {"python": platform.python_version(), **versions},
    }


if __name__ == "__main__":
    sys.exit(main())
