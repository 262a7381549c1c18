"""Generate targets/data/runtimes.json: what each supported ONNX Runtime accepts and knows.

    python targets/generate_runtimes.py                    every version (tens of minutes, gigabytes of downloads)
    python targets/generate_runtimes.py --only 1.31.1      this version again, the others kept
    python targets/generate_runtimes.py --check 1.31.1     probe again, write nothing, fail on a difference

Every limit is probed: a virtual environment is made for the version, tiny models at growing opset and IR version are
given to it, and its native libraries are searched for the names of configuration keys and provider options. The build
for browsers is asked in Node (`generate_web.py`). It needs Linux on x86-64, a package index that pip reaches, npm, and
`onnx` and `torch` in the Python that runs it.
"""

import argparse
import importlib.metadata
import json
import os
import re
import subprocess
import sys
import tempfile
import venv
from pathlib import Path
from typing import Any

from generate_common import DATA, MACHINES, Distribution, pick, pip_environment, platform_options, write_json
from generate_node import PACKAGE as NODE
from generate_node import VERSION as NODE_VERSION
from generate_node import probe as probe_node
from generate_strings import Library, config_keys, libraries, provider_options, run_keys
from generate_web import PACKAGE as WEB
from generate_web import VERSION as WEB_VERSION
from generate_web import probe as probe_web
from packaging.requirements import Requirement
from packaging.version import Version

FORMAT_VERSION = 1
FILE = DATA / "runtimes.json"
RUNTIMES = (
    ("onnxruntime", "1.23.2"),
    ("onnxruntime", "1.24.4"),
    ("onnxruntime", "1.25.1"),
    ("onnxruntime", "1.26.0"),
    ("onnxruntime", "1.27.0"),
    ("onnxruntime", "1.28.0"),
    ("onnxruntime", "1.29.0"),
    ("onnxruntime", "1.30.0"),
    ("onnxruntime", "1.31.1"),
    ("onnxruntime-gpu", "1.30.0"),
    ("onnxruntime-gpu", "1.31.1"),
    ("onnxruntime-openvino", "1.24.1"),
    (NODE, NODE_VERSION),
    (WEB, WEB_VERSION),
)
CANDIDATE_PYTHONS = tuple(f"3.{minor}" for minor in range(10, 16))
PROBED_OPSETS = range(7, 41)
PROBED_IR_VERSIONS = range(3, 31)

# NVIDIA, CUDA Toolkit release notes, table "CUDA Toolkit and minimum required driver version for CUDA minor version
# compatibility": the least Linux driver of each major version of CUDA. A wheel does not say it.
LEAST_DRIVER = {"12": "525.60.13", "13": "580"}
# The same notes, deprecated architectures: CUDA 12 ended support for Kepler, CUDA 13 for Maxwell, Pascal and Volta.
LEAST_CAPABILITY = {"12": "5.0", "13": "7.5"}

PROBE = """
import json, sys
import onnxruntime as ort

def accepted(models):
    for number, model in models:
        try:
            ort.InferenceSession(bytes.fromhex(model), providers=["CPUExecutionProvider"])
        except Exception as error:
            return last, f"{type(error).__name__}: {error}"
        last = number
    return last, None

def kind(value):
    for python in (bool, int, str):
        if type(value) is python:
            return {"kind": python.__name__}
    return {"kind": "enum", "values": sorted(type(value).__members__)}

def properties(options):
    names = [name for name in dir(type(options)) if isinstance(getattr(type(options), name), property)]
    return {name: kind(getattr(options, name)) for name in names}

ort.set_default_logger_severity(4)
models = json.load(sys.stdin)
print(json.dumps({
    "max_opset": accepted(models["opset"]),
    "max_ir": accepted(models["ir"]),
    "session_options": properties(ort.SessionOptions()),
    "run_options": properties(ort.RunOptions()),
    "all_providers": ort.get_all_providers(),
    "available_providers": ort.get_available_providers(),
}))
"""


def main() -> int:
    """Probe the versions asked for; write them, or compare them with what is written."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    mode = parser.add_mutually_exclusive_group()
    versions = sorted({version for _, version in RUNTIMES})
    mode.add_argument("--only", choices=versions, metavar="VERSION", help="regenerate this version")
    mode.add_argument("--check", choices=versions, metavar="VERSION", help="probe this version and compare")
    parser.add_argument("--package", choices=sorted({package for package, _ in RUNTIMES}), help="only this package")
    arguments = parser.parse_args()
    wanted = [
        (package, version)
        for package, version in RUNTIMES
        if (arguments.only or arguments.check) in (None, version) and arguments.package in (None, package)
    ]
    if not wanted:
        parser.error(f"{arguments.package} {arguments.only or arguments.check} is not in RUNTIMES")
    written = json.loads(FILE.read_text(encoding="utf-8")) if FILE.exists() else {"runtimes": []}
    found = {package_version: probe(*package_version) for package_version in wanted}
    if arguments.check:
        return check(written["runtimes"], found)
    kept = {(entry["package"], entry["version"]): entry for entry in written["runtimes"]}
    merged = {key: entry for key, entry in (kept | found).items() if key in RUNTIMES}
    write_json(
        FILE,
        {
            "format_version": FORMAT_VERSION,
            "tools": {name: public_version(name) for name in ("onnx", "torch")},
            "min_ir_for_opset": min_ir_for_opset(),
            "exporters": exporters(),
            "runtimes": [merged[key] for key in sorted(merged, key=lambda key: (key[0], Version(key[1])))],
        },
    )
    print(f"wrote {len(merged)} runtimes to targets/data/runtimes.json", file=sys.stderr)
    return 0


def check(written: list[dict[str, Any]], found: dict[tuple[str, str], dict[str, Any]]) -> int:
    """Compare what is written with what was probed: 0 when equal."""
    different = 0
    for (package, version), entry in found.items():
        old = next((other for other in written if (other["package"], other["version"]) == (package, version)), {})
        for field in sorted(old.keys() | entry.keys()):
            if old.get(field) != entry.get(field):
                different = 1
                print(f"{package} {version}: {field}: written {old.get(field)}, probed {entry.get(field)}")
    if different:
        print("run generate_runtimes.py --only with this version, and read what changed", file=sys.stderr)
    return different


def probe(package: str, version: str) -> dict[str, Any]:
    """Everything the compiler wants to know of one version."""
    print(f"probing {package} {version}", file=sys.stderr)
    if package == WEB:
        return probe_web(version, tiny_models())
    if package == NODE:
        return probe_node(version, tiny_models())
    wheels = wheels_of(package, version)
    amd64 = [wheel for (platform, _), wheel in wheels.items() if platform == "linux/amd64"]
    found: list[Library] = []
    with tempfile.TemporaryDirectory() as scratch:
        here = Path(scratch)
        python = f"3.{sys.version_info.minor}"
        for platform in sorted({platform for platform, _ in wheels}):
            found += libraries(download(package, version, platform, python, here))
        result = run_probe(package, version, here)
    return {
        "package": package,
        "version": version,
        "max_opset": result["max_opset"],
        "max_ir": result["max_ir"],
        "pythons": sorted({python for _, python in wheels}, key=Version),
        "platforms": sorted({platform for platform, _ in wheels}),
        "cuda": cuda(amd64[0], result["cuda_version"]),
        "session_options": result["session_options"],
        "run_options": result["run_options"],
        "config_keys": config_keys(found),
        "run_config_keys": run_keys(found),
        "providers": {"all": sorted(result["all_providers"]), "available": sorted(result["available_providers"])},
        "provider_options": {
            provider: provider_options(provider, found) for provider in sorted(result["available_providers"])
        },
    }


def wheels_of(package: str, version: str) -> dict[tuple[str, str], Distribution]:
    """The wheel for each platform and Python that has one."""
    found = {}
    for platform in MACHINES:
        for python in CANDIDATE_PYTHONS:
            picked = pick([f"{package}=={version}"], platform, python)
            if picked is not None:
                found[platform, python] = picked[0]
    if not found:
        raise SystemExit(f"the index has no wheel of {package} {version}; take it out of RUNTIMES")
    return found


def download(package: str, version: str, platform: str, python: str, here: Path) -> Path:
    """Fetch the wheel of one platform."""
    where = here / platform.replace("/", "-")
    options = ["--quiet", "--no-deps", "--dest", str(where), *platform_options(platform, python)]
    command = [sys.executable, "-m", "pip", "download", *options, f"{package}=={version}"]
    subprocess.run(command, env=pip_environment(), check=True)
    return next(where.glob("*.whl"))


def run_probe(package: str, version: str, here: Path) -> dict[str, Any]:
    """Install the wheel downloaded for this machine and ask it."""
    environment = here / "environment"
    venv.create(environment, with_pip=False)
    python = environment / "bin" / "python"
    wheel = next((here / "linux-amd64").glob("*.whl"))
    install = [sys.executable, "-m", "pip", "--python", str(python), "install", "--quiet", str(wheel)]
    subprocess.run(install, env=pip_environment(), check=True)
    result = ask(python)
    info = next(environment.glob("lib/*/site-packages/onnxruntime/capi/build_and_package_info.py"))
    named = re.search(r"cuda_version = '([^']+)'", info.read_text(encoding="utf-8"))
    result["cuda_version"] = named.group(1) if named else None
    return result


def ask(python: Path) -> dict[str, Any]:
    """What the ONNX Runtime of a Python environment accepts and has, seen through its API."""
    variables = {key: value for key, value in os.environ.items() if key != "ALLOW_RELEASED_ONNX_OPSET_ONLY"}
    variables["ORT_DISABLE_TELEMETRY"] = "1"
    command = [str(python), "-c", PROBE]
    done = subprocess.run(
        command, input=json.dumps(tiny_models()), env=variables, check=True, capture_output=True, text=True
    )
    result: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    for limit in ("max_opset", "max_ir"):
        result[limit], refusal = result[limit]
        # Any other error than this one is a broken probe, not a limit.
        if refusal is None or not re.search("opset|IR version", refusal):
            raise SystemExit(f"{python}: expected a refusal that names the {limit}, found {refusal}")
    return result


def tiny_models() -> dict[str, list[tuple[int, str]]]:
    """Models at growing opset and at growing IR version."""
    return {
        "opset": [(opset, model(opset, 3)) for opset in PROBED_OPSETS],
        "ir": [(ir, model(7, ir)) for ir in PROBED_IR_VERSIONS],
    }


def model(opset: int, ir_version: int) -> str:
    """A model of one Identity node, as hexadecimal text."""
    from onnx import TensorProto, helper

    value = [helper.make_tensor_value_info(name, TensorProto.FLOAT, [1]) for name in ("x", "y")]
    graph = helper.make_graph([helper.make_node("Identity", ["x"], ["y"])], "probe", value[:1], value[1:])
    made = helper.make_model(graph, opset_imports=[helper.make_opsetid("", opset)], ir_version=ir_version)
    return bytes(made.SerializeToString()).hex()


def cuda(wheel: Distribution, version: str | None) -> dict[str, str] | None:
    """CUDA and cuDNN that a GPU wheel was built for."""
    if version is None:
        return None
    requires = [Requirement(text) for text in wheel.requires]
    cudnn = [str(item.specifier) for item in requires if item.name.startswith("nvidia-cudnn-")]
    if not cudnn:
        raise SystemExit(f"{wheel.file}: expected a requirement of nvidia-cudnn-*, found {wheel.requires}")
    major = version.split(".")[0]
    return {
        "version": version,
        "cudnn": cudnn[0],
        "least_driver": LEAST_DRIVER[major],
        "least_capability": LEAST_CAPABILITY[major],
    }


def min_ir_for_opset() -> list[tuple[int, int]]:
    """The least IR version that may hold each opset of the default domain, as the ONNX release table says."""
    from onnx import defs, helper

    opsets = range(PROBED_OPSETS.start, defs.onnx_opset_version() + 1)
    return [(opset, helper.find_min_ir_version_for([helper.make_opsetid("", opset)])) for opset in opsets]


def exporters() -> dict[str, dict[str, int]]:
    """Opsets that the exporters of the installed torch reach."""
    from torch.onnx import _constants
    from torch.onnx._internal.exporter._constants import TORCHLIB_OPSET

    return {
        "dynamo": {
            "default_opset": _constants.ONNX_DEFAULT_OPSET,
            "min_native_opset": TORCHLIB_OPSET,
            "min_opset": _constants.ONNX_MIN_OPSET,
            "max_opset": _constants.ONNX_MAX_OPSET,
        },
        "torchscript": {
            "default_opset": min(_constants.ONNX_DEFAULT_OPSET, _constants.ONNX_TORCHSCRIPT_EXPORTER_MAX_OPSET),
            "min_native_opset": _constants.ONNX_MIN_OPSET,
            "min_opset": _constants.ONNX_MIN_OPSET,
            "max_opset": _constants.ONNX_TORCHSCRIPT_EXPORTER_MAX_OPSET,
        },
    }


def public_version(name: str) -> str:
    """A tool's version without the local label of its build, such as `+cpu`."""
    return Version(importlib.metadata.version(name)).public


if __name__ == "__main__":
    sys.exit(main())
