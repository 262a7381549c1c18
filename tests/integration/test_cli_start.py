"""The commands that people and pre-commit run all day start fast: they load none of the heavy packages."""

import resource
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
HEAVY = ("torch", "transformers", "onnx", "onnxruntime", "onnxscript", "numpy", "huggingface_hub", "fsspec")
NEEDED = "pydantic, rich_click, yaml"
SPECS = [str(path.relative_to(ROOT)) for path in sorted((ROOT / "specs").glob("*.yaml"))]
PROGRAM = """
import sys
sys.path.insert(0, "compiler")
from ortc.__main__ import run
code = run(sys.argv[2:])
found = [name for name in sys.argv[1].split(",") if name in sys.modules]
print(code, *found, file=sys.stderr)
"""


def processor_seconds() -> float:
    """Of all processes that were started from here and have ended."""
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    return used.ru_utime + used.ru_stime


def start(*arguments: str) -> tuple[str, float]:
    """The exit code and the heavy packages that a command loaded, and the seconds of processor time that it took."""
    began = processor_seconds()
    done = subprocess.run(
        [sys.executable, "-c", PROGRAM, ",".join(HEAVY), *arguments],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=True,
    )
    return done.stderr.strip().splitlines()[-1], processor_seconds() - began


def imports(modules: str) -> float:
    """The seconds of processor time that Python takes to start and import modules."""
    began = processor_seconds()
    subprocess.run([sys.executable, "-c", f"import {modules}"], cwd=ROOT, check=True)
    return processor_seconds() - began


@pytest.mark.parametrize(
    "arguments",
    [
        ["--help"],
        ["check", *SPECS],
        ["check", *SPECS, "--output-format", "json"],
        ["schema"],
        ["explain", "ORTC204"],
        ["targets"],
        ["diff", "--help"],
    ],
    ids=lambda arguments: arguments[0],
)
def test_no_heavy_package_is_loaded(arguments: list[str]) -> None:
    assert start(*arguments)[0] == "0"


@pytest.mark.parametrize("arguments", [["--help"], ["check", "specs/bert.yaml"]], ids=lambda arguments: arguments[0])
def test_start_is_fast(arguments: list[str]) -> None:
    """At most six times the processor time of the packages that it cannot do without, on whatever machine."""
    least = min(imports(NEEDED) for _ in range(5))
    assert min(start(*arguments)[1] for _ in range(5)) < 6 * least


def test_comparing_specs_loads_no_framework() -> None:
    """numpy comes with the code that knows what goes into each stage; torch, transformers and onnx do not."""
    found, _ = start("diff", SPECS[0], SPECS[1], "--json")
    assert found == "0 numpy"


def test_a_reader_that_leaves_is_no_bug() -> None:
    command = [sys.executable, "-m", "ortc", "explain"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE) as process:
        assert process.stdout is not None
        # Closed before anything is written.
        process.stdout.close()
        assert process.wait() == 141
        assert process.stderr is not None
        assert process.stderr.read() == b""
