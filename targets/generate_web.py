"""Generate targets/data/pins/onnxruntime-web.json and processing/web-text.json: what bundles for browsers carry.

    python targets/generate_web.py             the pins of the versions below; needs npm and a registry that it reaches

`generate_runtimes.py` takes the limits of that version from `probe`, which asks the WebAssembly build itself in Node.
"""

import base64
import hashlib
import json
import os
import subprocess
import sys
import tarfile
import tempfile
from pathlib import Path
from typing import Any

from generate_common import DATA, write_json
from generate_strings import Library, config_keys, run_keys

FORMAT_VERSION = 1
PACKAGE = "onnxruntime-web"
VERSION = "1.30.0"
TOKENIZERS, TOKENIZERS_VERSION = "@huggingface/tokenizers", "0.2.0"
PLATFORM = "web/wasm"
SCRIPT, GLUE, BINARY = "ort.wasm.min.mjs", "ort-wasm-simd-threaded.mjs", "ort-wasm-simd-threaded.wasm"
FILES = (SCRIPT, GLUE, BINARY)
"""Of the package's `dist`: the interface without WebGL and WebGPU, and the CPU build with SIMD and threads."""
TOKENIZERS_FILES = ("tokenizers.min.mjs",)

# `InferenceSession.SessionOptions` and `RunOptions` of the package's types: those that the WebAssembly backend reads.
# Node's own file system and log options are left out; thread counts are of `env.wasm`, and not of a session.
_BOOL = {"kind": "bool"}
SESSION_OPTIONS: dict[str, dict[str, Any]] = {
    "enable_cpu_mem_arena": _BOOL,
    "enable_mem_pattern": _BOOL,
    "execution_mode": {"kind": "enum", "values": ["ORT_PARALLEL", "ORT_SEQUENTIAL"]},
    "graph_optimization_level": {
        "kind": "enum",
        "values": [
            "ORT_DISABLE_ALL",
            "ORT_ENABLE_ALL",
            "ORT_ENABLE_BASIC",
            "ORT_ENABLE_EXTENDED",
            "ORT_ENABLE_LAYOUT",
        ],
    },
    "log_severity_level": {"kind": "int"},
    "log_verbosity_level": {"kind": "int"},
    "logid": {"kind": "str"},
}
RUN_OPTIONS: dict[str, dict[str, Any]] = {
    "log_severity_level": {"kind": "int"},
    "log_verbosity_level": {"kind": "int"},
    "logid": {"kind": "str"},
    "terminate": _BOOL,
}

_PROBE = """
const ort = await import(process.argv[1] + "/ort.wasm.min.mjs");
ort.env.wasm.numThreads = 1;
ort.env.logLevel = "fatal";
let text = "";
for await (const chunk of process.stdin) text += chunk;
const found = {};
for (const [limit, models] of Object.entries(JSON.parse(text))) {
  let last = null, refusal = null;
  for (const [number, model] of models) {
    try {
      await (await ort.InferenceSession.create(Buffer.from(model, "hex"), { logSeverityLevel: 4 })).release();
      last = number;
    } catch (error) {
      refusal = String(error);
      break;
    }
  }
  found[limit] = [last, refusal];
}
console.log(JSON.stringify(found));
process.exit(0);
"""


def main() -> int:
    """Write the pins."""
    with tempfile.TemporaryDirectory() as scratch:
        for folder, name, package, version, place, files in (
            ("pins", PACKAGE, PACKAGE, VERSION, "runtime/ort", FILES),
            ("processing", "web-text", TOKENIZERS, TOKENIZERS_VERSION, "runtime/tokenizers", TOKENIZERS_FILES),
        ):
            here = Path(scratch) / name
            here.mkdir()
            write_json(DATA / folder / f"{name}.json", pins(name, fetch(package, version, here), place, files))
            print(f"wrote targets/data/{folder}/{name}.json", file=sys.stderr)
    return 0


def fetch(package: str, version: str, here: Path) -> Path:
    """A package's archive, as npm gets it from its registry and compares it with the integrity stated there."""
    command = ["npm", "pack", "--silent", "--ignore-scripts", "--pack-destination", str(here), f"{package}@{version}"]
    subprocess.run(command, check=True, stdout=subprocess.DEVNULL)
    return next(here.glob("*.tgz"))


def pins(pin_set: str, archive: Path, place: str, files: tuple[str, ...]) -> dict[str, Any]:
    """The pin file of one archive, of which some files of `dist` lie in a directory of a bundle."""
    content = archive.read_bytes()
    members = unpacked(archive)
    about = json.loads(members["package.json"])
    return {
        "format_version": FORMAT_VERSION,
        "name": pin_set,
        "requirement": f"{about['name']}@{about['version']}",
        "server": [],
        "platforms": [PLATFORM],
        "pythons": [],
        "requirements": [],
        "npm": [
            {
                "name": about["name"],
                "version": about["version"],
                "license": about["license"],
                "integrity": "sha512-" + base64.b64encode(hashlib.sha512(content).digest()).decode(),
                "bytes": len(content),
                "place": place,
                "files": [described(f"dist/{name}", members) for name in sorted(files)],
            }
        ],
    }


def described(path: str, members: dict[str, bytes]) -> dict[str, Any]:
    """One file of a package, as pins have it."""
    return {"path": path, "sha256": hashlib.sha256(members[path]).hexdigest(), "bytes": len(members[path])}


def unpacked(archive: Path) -> dict[str, bytes]:
    """The files of a package by their path in it."""
    found = {}
    with tarfile.open(archive) as tar:
        for member in tar:
            stream = tar.extractfile(member) if member.isfile() else None
            if stream is not None:
                found[member.name.partition("/")[2]] = stream.read()
    return found


def probe(version: str, models: dict[str, list[tuple[int, str]]]) -> dict[str, Any]:
    """Everything the compiler wants to know of one version.

    Args:
        version: of the package.
        models: by `opset` and `ir`, tiny models at growing numbers, as hexadecimal text.

    Raises:
        SystemExit: the probe is broken: a refusal is about neither number.
    """
    with tempfile.TemporaryDirectory() as scratch:
        members = unpacked(fetch(PACKAGE, version, Path(scratch)))
        for name in FILES:
            (Path(scratch) / name).write_bytes(members[f"dist/{name}"])
        command = ["node", "--input-type=module", "-e", _PROBE, str(Path(scratch).resolve())]
        done = subprocess.run(
            command, input=json.dumps(models), env=dict(os.environ), check=True, capture_output=True, text=True
        )
    limits = checked_limits(PACKAGE, version, json.loads(done.stdout.splitlines()[-1]))
    library = [Library(BINARY, members[f"dist/{BINARY}"])]
    return {
        "package": PACKAGE,
        "version": version,
        **limits,
        "pythons": [],
        "platforms": [PLATFORM],
        "cuda": None,
        "session_options": SESSION_OPTIONS,
        "run_options": RUN_OPTIONS,
        "config_keys": config_keys(library),
        "run_config_keys": run_keys(library),
        "providers": {"all": ["CPUExecutionProvider"], "available": ["CPUExecutionProvider"]},
        "provider_options": {"CPUExecutionProvider": {}},
    }


def checked_limits(package: str, version: str, limits: dict[str, tuple[int, str | None]]) -> dict[str, int]:
    """The greatest opset and IR version that were accepted, where what came next was refused for its number.

    Raises:
        SystemExit: the probe is broken: a refusal is about neither number.
    """
    for name, (_, refusal) in limits.items():
        if refusal is None or not ("opset" in refusal or "IR version" in refusal):
            raise SystemExit(f"{package} {version}: expected a refusal that names the {name}, found {refusal}")
    return {"max_opset": limits["opset"][0], "max_ir": limits["ir"][0]}


if __name__ == "__main__":
    sys.exit(main())
