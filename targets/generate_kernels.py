"""Generate targets/data/kernels/: which operators and types an ONNX Runtime's CUDA provider has kernels for.

    python targets/generate_kernels.py            in an environment with the runtime
    python targets/generate_kernels.py --check    write nothing, fail on a difference

What is written is what the provider registers: its library is loaded over stand-ins for NVIDIA's (stand_in.py), so that
no GPU is needed, and ONNX Runtime lists its kernels, as its own documentation of them is made. It needs Linux on
x86-64, onnxruntime-gpu, onnx, a C compiler and readelf.
"""

import argparse
import importlib.metadata
import json
import os
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

from generate_common import DATA, to_json
from stand_in import stand_ins

FORMAT_VERSION = 1
PACKAGE = "onnxruntime-gpu"
PROVIDER = "CUDAExecutionProvider"
CPU = "CPUExecutionProvider"
LIBRARIES = ("cuda", "tensorrt")
"""The list of all kernels takes every provider of the wheel."""
INTERNAL = ("com.ms.internal.nhwc",)
"""Domains that no model has: operators that a session makes of others."""
FOREVER = 2**31 - 1
Constraints = dict[str, list[str]]

LIST = """
import json
import onnxruntime.capi.onnxruntime_pybind11_state as state
kernels = [
    [entry.provider, entry.domain, entry.op_name, *entry.version_range, entry.type_constraints]
    for entry in state.get_all_opkernel_def()
]
schemas = [
    [entry.domain, entry.name, entry.since_version, *(
        [[value.typeStr, value.name] for value in values] for values in (entry.inputs, entry.outputs)
    )]
    for entry in state.get_all_operator_schema()
]
print(json.dumps({"kernels": kernels, "schemas": schemas}))
"""


def main() -> int:
    """Write the table of the installed runtime, or compare it with what is written."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--check", action="store_true", help="compare with what is written")
    check = parser.parse_args().check
    version = importlib.metadata.version(PACKAGE)
    place = DATA / "kernels" / f"{PACKAGE}-{version}.json"
    text = to_json(table(version))
    if check:
        same = place.is_file() and place.read_text("utf-8") == text
        print(f"{place.name}: {'as written' if same else 'differs: run generate_kernels.py'}", file=sys.stderr)
        return 0 if same else 1
    place.parent.mkdir(exist_ok=True)
    place.write_text(text, "utf-8")
    print(f"wrote targets/data/kernels/{place.name}", file=sys.stderr)
    return 0


def table(version: str) -> dict[str, Any]:
    """What is written of the installed runtime."""
    found = listed()
    schemas = {(domain, name, since): (ins, outs) for domain, name, since, ins, outs in found["schemas"]}
    of = {
        provider: [kernel for kernel in found["kernels"] if kernel[0] == provider and kernel[1] not in INTERNAL]
        for provider in (PROVIDER, CPU)
    }
    defined = _functions()
    return {
        "format_version": FORMAT_VERSION,
        "package": PACKAGE,
        "version": version,
        "provider": PROVIDER,
        "operators": operators(of[PROVIDER], schemas),
        # Of the operators that ONNX defines by others: what the CPU has kernels for is not taken apart.
        "whole": operators([kernel for kernel in of[CPU] if not kernel[1] and kernel[2] in defined], schemas),
    }


def operators(kernels: list[Any], schemas: dict[tuple[str, str, int], Any]) -> dict[str, list[dict[str, Any]]]:
    """The kernels of one provider, by operator."""
    grouped: dict[tuple[str, str, int, int], list[Constraints]] = {}
    for _, domain, name, since, until, constraints in kernels:
        grouped.setdefault((domain, name, since, until), []).append(constraints)
    result: dict[str, list[dict[str, Any]]] = {}
    for (domain, name, since, until), found in sorted(grouped.items()):
        schema = max(key for key in schemas if key[:2] == (domain, name) and key[2] <= since)
        named = {constraint for kernel in found for constraint in kernel}
        inputs, outputs = ([_label(pair, named) for pair in part] for part in schemas[schema])
        entry = {
            "since": since,
            "until": None if until == FOREVER else until,
            "inputs": inputs,
            "outputs": outputs,
            "types": [
                {name: " ".join(types) for name, types in kernel.items()}
                for kernel in merged([{key: _short(types) for key, types in kernel.items()} for kernel in found])
            ],
        }
        result.setdefault(f"{domain}::{name}" if domain else name, []).append(entry)
    return result


def _functions() -> set[str]:
    """Operators that ONNX defines by others."""
    from onnx import defs

    schemas: list[Any] = defs.get_all_schemas_with_history()
    return {
        schema.name
        for schema in schemas
        if not schema.domain and (schema.has_function or schema.has_context_dependent_function)
    }


def _label(pair: list[str], named: set[str]) -> str | None:
    """The constraint that a kernel puts on an input or output: by its type's name, or its own; None without any."""
    return next((name for name in pair if name in named), None)


def _short(types: list[str]) -> list[str]:
    return sorted(text.removeprefix("tensor(").removesuffix(")") if text.count("(") == 1 else text for text in types)


def merged(kernels: list[Constraints]) -> list[Constraints]:
    """The same kernels in fewer entries: those that differ in the types of one constraint alone are one."""
    found = kernels
    for varied in sorted({name for kernel in kernels for name in kernel}):
        groups: dict[str, Constraints] = {}
        for kernel in found:
            rest = json.dumps({name: types for name, types in kernel.items() if name != varied}, sort_keys=True)
            one = groups.setdefault(rest, {**kernel, varied: []} if varied in kernel else kernel)
            if varied in kernel:
                one[varied] = sorted({*one.get(varied, []), *kernel[varied]})
        found = list(groups.values())
    return sorted(found, key=lambda kernel: json.dumps(kernel, sort_keys=True))


def listed() -> dict[str, list[Any]]:
    """Kernels of every provider and schemas of all operators, from a process that finds the stand-ins."""
    import onnxruntime

    capi = Path(onnxruntime.__file__).parent / "capi"
    with tempfile.TemporaryDirectory() as scratch:
        place = stand_ins([capi / f"libonnxruntime_providers_{name}.so" for name in LIBRARIES], Path(scratch))
        variables = os.environ | {"LD_LIBRARY_PATH": str(place), "ORT_DISABLE_TELEMETRY": "1"}
        done = subprocess.run([sys.executable, "-c", LIST], env=variables, check=True, capture_output=True, text=True)
    result: dict[str, list[Any]] = json.loads(done.stdout.splitlines()[-1])
    return result


if __name__ == "__main__":
    sys.exit(main())
