"""Generate targets/data/pins/onnxruntime-node.json: what bundles for Node carry.

    python targets/generate_node.py            the pins of the version below; needs npm and a registry that it reaches

`generate_runtimes.py` takes the limits of that version from `probe`, which asks the native library in Node.
"""

import json
import os
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

from generate_common import DATA, write_json
from generate_strings import Library, config_keys, run_keys
from generate_web import RUN_OPTIONS, SESSION_OPTIONS, checked_limits, described, fetch, pins, unpacked

PACKAGE = "onnxruntime-node"
VERSION = "1.30.0"
ARCHITECTURES = {"linux/amd64": "x64", "linux/arm64": "arm64"}
LIBRARY, BINDING = "libonnxruntime.so.1", "onnxruntime_binding.node"

_PROBE = """
const { createRequire } = await import("node:module");
const binding = createRequire(process.argv[1])(process.argv[1]);
binding.initOrtOnce(4, class {}, true);
let text = "";
for await (const chunk of process.stdin) text += chunk;
const found = {};
for (const [limit, models] of Object.entries(JSON.parse(text))) {
  let last = null, refusal = null;
  for (const [number, model] of models) {
    try {
      const bytes = Uint8Array.from(Buffer.from(model, "hex"));
      new binding.InferenceSession().loadModel(bytes.buffer, 0, bytes.length, {});
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


def place(architecture: str, name: str) -> str:
    """Where the package has a file of one architecture."""
    return f"bin/napi-v6/linux/{architecture}/{name}"


def main() -> int:
    """Write the pins."""
    with tempfile.TemporaryDirectory() as scratch:
        document = pins(PACKAGE, fetch(PACKAGE, VERSION, Path(scratch)), "runtime/ort", ())
        members = unpacked(next(Path(scratch).glob("*.tgz")))
    document["platforms"] = sorted(ARCHITECTURES)
    document["npm"][0]["files"] = [
        {
            **described(place(architecture, name), members),
            "to": f"{architecture}/{name}",
            "platforms": [platform],
        }
        for platform, architecture in sorted(ARCHITECTURES.items())
        for name in (LIBRARY, BINDING)
    ]
    write_json(DATA / "pins" / f"{PACKAGE}.json", document)
    print(f"wrote targets/data/pins/{PACKAGE}.json", file=sys.stderr)
    return 0


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
        for name in (LIBRARY, BINDING):
            (Path(scratch) / name).write_bytes(members[place("x64", name)])
        command = ["node", "--input-type=module", "-e", _PROBE, str((Path(scratch) / BINDING).resolve())]
        done = subprocess.run(
            command, input=json.dumps(models), env=dict(os.environ), check=True, capture_output=True, text=True
        )
    limits = checked_limits(PACKAGE, version, json.loads(done.stdout.splitlines()[-1]))
    library = [Library(LIBRARY, members[place("x64", LIBRARY)])]
    return {
        "package": PACKAGE,
        "version": version,
        **limits,
        "pythons": [],
        "platforms": sorted(ARCHITECTURES),
        "cuda": None,
        "session_options": SESSION_OPTIONS,
        "run_options": RUN_OPTIONS,
        "config_keys": config_keys(library),
        "run_config_keys": run_keys(library),
        "providers": {"all": ["CPUExecutionProvider"], "available": ["CPUExecutionProvider"]},
        "provider_options": {"CPUExecutionProvider": {}},
    }


if __name__ == "__main__":
    sys.exit(main())
