"""Try every architecture of the catalogue, and write what became of each.

    python tests/architectures/run.py [NAME ...] [--opsets 20,17] [--jobs 2] [--catalogue FILE.py] [--output FILE.json]

Without arguments: all of them at both opsets, into tests/architectures/data/architectures.json, and from that
docs/architectures.md. Names alone renew what is known of these. Another catalogue is a file that defines ARCHITECTURES;
what becomes of it goes to `--output` and nowhere else.
"""

from __future__ import annotations

import argparse
import dataclasses
import importlib.metadata
import importlib.util
import json
import os
import queue
import select
import subprocess
import sys
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

from catalogue import ARCHITECTURES, Architecture

from ortc.build.context import tool_versions
from ortc.execution.host import describe

HERE = Path(__file__).parent
DATA = HERE / "data" / "architectures.json"
PLACEMENT = DATA.with_name("placement.json")
PAGE = HERE.parents[1] / "docs" / "architectures.md"
VARIANTS = {20: ("fp32", "int8-dynamic")}
"""What is made of the exported graph, at the opset that most specs have."""
OPSETS = (20, 17)
TIMEOUT = 900.0
"""Seconds that one architecture may take."""

Json = dict[str, Any]


class Process:
    """A process that tries architectures; a crash or a hang costs the one that it was at."""

    def __init__(self, *, plain: bool) -> None:
        self._plain = plain
        self._process: subprocess.Popen[bytes] | None = None

    def ask(self, architecture: Architecture, opset: int) -> Json:
        """What becomes of an architecture."""
        if self._process is None:
            environment = {**os.environ, "HF_HUB_OFFLINE": "1", "TOKENIZERS_PARALLELISM": "false"}
            self._process = subprocess.Popen(
                [sys.executable, str(HERE / "trial.py")],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=subprocess.DEVNULL,
                env=environment,
            )
        process = self._process
        assert process.stdin is not None
        assert process.stdout is not None
        request = {
            "architecture": dataclasses.asdict(architecture),
            "opset": opset,
            "variants": () if self._plain else VARIANTS.get(opset, ()),
        }
        process.stdin.write(json.dumps(request).encode() + b"\n")
        process.stdin.flush()
        ready, _, _ = select.select([process.stdout], [], [], TIMEOUT)
        line = process.stdout.readline() if ready else b""
        if line:
            found: Json = json.loads(line)
            return found
        self.close()
        why = f"ended with exit code {process.returncode}" if ready else f"gave no answer in {TIMEOUT:.0f} s"
        return {"name": architecture.name, "opset": opset, "error": f"the process {why}", "kind": "crash"}

    def close(self) -> None:
        """End the process."""
        if self._process is not None:
            self._process.kill()
            self._process.wait()
            self._process = None


def run(
    architectures: list[Architecture],
    opsets: tuple[int, ...],
    jobs: int,
    done: Callable[[Json], None],
    *,
    plain: bool,
) -> None:
    """Try architectures in some processes at once; `done` is told of each."""
    waiting: queue.SimpleQueue[tuple[Architecture, int]] = queue.SimpleQueue()
    for architecture in architectures:
        for opset in opsets:
            waiting.put((architecture, opset))
    lock = threading.Lock()

    def work() -> None:
        process = Process(plain=plain)
        try:
            while True:
                try:
                    architecture, opset = waiting.get_nowait()
                except queue.Empty:
                    return
                result = process.ask(architecture, opset)
                with lock:
                    done({**result, "architecture": architecture.kind, "task": architecture.task})
        finally:
            process.close()

    threads = [threading.Thread(target=work) for _ in range(jobs)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()


def say(found: Json) -> None:
    """One line on stderr."""
    if "error" in found:
        text = f"FAIL {found['error'][:300]}"
        for detail in found.get("details", ())[:2]:
            text += f"\n      {detail[:240]}"
    else:
        int8 = found.get("int8-dynamic cosine")
        shown = "-" if int8 is None else f"{int8:.4f}"
        worst = found.get("fp32 max_abs", found.get("max_abs")) or 0.0
        text = (
            f"{found['exporter']:<12} {worst:.1e}  fp32 {found.get('fp32')}  int8 {shown} {found.get('int8-dynamic')}"
        )
    sys.stderr.write(f"{found['name']:<20} {found['opset']} {found.get('seconds', 0):>6}s {text}\n")


def load(path: Path) -> tuple[Architecture, ...]:
    """The catalogue in a file."""
    spec = importlib.util.spec_from_file_location("other_catalogue", path)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    found: tuple[Architecture, ...] = module.ARCHITECTURES
    return found


def main() -> int:
    """Run what is asked for.

    Returns:
        0; 2 when a name is not known.
    """
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("names", nargs="*", metavar="NAME")
    parser.add_argument("--opsets", default=",".join(map(str, OPSETS)))
    parser.add_argument("--jobs", type=int, default=2)
    parser.add_argument("--catalogue", type=Path)
    parser.add_argument("--output", type=Path)
    parser.add_argument("--plain", action="store_true", help="the exported graph alone: no variants")
    arguments = parser.parse_args()
    listed = load(arguments.catalogue) if arguments.catalogue else ARCHITECTURES
    known = {entry.name: entry for entry in listed}
    if unknown := [name for name in arguments.names if name not in known]:
        parser.error(f"`{unknown[0]}` is none of {', '.join(known)}")
    chosen = [known[name] for name in arguments.names or known]
    opsets = tuple(int(opset) for opset in arguments.opsets.split(","))
    output = arguments.output or (None if arguments.catalogue else DATA)

    def done(found: Json) -> None:
        say(found)
        if output is not None:
            keep(found, output, [entry.name for entry in listed])

    run(chosen, opsets, arguments.jobs, done, plain=arguments.plain)
    if output == DATA:
        from page import page

        PAGE.write_text(page(json.loads(DATA.read_bytes()), json.loads(PLACEMENT.read_bytes())), "utf-8")
    return 0


def keep(found: Json, output: Path, order: list[str]) -> None:
    """Put a result into a file, over the one that it has of the same architecture and opset."""
    before = json.loads(output.read_bytes())["results"] if output.exists() else []
    results = {(entry["name"], entry["opset"]): entry for entry in [*before, found] if entry["name"] in order}
    document = {
        "format_version": 1,
        "host": describe().model_dump(mode="json"),
        "versions": {**tool_versions(), "onnxruntime": "1.31.1", "ortc": importlib.metadata.version("ortc")},
        "results": [results[key] for key in sorted(results, key=lambda key: (order.index(key[0]), -key[1]))],
    }
    output.parent.mkdir(parents=True, exist_ok=True)
    output.write_text(json.dumps(document, indent=1, ensure_ascii=False) + "\n", "utf-8")


if __name__ == "__main__":
    sys.exit(main())
