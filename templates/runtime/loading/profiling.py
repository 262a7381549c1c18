"""Which nodes ran, from the file that ONNX Runtime's profiler writes."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any


def executed_nodes(profile: Path) -> list[dict[str, Any]]:
    """Each node that ran, once: name, op_type, provider, runs, and microseconds of its last run."""
    nodes: dict[str, dict[str, Any]] = {}
    for event in json.loads(profile.read_bytes()):
        about = event.get("args", {})
        if event.get("cat") == "Node" and "op_name" in about:
            name = event["name"].removesuffix("_kernel_time")
            entry = nodes.setdefault(
                name, {"name": name, "op_type": about["op_name"], "provider": about.get("provider"), "runs": 0}
            )
            entry |= {"runs": entry["runs"] + 1, "microseconds": event["dur"]}
    return list(nodes.values())
